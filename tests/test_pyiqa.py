"""FuScore as pyiqa metrics. Runs where pyiqa is installed (CI's second environment)."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import nn

from fuscore_metric import FuScore, InputError, score
from fuscore_metric.cli.pyiqa import HOOK_FILE, hook_path
from tests.processes import leave
from tests.tiny_model import tiny_backbone, tiny_fuscore

pyiqa = pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra [pyiqa])")

EXAMPLE = Path(__file__).parents[1] / "fuscore_metric" / "assets" / "example"
HEIGHT, WIDTH = 40, 56


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def metric(model):
    return pyiqa.create_metric("fuscore", device="cpu", backbone=lambda: model)


@pytest.fixture(scope="module")
def as_loss(model):
    return pyiqa.create_metric("fuscore", as_loss=True, device="cpu", backbone=lambda: model)


def images(seed: int, count: int = 2, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, HEIGHT, WIDTH, generator=generator)


def triple(count: int = 2) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return images(0, count), {"ir": images(1, count), "vis": images(2, count)}


def run(code: str, **variables: str) -> str:
    """Run Python as a user would, in a folder of its own choice."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        cwd=EXAMPLE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- registration


@pytest.mark.parametrize("order", ["import pyiqa, fuscore_metric", "import fuscore_metric, pyiqa"])
def test_either_order_of_imports_registers(order):
    code = (
        f"{order}\n"
        "assert {'fuscore', 'fuscore_fr'} <= set(pyiqa.list_models())\n"
        "metric = pyiqa.create_metric('fuscore')\n"
        "print(metric('fused_good.png', ir='ir.png', vis='vis.png').tolist())\n"
    )
    assert eval(run(code)) == pytest.approx([3.90], abs=0.01)


def test_a_part_of_pyiqa_imported_first_registers_too():
    code = (
        "import fuscore_metric\nfrom pyiqa.default_model_configs import DEFAULT_CONFIGS\n"
        "print('fuscore' in DEFAULT_CONFIGS)"
    )
    assert run(code).strip() == "True"


def test_importing_fuscore_alone_loads_neither_pyiqa_nor_torch():
    code = (
        "import sys, fuscore_metric\n"
        "print({'torch', 'pyiqa', 'torchvision', 'transformers', 'numpy'} & set(sys.modules))"
    )
    assert run(code).strip() == "set()"


def test_the_entry_point_registers_once_another_metric_was_made():
    code = (
        "import sys, pyiqa\n"
        "assert 'fuscore' not in pyiqa.list_models(), 'a hook is installed'\n"
        "pyiqa.create_metric('psnr', device='cpu')\n"
        "metric = pyiqa.create_metric('fuscore', device='cpu')\n"
        "print(metric.metric_mode)\n"
    )
    assert run(code).strip() == "NR"


def test_registering_twice_changes_nothing():
    from fuscore_metric.integrations import _pyiqa_hook
    from fuscore_metric.integrations.pyiqa import register

    before = pyiqa.list_models()
    for _ in range(2):
        register()
        _pyiqa_hook.install()
    assert pyiqa.list_models() == before
    assert before.count("fuscore") == 1


def test_lists_and_filters():
    assert "fuscore" in pyiqa.list_models("NR")
    assert "fuscore_fr" in pyiqa.list_models("FR")
    assert "fuscore" not in pyiqa.list_models("FR")
    assert pyiqa.list_models(filter="fusc*") == ["fuscore", "fuscore_fr"]
    assert "fuscore" not in pyiqa.list_models(exclude_filters="fus*")


def test_a_broken_registration_does_not_break_pyiqa():
    code = (
        "import sys, fuscore_metric\n"
        "sys.modules['fuscore_metric.integrations.pyiqa'] = None\n"  # its import fails
        "import pyiqa\nprint(len(pyiqa.list_models()) > 10)"
    )
    assert run(code).strip() == "True"


def test_enable_and_disable_from_the_command_line():
    assert not hook_path().exists(), f"{HOOK_FILE} is installed in the environment under test"
    fuscore = [sys.executable, "-m", "fuscore_metric.cli", "pyiqa"]
    listed = "import pyiqa, sys; print('fuscore' in pyiqa.list_models())"
    try:
        said = subprocess.run([*fuscore, "enable"], check=True, capture_output=True, text=True)
        assert str(hook_path()) in said.stdout
        assert run(listed).strip() == "True"
        assert run("import sys; print('torch' in sys.modules)").strip() == "False"
    finally:
        subprocess.run([*fuscore, "disable"], check=True, capture_output=True)
    assert not hook_path().exists()
    assert run(listed).strip() == "False"
    again = subprocess.run([*fuscore, "disable"], check=True, capture_output=True, text=True)
    assert "Nothing to remove" in again.stdout


# ---- what is scored


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
        *(paths[name] for name in ("ir", "vis", "fused")), model=metric.net.judge.model
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


# ---- the constructor


def test_weights_dtype_and_aspect(model, tmp_path):
    model.save_pretrained(tmp_path)
    fused, sources = triple()
    made = pyiqa.create_metric("fuscore", device="cpu", weights=str(tmp_path), aspect="sharpness")
    expected = score(sources["ir"], sources["vis"], fused, model=model, aspect="sharpness")
    assert torch.allclose(made(fused, **sources), expected)
    half = pyiqa.create_metric("fuscore", device="cpu", weights=tmp_path, dtype="bfloat16")
    assert half.net.judge.model.dtype == torch.bfloat16
    assert half(fused, **sources).dtype == torch.float32


def test_a_backbone_is_passed_as_a_function(tmp_path):
    backbone = tiny_backbone(tmp_path)
    made = pyiqa.create_metric("fuscore", device="cpu", backbone=lambda: backbone)
    fused, sources = triple()
    assert made(fused, **sources).shape == (2,)
    assert made.net.judge.model.spec.label_kind == "none"


