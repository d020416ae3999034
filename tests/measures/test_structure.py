"""Structural measures: SSIM, MS-SSIM, Piella's and Yang's.

Equality with scikit-image, torchmetrics and plain computations, patch by patch.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.signal import correlate2d
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from fuscore_metric.measures.formulas import piella_yang, ssim
from fuscore_metric.measures.grey import Grey, channel_levels

BOUNDED = [one for family in (ssim, piella_yang) for one in family.MEASURES]
COMPUTES = {one.name: one.compute for one in BOUNDED}


def grey(image):
    return Grey(
        torch.as_tensor(np.array(image), dtype=torch.float64).reshape(-1, *image.shape[-2:])
    )


def value(compute, *images):
    return compute(*map(grey, images)).item()


def textured(seed, height=40, width=51):
    """Grey levels with smooth and rough places, and a flat corner of its own level."""
    draw = np.random.default_rng(seed)
    rough = draw.integers(0, 256, (height, width)) * np.linspace(0, 0.6, width)
    image = np.rint(rough + 60 + 30 * np.sin(np.arange(height) / 5 + seed)[:, None])
    image[:20, :20] = 40 * seed
    return image


@pytest.fixture(scope="module")
def triple():
    ir, vis = textured(0), textured(1)
    return ir, vis, np.rint(0.3 * ir + 0.5 * vis + 0.2 * textured(2))


def gaussian(width, sigma):
    line = np.exp(-((np.arange(width) - width // 2) ** 2) / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


def patches(image, side):
    view = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    return view.reshape(-1, side * side)


# --- SSIM and MS-SSIM


def test_ssim_equals_scikit_image(triple):
    *sources, fused = triple
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = [structural_similarity(one, fused, data_range=255, **options) for one in sources]
    assert value(ssim.ssim, *triple) == pytest.approx(np.mean(theirs), abs=1e-12)
    assert value(ssim.PUBLISHED["vifb"]["SSIM"], *triple) == pytest.approx(sum(theirs), abs=1e-12)
    # As in its versions that took 2 for the range of any float image.
    theirs = [structural_similarity(one, fused, data_range=2) for one in sources]
    found = value(ssim.PUBLISHED["cddfuse"]["SSIM"], *triple)
    assert found == pytest.approx(sum(theirs), abs=1e-9)
    # MATLAB's: the border repeats, and the range of type double is 1.
    bordered = [np.pad(image, 5, "edge") for image in triple]
    theirs = [
        structural_similarity(one, bordered[2], data_range=1, **options) for one in bordered[:2]
    ]
    found = value(ssim.PUBLISHED["tang"]["SSIM"], *triple)
    assert found == pytest.approx(np.mean(theirs), abs=1e-9)


def test_ssim_of_two_flat_images_compares_their_levels():
    dark, bright = np.full((32, 32), 10.0), np.full((32, 32), 90.0)
    c1 = 2.55**2
    alike = (2 * 10 * 90 + c1) / (10**2 + 90**2 + c1)
    assert value(ssim.ssim, dark, dark, bright) == pytest.approx(alike)
    assert value(ssim.ssim, dark, bright, bright) == pytest.approx((1 + alike) / 2)


def test_ms_ssim_equals_torchmetrics_and_scikit_image():
    """Torchmetrics mirrors the border of the coarsest scale, whose weight it gets as 0 here."""
    ir, vis, fused = (textured(seed, 176, 192) for seed in (0, 1, 0))
    fused[90:] = vis[90:]

    def theirs(*images):
        finer = multiscale_structural_similarity_index_measure(
            *(torch.as_tensor(one)[None, None] for one in images),
            data_range=255.0,
            betas=(0.0448, 0.2856, 0.3001, 0.2363, 0.0),
            normalize="relu",
        ).item()
        coarsest = structural_similarity(
            *(one.reshape(11, 16, 12, 16).mean((1, 3)) for one in images),
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        return finer * coarsest**0.1333

    expected = (theirs(fused, ir) + theirs(fused, vis)) / 2
    assert value(ssim.ms_ssim, ir, vis, fused) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_of_a_small_image_has_the_scales_that_fit(triple):
    """Of one scale it is SSIM, but for the published weights, whose sum is 1.0001."""
    one, _, fused = (image[:20, 21:] for image in triple)
    expected = value(ssim.ssim, one, one, fused) ** 1.0001
    assert value(ssim.ms_ssim, one, one, fused) == pytest.approx(expected)
    assert [len(ssim.scales(grey(np.zeros((side, 300))))) for side in (32, 160, 161)] == [2, 4, 5]


def test_ms_ssim_of_a_negative_is_0(triple):
    negative = 255 - triple[0]
    assert value(ssim.ms_ssim, triple[0], triple[0], negative) == 0


# --- Piella's and Yang's


def plain_index(one, other, window):
    """The universal image quality index; of two zeros the quotient is 1."""
    m, n = window @ one, window @ other
    v, w = window @ (one - m) ** 2, window @ (other - n) ** 2
    bright = 2 * m * n / (m**2 + n**2) if m**2 + n**2 > 0 else 1
    return bright * (2 * (window @ ((one - m) * (other - n))) / (v + w) if v + w > 1e-9 else 1)


def plain_terms(ir, vis, fused, window):
    """At each place: the share of ir, the three indices, and the larger variance."""
    weights, rows = window.ravel(), []
    for a, b, f in zip(*(patches(one, len(window)) for one in (ir, vis, fused)), strict=True):
        v, w = (weights @ (one - weights @ one) ** 2 for one in (a, b))
        share = v / (v + w) if v + w > 1e-9 else 0.5
        indices = [plain_index(*pair, weights) for pair in ((a, f), (b, f), (a, b))]
        rows.append((share, *indices, max(v, w)))
    return np.array(rows).T


def plain_weighted(images):
    share, first, second, _, contrast = plain_terms(*images, np.full((8, 8), 1 / 64))
    return np.average(share * first + (1 - share) * second, weights=contrast)


def test_piellas_measures_equal_a_plain_computation(triple):
    share, first, second, *_ = plain_terms(*triple, np.full((8, 8), 1 / 64))
    expected = (share * first + (1 - share) * second).mean()
    assert value(piella_yang.quality, *triple) == pytest.approx(expected, abs=1e-9)
    expected = plain_weighted(triple)
    assert value(piella_yang.weighted_quality, *triple) == pytest.approx(expected, abs=1e-9)
    prewitt = np.array([[-1, 0, 1]] * 3)
    edges = [
        np.hypot(*(correlate2d(image, kernel, "valid") for kernel in (prewitt, prewitt.T)))
        for image in triple
    ]
    expected *= plain_weighted(edges)
    assert value(piella_yang.edge_quality, *triple) == pytest.approx(expected, abs=1e-9)


def test_yangs_measure_equals_a_plain_computation(triple):
    ir, vis, fused = triple
    vis = np.where(np.arange(vis.shape[1]) < 30, ir // 2 + 20, vis)
    share, first, second, same, _ = plain_terms(ir, vis, fused, gaussian(7, 1.5))
    assert 0.05 < (same >= 0.75).mean() < 0.95
    mixed = share * first + (1 - share) * second
    expected = np.where(same >= 0.75, mixed, np.maximum(first, second)).mean()
    assert value(piella_yang.similarity, ir, vis, fused) == pytest.approx(expected, abs=1e-9)


def test_yangs_measure_is_1_for_a_copy_of_one_source_unlike_the_other(triple):
    ir = triple[0]
    assert value(piella_yang.similarity, ir, 255 - ir, ir) == pytest.approx(1)


# --- all


@pytest.mark.parametrize("name", COMPUTES)
def test_three_equal_images_have_1(name, triple):
    for image in (triple[0], np.full((40, 40), 255.0), np.zeros((32, 32))):
        assert value(COMPUTES[name], image, image, image) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", COMPUTES)
def test_values_stay_in_range_where_images_are_flat(name, triple):
    flat = np.full(triple[0].shape, 77.0)
    for images in ((flat, *triple[1:]), (*triple[:2], flat), (flat, flat, triple[2])):
        assert -1 <= value(COMPUTES[name], *images) <= 1


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
    """Also where an image has a flat corner, and finite where all of it is flat."""
    ir, vis, fused = (image[8:40, 8:40] for image in triple)
    towards = torch.as_tensor(np.random.default_rng(5).normal(size=fused.shape))[None]
    towards[:, :13, :13] = 0

    def of(moved):
        return COMPUTES[name](grey(ir), grey(vis), Grey(moved)).sum()

    check_slope(of, torch.as_tensor(fused + 0.25)[None], towards, step=1e-4, rel=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("scene", ["carLight", "fight"])
def test_published_ssim_of_vifb(real_data, scene):
    """To the last digit that is published."""
    folder = real_data / "VIFB"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv")
    table = table[(table.metric == "Ssim") & (table.scene == scene)].set_index("method").value

    def read(place):
        image = np.array(Image.open(folder / place / f"{scene}.jpg").convert("RGB"))
        return channel_levels(torch.as_tensor(image).permute(2, 0, 1)[None] / 255)

    ir, vis = ([Grey(plane) for plane in read(place)] for place in ("ir", "vis"))
    for method in ("ADF", "CBF"):
        fused = [Grey(plane) for plane in read(f"fused/{method}")]
        planes = zip(ir, vis, fused, strict=True)
        found = np.mean([ssim.PUBLISHED["vifb"]["SSIM"](*plane).item() for plane in planes])
        assert found == pytest.approx(table[method], abs=6e-5)
