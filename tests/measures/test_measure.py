"""The door `fuscore_metric.measure`: what it takes, and in which order it computes."""

import math
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

import fuscore_metric
from fuscore_metric import InputError, measure
from fuscore_metric.images.lazy import open_triples
from fuscore_metric.measures.catalogue import CONVENTIONS, MEASURES, PAPER, Convention
from fuscore_metric.measures.grey import Grey
from fuscore_metric.measures.measure import measure_each

CPU = torch.device("cpu")
CHOSEN = "EN,SD,MI,SCD"


@pytest.fixture(scope="module")
def scene():
    """ir, vis and two fused images in colour, uint8."""
    rng = np.random.default_rng(0)
    ir, vis, one, other = rng.integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    ir[..., 1:] = ir[..., :1]
    return ir, vis, one, other


def save(folder, **images):
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in images]


def test_names(scene):
    def keys(names, **options):
        return list(measure(*scene[:3], names=names, **options))

    assert list(measure(*scene[:3])) == [name for name in PAPER if name in MEASURES]
    assert keys("all") == list(MEASURES)
    assert keys("sd, EN,SD") == ["SD", "EN"]
    assert keys(["MI"]) == ["MI"]
    assert keys("all", convention="vifb") == [
        name for name in MEASURES if name in CONVENTIONS["vifb"].computes
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"names": "EN,sharpness"},
        {"names": "NMI", "convention": "vifb"},
        {"convention": "matlab"},
        {"colour": "rgb"},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_unknown_options(options, scene):
    with pytest.raises(ValueError, match="Expected"):
        measure(*scene[:3], **options)


def test_lists_and_one_source_pair_for_all(scene, tmp_path):
    ir, vis, *fused = scene
    files = save(tmp_path, ir=ir, vis=vis, one=fused[0], other=fused[1])
    alone = [measure(ir, vis, one, names=CHOSEN) for one in fused]
    small = [image[:36, :44] for image in (ir, vis, fused[0])]
    alone.append(measure(*small, names=CHOSEN))
    shared = measure(ir, vis, fused, names=CHOSEN)
    of_files = measure(*files[:2], files[2:], names=CHOSEN)
    each = measure(
        [ir, small[0], ir], [vis, small[1], vis], [fused[0], small[2], fused[1]], names=CHOSEN
    )
    for name, values in shared.items():
        expected = torch.cat([one[name] for one in alone])
        assert values.dtype == torch.float64
        assert torch.equal(values, expected[:2])
        assert torch.equal(of_files[name], expected[:2])
        assert torch.equal(each[name], expected[[0, 2, 1]])


def test_batches_of_a_gpu_give_the_same(scene, monkeypatch):
    """Where several source pairs share a batch."""
    ir, vis, *fused = scene
    sources = [ir, 255 - ir, ir], [vis] * 3
    triples = open_triples(*sources, [*fused, fused[1]])
    found = {}
    monkeypatch.setattr("fuscore_metric.measures.measure.plan", every_one_together)
    for batch, values in measure_each(triples, CHOSEN.split(","), device=CPU):
        found[batch.rows] = values
    expected = measure(*sources, [*fused, fused[1]], names=CHOSEN)
    ((rows, values),) = found.items()
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name][list(rows)], rtol=1e-12, atol=1e-12)


def distance(ir, vis, fused):
    """Differs with each of the three."""
    return (fused.pixels - 2 * ir.pixels + 3 * vis.pixels).mean((-1, -2))


def distances(triples, compute=distance):
    """Of each triple; an error where it has none."""
    rule, found = Convention("ours", {"EN": compute}), {}
    for batch, values in measure_each(triples, ["EN"], rule, device=CPU):
        broken = isinstance(values, Exception)
        numbers = [values] * len(batch.rows) if broken else values["EN"].tolist()
        found |= zip(batch.rows, numbers, strict=True)
    return [found[row] for row in range(len(triples))]


def test_a_broken_file_in_a_batch_of_several_pairs_leaves_the_others(scene, tmp_path, monkeypatch):
    ir, vis, *fused = scene
    names = {"ir": ir, "other": 255 - ir, "vis": vis, "a": fused[0], "b": fused[1], "c": ir}
    made = save(tmp_path, **names)
    files = dict(zip(names, made, strict=True))
    pairs = [("ir", "a"), ("ir", "b"), ("other", "b"), ("other", "c")]
    chosen = ([files[name] for name, _ in pairs], [files["vis"]] * 4, [files[n] for _, n in pairs])
    expected = distances(open_triples(*chosen))
    monkeypatch.setattr("fuscore_metric.measures.measure.plan", every_one_together)
    assert distances(open_triples(*chosen)) == expected
    files["a"].write_bytes(files["a"].read_bytes()[:2000])
    found = distances(open_triples(*chosen))
    assert isinstance(found[0], InputError)
    assert found[1:] == expected[1:]