BAD_OPTIONS = {
    "aspect": ({"aspect": "beauty"}, ValueError, "beauty"),
    "all": ({"aspect": "all"}, ValueError, "all"),
    "weights": ({"weights": "nowhere"}, ValueError, "Expected weights to be"),
    "dtype": ({"dtype": "int8"}, ValueError, "Expected `dtype`"),
    "no function": ({"backbone": "embedded"}, TypeError, "as a function .* got str"),
    "module": ({"backbone": nn.Identity()}, TypeError, "as a function .* got Identity"),
    "returns no model": ({"backbone": lambda: 1}, TypeError, "to return a FuScore .* got int"),
    "unknown": ({"colour": "blue"}, TypeError, "colour"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case):
    options, error, message = BAD_OPTIONS[case]
    with pytest.raises(error, match=message):
        pyiqa.create_metric("fuscore", device="cpu", **options)


# ---- as a loss


def gradient(metric, fused: torch.Tensor, sources: dict[str, torch.Tensor]) -> torch.Tensor:
    fused = fused.clone().requires_grad_()
    metric(fused, **sources).sum().backward()
    assert fused.grad is not None
    return fused.grad


def test_the_loss_is_the_mean_and_reaches_the_fused_image_only(as_loss, metric, model):
    fused, sources = triple()
    sources = {name: image.requires_grad_() for name, image in sources.items()}
    value = as_loss(fused, **sources)
    assert value.shape == ()
    assert torch.allclose(value, metric(fused, **sources).mean())
    found = gradient(as_loss, fused, sources)
    assert torch.isfinite(found).all()
    assert (found.abs().amax(dim=(1, 2, 3)) > 0).all()  # every image of the batch
    assert all(image.grad is None for image in sources.values())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_inside_no_grad(as_loss, model):
    """The host computes with gradients whatever the caller says, but takes the mean outside."""
    fused, sources = triple()
    expected = gradient(as_loss, fused, sources)
    each = pyiqa.create_metric(
        "fuscore", as_loss=True, loss_reduction="none", device="cpu", backbone=lambda: model
    )
    watched = fused.clone().requires_grad_()
    with torch.no_grad():
        mean, values = as_loss(watched, **sources), each(watched, **sources)
    assert torch.equal(mean, as_loss(fused, **sources))
    assert torch.equal(mean, values.mean())
    values.mean().backward()
    assert torch.allclose(watched.grad, expected)


def test_the_loss_under_autocast_and_in_a_training_parent(as_loss):
    fused, sources = triple()
    expected = gradient(as_loss, fused, sources)
    watched = fused.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = as_loss(watched, **sources)
    value.backward()
    assert torch.allclose(watched.grad, expected)
    parent = nn.ModuleList([as_loss]).train()
    assert torch.allclose(gradient(parent[0], fused, sources), expected)
    assert not any(module.training for module in as_loss.net.judge.model.modules())
    with torch.inference_mode():
        assert as_loss(fused, **sources).shape == ()


def test_an_overshoot_is_clipped_in_a_loss_only(as_loss, metric):
    fused, sources = triple()
    wild = 1.4 * fused - 0.2
    assert torch.allclose(as_loss(wild, **sources), as_loss(wild.clamp(0, 1), **sources))
    with pytest.raises(InputError, match=r"values in \[0, 1\]"):
        metric(wild, **sources)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_do_the_same(as_loss, make):
    fused, sources = triple()
    copied = make(as_loss)
    assert torch.allclose(copied(fused, **sources), as_loss(fused, **sources))
    assert torch.allclose(gradient(copied, fused, sources), gradient(as_loss, fused, sources))


def test_the_state_dict_holds_no_weights(metric):
    assert sum(value.numel() for value in metric.state_dict().values()) == 0
    parent = nn.ModuleDict({"layer": nn.Linear(2, 2), "metric": metric})
    parent.load_state_dict(parent.state_dict())
    assert sum(parameter.numel() for parameter in parent.parameters()) == 6


class Fusion(nn.Module):
    """A network that holds the metric as README says: outside the module tree."""

    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(6, 3, 3, padding=1)
        self.judges = [metric]

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        fused = self.layer(torch.cat([ir, vis], dim=1)).sigmoid()
        return 5 - self.judges[0](fused, ir=ir, vis=vis)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    judge = pyiqa.create_metric("fuscore", as_loss=True, device="cpu", weights=f"{folder}/weights")
    net = nn.parallel.DistributedDataParallel(Fusion(judge))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(images(10 * step + rank, 1), images(10 * step + rank + 5, 1)).backward()
        optimizer.step()
    torch.save(net.module.state_dict(), f"{folder}/{rank}.pt")
    leave()


def test_two_processes_train_as_one_on_both_batches(model, tmp_path):
    model.save_pretrained(tmp_path / "weights")
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    judge = pyiqa.create_metric("fuscore", as_loss=True, device="cpu", backbone=lambda: model)
    alone = Fusion(judge)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        both = [torch.cat([images(10 * step + rank + k, 1) for rank in (0, 1)]) for k in (0, 5)]
        alone(*both).backward()
        optimizer.step()
    for name, value in alone.state_dict().items():
        assert torch.allclose(ours[0][name], ours[1][name])
        assert torch.allclose(ours[0][name], value, atol=1e-6)


# ---- sources side by side


def test_side_by_side_is_the_same(metric, model):
    from fuscore_metric.integrations.pyiqa import side_by_side

    fr = pyiqa.create_metric("fuscore_fr", device="cpu", backbone=lambda: model)
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


# ---- on real triples


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
