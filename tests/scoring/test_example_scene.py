"""The shipped example: its script makes its pixels, and they show what the README says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace

from fuscore_metric.assets.example import fusions, render, street
from fuscore_metric.assets.example.shapes import person_paint

FOLDER = Path(render.__file__).parent
STEPS = {"ir": 1, "vis": 2, "fused_good": 2}
STEPS |= {"fused_noisy": 16, "fused_blurred": 3, "fused_average": 4}
WALKERS = [s for s in street.scene() if s.paint is person_paint]


@pytest.fixture(scope="module")
def shipped():
    return {name: np.asarray(Image.open(FOLDER / f"{name}.png")) for name in STEPS}


def assert_same(name, made, kept):
    """Allow one level, in a few pixels, for the rounding of other numpy and scipy versions."""
    gap = np.abs(made.astype(int) - kept)
    assert gap.max() <= STEPS[name]
    assert np.mean(gap > 0) < 1e-3


def luma(rgb):
    return np.asarray(Image.fromarray(rgb).convert("L")).astype(float)


def trunk_of(walker):
    """Cut out the walker's trunk and the ground to both sides of it."""
    x, y, z = np.array(walker.at) - render.EYE
    scale = render.FOCAL / z
    col, row = render.WIDTH / 2 + x * scale, render.HORIZON - (y + 1.2) * scale
    rows = slice(round(row - 0.12 * scale), round(row + 0.12 * scale))
    inside = slice(round(col - 0.06 * scale), round(col + 0.06 * scale) + 1)
    return rows, inside


@pytest.mark.slow
def test_rendering_again_gives_the_shipped_pair(shipped):
    for name, made in zip(("ir", "vis"), render.render(), strict=True):
        assert_same(name, made, shipped[name])


def test_one_strip_rendered_again_is_the_shipped_one_but_for_blur_and_noise(shipped):
    top = 3 * render.STRIP  # heads, cars and houses
    heat = render.strip(top)[..., 3].clip(3, 34).ravel()
    kept = shipped["ir"][top : top + render.STRIP].ravel()
    assert np.corrcoef(heat, kept)[0, 1] > 0.97


def test_fusing_the_shipped_pair_gives_the_shipped_fusions(shipped):
    ir, vis, good = (shipped[name] for name in ("ir", "vis", "fused_good"))
    assert_same("fused_good", fusions.fuse(ir, vis), good)
    for name, made in fusions.degrade(ir, vis, good).items():
        assert_same(f"fused_{name}", made, shipped[f"fused_{name}"])


def test_files_are_of_one_size_and_small(shipped):
    assert {p.stem for p in FOLDER.glob("*.png")} == set(STEPS)
    for name, pixels in shipped.items():
        assert pixels.dtype == np.uint8
        assert pixels.shape == ((480, 640) if name == "ir" else (480, 640, 3))
    assert sum(p.stat().st_size for p in FOLDER.glob("*.png")) <= 1_200_000


@pytest.mark.parametrize("walker", WALKERS, ids=lambda w: f"at_{w.at[0]}_{w.at[2]}")
def test_people_are_hot_in_infrared_dark_in_visible_and_bright_in_the_good_fusion(shipped, walker):
    at = trunk_of(walker)
    hot, dark = shipped["ir"][at].mean(), luma(shipped["vis"])[at].mean()
    assert hot > 2 * np.median(shipped["ir"]) + 20
    assert dark < 60
    assert luma(shipped["fused_good"])[at].mean() > 0.75 * hot


def test_sky_is_cold(shipped):
    assert shipped["ir"][:60, 280:380].mean() < 0.5 * np.median(shipped["ir"])


def test_good_fusion_keeps_the_colours_of_the_visible(shipped):
    vis, good = (
        np.asarray(Image.fromarray(shipped[n]).convert("YCbCr"))[..., 1:].astype(float)
        for n in ("vis", "fused_good")
    )
    assert np.mean(np.abs(vis - good)) < 2


def test_bad_fusions_are_bad_in_the_way_they_say(shipped):
    sharp = {name: laplace(luma(p)).std() for name, p in shipped.items() if p.ndim == 3}
    assert sharp["fused_blurred"] < 0.3 * sharp["fused_good"]
    assert sharp["fused_average"] < 0.8 * sharp["fused_good"]
    grain = luma(shipped["fused_noisy"]) - luma(shipped["fused_good"])
    unclipped = luma(shipped["fused_good"]) > 80
    assert grain[unclipped].std() / 255 == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_written_png_reads_back(tmp_path, shape):
    smooth = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for pixels in (smooth, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)):
        (tmp_path / "a.png").write_bytes(render.encode(pixels))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