def test_batches_are_halved_until_they_fit(scene, monkeypatch, caplog):
    def lacking(ir, vis, fused):
        if len(fused.pixels) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return distance(ir, vis, fused)

    ir, vis, *fused = scene
    triples = open_triples([ir, 255 - ir, ir], [vis] * 3, [*fused, ir][:3])
    expected = distances(triples)
    monkeypatch.setattr("fuscore_metric.measures.measure.plan", every_one_together)
    assert distances(triples, lacking) == expected
    assert "out of memory with 3 triples at once, going on with 2" in caplog.text


def every_one_together(shapes, pairs, batch_size):
    from fuscore_metric.images.batches import plan

    del batch_size
    return plan(shapes, pairs, len(shapes))


def test_a_broken_file_raises_and_others_go_on(scene, tmp_path):
    ir, vis, one, other = save(tmp_path, ir=scene[0], vis=scene[1], one=scene[2], other=scene[3])
    broken = tmp_path / "broken.png"
    broken.write_bytes(one.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"fused\[1\]"):
        measure(ir, vis, [one, broken, other])
    found = {}
    for batch, values in measure_each(
        open_triples(ir, vis, [one, broken, other]), ["EN"], device=CPU
    ):
        found[batch.rows] = values
    assert isinstance(found[(1,)], InputError)
    expected = measure(ir, vis, [one, other], names="EN")["EN"]
    assert torch.equal(torch.cat([found[0,]["EN"], found[2,]["EN"]]), expected)


def test_colour(scene):
    """Luma by default; each channel for itself on request, and always with VIFB."""
    ir, vis, fused, _ = scene
    luma = [np.floor(image @ [0.299, 0.587, 0.114] + 0.5 + 1e-9) for image in scene[:3]]
    grey = [image.astype(np.uint8) for image in luma]
    channels = [measure(ir[..., n], vis[..., n], fused[..., n], names=CHOSEN) for n in range(3)]
    by_channel = measure(ir, vis, fused, names=CHOSEN, colour="channels")
    by_luma = measure(ir, vis, fused, names=CHOSEN)
    of_grey = measure(*grey, names=CHOSEN)
    for name in by_luma:
        assert torch.equal(by_luma[name], of_grey[name])
        mean = torch.stack([one[name] for one in channels]).mean(0)
        torch.testing.assert_close(by_channel[name], mean)
    vifb = measure(ir, vis, fused, names="EN", convention="vifb")["EN"]
    assert torch.equal(vifb, by_channel["EN"])
    assert torch.equal(
        measure(ir, vis, fused, names="EN", convention="vifb", colour="luma")["EN"], by_luma["EN"]
    )


def test_vifb_lays_channels_side_by_side_for_sf(scene):
    wide = np.concatenate(np.moveaxis(scene[2].astype(float), -1, 0), axis=1)
    squares = sum((np.diff(wide, axis=axis) ** 2).sum() for axis in (0, 1))
    found = measure(*scene[:3], names="SF", convention="vifb")["SF"]
    assert float(found) == pytest.approx(math.sqrt(squares / wide.size))


def test_pixels_between_grey_levels_count_as_in_the_8_bit_file(scene):
    ir, vis, fused, _ = scene
    shift = np.random.default_rng(1).uniform(-0.4, 0.4, fused.shape)
    between = torch.as_tensor(np.clip(fused + shift, 0, 255) / 255).permute(2, 0, 1)
    found, expected = (measure(ir, vis, one, names="all") for one in (between, fused))
    for name, value in found.items():
        assert torch.equal(value, expected[name])


def test_gradients_reach_fused(scene):
    """Equal to finite differences of the formula without rounding, luma's share included."""
    ir, vis, fused, _ = (torch.as_tensor(x[..., :1]).permute(2, 0, 1) / 255 for x in scene)
    fused = fused.repeat(3, 1, 1).requires_grad_()  # grey, so that its luma needs no rounding
    values = measure(ir, vis, fused, names="AG,EN")
    assert not values["EN"].requires_grad
    (slope,) = torch.autograd.grad(values["AG"].sum(), fused)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]

    def at(pixels):
        plane = Grey(255 * (pixels * weights).sum(0, keepdim=True))
        return float(MEASURES["AG"].compute(plane, plane, plane))

    exact, along = fused.detach().double(), 1e-6 * slope.double().sign()
    expected = (at(exact + along) - at(exact - along)) / 2
    assert float((slope * along).sum()) == pytest.approx(expected, rel=1e-4)


def test_what_sources_share_is_computed_once_per_pair(scene):
    ir, vis, *fused = scene
    seen = []

    def noted(pixels):
        seen.append(pixels)
        return pixels.mean((1, 2))

    def compute(ir, vis, fused):
        return ir.once(noted) + vis.once(noted) + fused.pixels.mean((1, 2))

    own = Convention("own", {"own": compute})
    triples = open_triples([ir, 255 - ir] * 2, [vis] * 4, [*fused, *fused])
    with closing(measure_each(triples, ["own"], own, device=CPU)) as measured:
        assert sum(len(batch.rows) for batch, _ in measured) == 4
    assert len(seen) == 4  # two pairs of two sources


def test_is_a_name_of_the_package():
    assert fuscore_metric.measure is measure
