"""VIF and VIFF: equality with plain computations, copies and flat images, published values."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d

from fuscore_metric.measures.formulas import fidelity
from fuscore_metric.measures.grey import Grey

COMPUTES = {one.name: one.compute for one in fidelity.MEASURES}


def grey(image):
    return Grey(
        torch.as_tensor(np.array(image), dtype=torch.float64).reshape(-1, *image.shape[-2:])
    )


def value(compute, *images):
    return compute(*map(grey, images)).item()


@pytest.fixture(scope="module")
def triple():
    """Sources that have their contrast in different places, and a fusion with noise."""
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 75)
    ir, vis = (np.rint(128 + draw.normal(0, 40, (60, 75)) * where) for where in (ramp, 1 - ramp))
    ir[:25, :25] = 30
    fused = 0.5 * ir + 0.7 * vis + draw.normal(0, 3, ir.shape)
    return ir.clip(0, 255), vis.clip(0, 255), np.rint(fused).clip(0, 255)


def plain_scales(reference, image):
    """Gain, variance of the reference and remaining variance, scale by scale."""
    for width in (17, 9, 5, 3):
        line = np.exp(-((np.arange(width) - width // 2) ** 2) / (2 * (width / 5) ** 2))
        window = np.outer(line, line) / line.sum() ** 2

        def mean(values, window=window):
            return convolve2d(values, window, "valid")

        if width < 17:
            reference, image = mean(reference)[::2, ::2], mean(image)[::2, ::2]
        variance = mean(reference**2) - mean(reference) ** 2
        spread = mean(image**2) - mean(image) ** 2
        shared = mean(reference * image) - mean(reference) * mean(image)
        flat = (variance < 1e-9) | (spread < 1e-9) | (shared < 0)
        gain = np.where(flat, 0, shared / np.where(flat, 1, variance))
        yield gain, variance.clip(0), spread - gain * shared


def plain_viff(ir, vis, fused):
    found = []
    for ours, theirs in zip(plain_scales(ir, fused), plain_scales(vis, fused), strict=True):
        gain, variance, noise = np.where(ours[0] < theirs[0], ours, theirs)
        seen = np.log10(1 + gain**2 * variance / (noise + 325.125)) + 1e-7
        found.append(seen.sum() / (np.log10(1 + variance / 325.125) + 1e-7).sum())
    return np.average(found, weights=[1, 0, 0.15, 1])


def plain_vif(reference, image):
    seen = shown = 0.0
    for gain, variance, noise in plain_scales(reference, image):
        seen += np.log10(1 + gain**2 * variance / (noise + 2)).sum()
        shown += np.log10(1 + variance / 2).sum()
    return seen / shown


def test_viff_equals_a_plain_computation(triple):
    assert value(fidelity.viff, *triple) == pytest.approx(plain_viff(*triple), abs=1e-9)


def test_vif_equals_a_plain_computation(triple):
    *sources, fused = triple
    assert value(fidelity.vif, *triple) == pytest.approx(
        sum(plain_vif(source, fused) for source in sources), abs=1e-9
    )


def test_vif_rewards_contrast(triple):
    image = triple[1]
    weaker, stronger = (128 + gain * (image - 128) for gain in (0.5, 1.5))
    assert value(fidelity.vif, image, image, weaker) < 1.98
    assert value(fidelity.vif, image, image, stronger) > 2.02


@pytest.mark.parametrize("side", [32, 33, 40, 41, 64])
@pytest.mark.parametrize(("name", "best"), [("VIF", 2), ("VIFF", 1)])
def test_a_copy_keeps_all_and_a_flat_image_nothing(name, best, side, triple):
    """At each number of scales."""
    image = triple[1][:side, :side]
    assert value(COMPUTES[name], image, image, image) == pytest.approx(best, abs=1e-6)
    flat = np.full_like(image, 90)
    assert value(COMPUTES[name], image, image, flat) == pytest.approx(0, abs=1e-4)
    assert value(COMPUTES[name], image, image, 255 - image) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
def test_flat_sources_count_as_kept(level, triple):
    flat = np.full_like(triple[0], level)
    for fused in (flat, triple[2]):
        assert value(fidelity.vif, flat, flat, fused) == 2
        assert value(fidelity.viff, flat, flat, fused) == pytest.approx(1)


def test_viff_looks_at_the_source_with_more_contrast(triple):
    """A fusion with the detail of either source, where it is, keeps all that VIFF asks for."""
    height, width = 60, 150
    draw = np.random.default_rng(0)
    ir, vis = np.full((2, height, width), 128.0)
    ir[:, :40] += np.rint(draw.normal(0, 30, (height, 40)))
    vis[:, -40:] += np.rint(draw.normal(0, 30, (height, 40)))
    fused = ir + vis - 128
    assert value(fidelity.viff, ir, vis, fused) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", COMPUTES)
def test_several_fusions_share_their_sources(name, triple):
    ir, vis, fused = triple
    several = np.stack([fused, ir, np.full(ir.shape, 9.0)])
    expected = [value(COMPUTES[name], ir, vis, one) for one in several]
    shared, twice = grey(ir), grey(np.stack([ir] * 3))
    for one in (shared, twice):
        assert COMPUTES[name](one, grey(vis), grey(several)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", COMPUTES)
def test_gradients_are_those_of_the_formula(name, triple, check_slope):
    """And finite where the image is flat."""
    ir, vis, fused = triple
    towards = torch.as_tensor(np.random.default_rng(5).normal(size=fused.shape))[None]

    def of(moved):
        return COMPUTES[name](grey(ir), grey(vis), Grey(moved)).sum()

    check_slope(of, torch.as_tensor(fused)[None], towards, step=1e-5, rel=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize("scene", ["05", "41"])
def test_published_vif_of_tno(real_data, scene):
    folder = real_data / "TNO"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv", dtype={"image": str})
    table = table[(table.metric == "VIF") & (table.image == scene)].set_index("method").value

    def read(place):
        return np.array(Image.open(folder / place / f"{scene}.png").convert("L"))

    ir, vis = grey(read("ir")), grey(read("vis"))
    for method in ("DenseFuse", "IFCNN", "SeAFusion"):
        found = fidelity.PUBLISHED["tang2022"]["VIF"](ir, vis, grey(read(f"fused/{method}")))
        assert found.item() == pytest.approx(table[method], abs=1e-8)
