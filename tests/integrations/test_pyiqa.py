"""FuScore as pyiqa metrics. Runs where pyiqa is installed (CI's second environment)."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fuscore_metric import InputError, score
from tests.helpers import EXAMPLE
from tests.helpers.tiny_model import tiny_backbone
from tests.integrations.conftest import HEIGHT, WIDTH, images, triple

pyiqa = pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra [pyiqa])")


def test_facts(metric):
    assert metric.score_range == "1, 5"
    assert metric.lower_better is False
    assert metric.metric_mode == "NR"


def test_scores_are_those_of_score(metric, model):
    fused, sources = triple()
    expected = score(sources["ir"], sources["vis"], fused, model=model)
    found = metric(fused, **sources)
    assert torch.allclose(found, expected)
    assert found.shape == (2,)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert metric(target=fused, **sources).shape == (2,)
    assert metric(fused[:1], ir=sources["ir"][:1], vis=sources["vis"][:1]).shape == (1,)


def test_grey_and_half_precision(metric):
    fused, sources = images(0, channels=1), {"ir": images(1, channels=1), "vis": images(2)}
    expected = metric(fused.expand(-1, 3, -1, -1), **sources)
    assert torch.allclose(metric(fused, **sources), expected)
    fused = fused.clone()
    fused[..., 0, 0] = 1.0  # the host's own range check refuses it in half precision
    for dtype in (torch.float16, torch.bfloat16):
        half = fused.to(dtype)
        assert torch.allclose(metric(half, **sources), metric(half.float(), **sources))


def test_every_form_of_input(metric, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for name in ("fused", "ir", "vis")
    }
    paths = {name: tmp_path / f"{name}.png" for name in arrays}
    for name, path in paths.items():
        Image.fromarray(arrays[name]).save(path)
    forms = {
        "path": paths,
        "string": {name: str(path) for name, path in paths.items()},
        "pil": {name: Image.fromarray(array) for name, array in arrays.items()},
        "list": {name: [str(path)] for name, path in paths.items()},
        "bytes": {name: torch.from_numpy(a).movedim(-1, 0) for name, a in arrays.items()},
        "tensor": {
            name: torch.from_numpy(a).movedim(-1, 0)[None] / 255 for name, a in arrays.items()
        },
    }
    expected = score(
        *(paths[name] for name in ("ir", "vis", "fused")), model=metric.net.guest.model
    )
    for form, given in forms.items():
        found = metric(given["fused"], ir=given["ir"], vis=given["vis"])
        assert torch.allclose(found, expected, atol=1e-5), form
    mixed = metric(arrays["fused"], ir=paths["ir"], vis=forms["pil"]["vis"])
    assert torch.allclose(mixed, expected, atol=1e-5)


def test_sixteen_bits_do_not_saturate(metric, tmp_path):
    counts = np.random.default_rng(0).integers(20000, 22000, (HEIGHT, WIDTH)).astype(np.uint16)
    Image.fromarray(counts).save(tmp_path / "ir.png")
    fused, sources = images(0, 1), {"vis": images(2, 1)}
    unit = torch.from_numpy((counts - counts.min()) / np.ptp(counts)).float()[None, None]
    expected = metric(fused, ir=unit, **sources)
    assert torch.allclose(metric(fused, ir=tmp_path / "ir.png", **sources), expected, atol=1e-5)


def test_a_list_of_several_sizes(metric):
    fused = [images(0)[0], images(0)[1, :, :, :48]]
    sources = {
        name: [images(seed)[0], images(seed)[1, :, :, :48]]
        for name, seed in (("ir", 1), ("vis", 2))
    }
    alone = [
        metric(fused[n], ir=sources["ir"][n], vis=sources["vis"][n]) for n in range(len(fused))
    ]
    assert torch.allclose(metric(fused, **sources), torch.cat(alone), atol=1e-5)


BAD_INPUTS = {
    "no sources": (
        lambda: ((images(0),), {}),
        "got no `ir` and `vis`: metric.fused, ir=ir, vis=vis.",
    ),
    "no vis": (lambda: ((images(0),), {"ir": images(1)}), "got no `vis`: metric"),
    "a reference": (
        lambda: ((images(0), images(1)), {"ir": images(1), "vis": images(2)}),
        "Expected no reference image",
    ),
    "wrong shape": (
        lambda: ((torch.rand(3, 64),), {"ir": images(1), "vis": images(2)}),
        r"Expected `fused` with shape .* got \(3, 64\)",
    ),
    "another size": (
        lambda: ((images(0)[..., :48],), {"ir": images(1), "vis": images(2)}),
        "must have the same height and width",
    ),
    "another count": (
        lambda: ((images(0),), {"ir": images(1, 1), "vis": images(2)}),
        "same number of images, .* got 1, 2 and 2",
    ),
    "range": (
        lambda: ((images(0) * 255,), {"ir": images(1), "vis": images(2)}),
        r"`fused\[0\]` with values in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input(metric, case):
    make, message = BAD_INPUTS[case]
    args, sources = make()
    with pytest.raises(InputError, match=message):
        metric(*args, **sources)


def test_weights_dtype_and_aspect(model, tmp_path):
    model.save_pretrained(tmp_path)
    fused, sources = triple()
    made = pyiqa.create_metric("fuscore", device="cpu", model=str(tmp_path), aspect="sharpness")
    expected = score(sources["ir"], sources["vis"], fused, model=model, aspect="sharpness")
    assert torch.allclose(made(fused, **sources), expected)
    half = pyiqa.create_metric("fuscore", device="cpu", model=tmp_path, dtype="bfloat16")
    assert half.net.guest.model.dtype == torch.bfloat16
    assert half(fused, **sources).dtype == torch.float32


def test_a_backbone_is_passed_as_a_function(tmp_path):
    backbone = tiny_backbone(tmp_path)
    made = pyiqa.create_metric("fuscore", device="cpu", model=lambda: backbone)
    fused, sources = triple()
    assert made(fused, **sources).shape == (2,)
    assert made.net.guest.model.spec.label_kind == "none"


def test_old_names_of_the_model_still_work(model, tmp_path):
    model.save_pretrained(tmp_path)
    fused, sources = triple()
    expected = score(sources["ir"], sources["vis"], fused, model=model)
    for old in ({"weights": str(tmp_path)}, {"backbone": lambda: model}):
        with pytest.warns(DeprecationWarning, match="is called `model` now"):
            made = pyiqa.create_metric("fuscore", device="cpu", **old)
        assert torch.allclose(made(fused, **sources), expected)


BAD_OPTIONS = {
    "aspect": ({"aspect": "beauty"}, ValueError, "beauty"),
    "all": ({"aspect": "all"}, ValueError, "all"),
    "weights": ({"model": "nowhere"}, ValueError, "Expected weights to be"),
    "dtype": ({"dtype": "int8"}, ValueError, "Expected `dtype`"),
    "no function": ({"model": 1}, TypeError, "as a function .* got int"),
    "module": ({"model": nn.Identity()}, TypeError, "as a function .* got Identity"),
    "returns no model": ({"model": lambda: 1}, TypeError, "to return a FuScore .* got int"),
    "unknown": ({"colour": "blue"}, TypeError, "colour"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        pyiqa.create_metric("fuscore", device="cpu", **options)


def test_side_by_side_is_the_same(metric, model):
    from fuscore_metric.integrations.pyiqa import side_by_side

    fr = pyiqa.create_metric("fuscore_fr", device="cpu", model=lambda: model)
    assert (fr.metric_mode, fr.score_range, fr.lower_better) == ("FR", "1, 5", False)
    fused, sources = triple()
    reference = torch.stack(side_by_side(**sources))
    assert reference.shape == (2, 3, HEIGHT, 2 * WIDTH)
    assert torch.allclose(fr(fused, reference), metric(fused, **sources))
    for args, kwargs, message in (
        ((fused,), {}, "as one reference image, ir left and vis right"),
        ((fused,), sources, "as one reference image"),
        ((fused, reference[..., 1:]), {}, "of even width, got 40x111"),
        ((fused, reference[..., 2:]), {}, "must have the same height and width"),
    ):
        with pytest.raises(InputError, match=message):
            fr(*args, **kwargs)
    with pytest.raises(InputError, match="equally many images of the same sizes"):
        side_by_side(sources["ir"], sources["vis"][:1])


def test_the_command_of_pyiqa(tmp_path):
    """Folders -> references -> pyiqa's own command line, which never imports us."""
    for name in ("ir", "vis", "fused"):
        (tmp_path / name).mkdir()
    for scene, kind in (("a", "good"), ("b", "noisy")):
        for name, file in (("ir", "ir"), ("vis", "vis"), ("fused", f"fused_{kind}")):
            Image.open(EXAMPLE / f"{file}.png").save(tmp_path / name / f"{scene}.png")
    fuscore = [sys.executable, "-m", "fuscore_metric.cli", "pyiqa"]
    folders = ["--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "--out", tmp_path / "ref"]
    subprocess.run([*fuscore, "reference", *folders], check=True, capture_output=True)
    command = [sys.executable, "-m", "pyiqa.pyiqa_cmd", "fuscore_fr"]
    command += ["-t", tmp_path / "fused", "-r", tmp_path / "ref", "--device", "cpu"]
    try:
        subprocess.run([*fuscore, "enable"], check=True, capture_output=True)
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run([*fuscore, "disable"], check=True, capture_output=True)
    mean = float(said.split("np.float64(")[-1].split(")")[0])
    direct = score(
        *([EXAMPLE / f"{name}.png"] * 2 for name in ("ir", "vis")),
        [EXAMPLE / "fused_good.png", EXAMPLE / "fused_noisy.png"],
    )
    assert mean == pytest.approx(direct.mean().item(), abs=1e-4)


@pytest.mark.real_data
def test_real_triples_have_one_score_by_every_door(real_data):
    rows = ["VIFB/manlight/SeAFusion", "TNO/35/IFCNN", "MSRS/00537D/PIAFusion"]
    metric = pyiqa.create_metric("fuscore", device="cpu")
    triples = []
    for row in rows:
        group, scene, method = row.split("/")
        folders = (real_data / group / part for part in ("ir", "vis", f"fused/{method}"))
        triples.append([next(folder.glob(f"{scene}.*")) for folder in folders])
    ir, vis, fused = (list(column) for column in zip(*triples, strict=True))
    expected = score(ir, vis, fused)
    assert torch.allclose(metric(fused, ir=ir, vis=vis), expected, atol=1e-4)
