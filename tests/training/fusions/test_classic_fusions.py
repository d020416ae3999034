"""Plain fusions: exact where a formula says so, else what each promises about its output."""

import numpy as np
import pytest
from fuscore_training.fusions.classic import (
    CLASSIC_FUSIONS,
    average,
    laplacian_pyramid,
    luma,
    maximum,
    recolour,
    to_bytes,
    two_scale,
)
from fuscore_training.labels.label_measures import thermal_contrast_retention, thermal_targets
from scipy import ndimage

FUSIONS = pytest.mark.parametrize("fuse", CLASSIC_FUSIONS.values(), ids=CLASSIC_FUSIONS)


@FUSIONS
@pytest.mark.parametrize("size", [(96, 128), (31, 45), (17, 16)])
def test_size_and_range(fuse, size, pair):
    ir, vis = (image[: size[0], : size[1]] for image in pair)
    fused = fuse(ir, vis)
    assert fused.shape == size
    assert fused.dtype == np.float64
    assert fused.min() >= 0
    assert fused.max() <= 1


@FUSIONS
def test_fusing_an_image_with_itself_changes_nothing(fuse, pair):
    for image in pair:
        assert np.abs(fuse(image, image) - image).max() < 1e-12


@FUSIONS
def test_inputs_stay_as_they_are(fuse, pair):
    ir, vis = (image.copy() for image in pair)
    fuse(ir, vis)
    assert np.array_equal(ir, pair[0])
    assert np.array_equal(vis, pair[1])


def test_average_and_maximum_are_what_they_say(pair):
    ir, vis = pair
    assert np.allclose(average(ir, vis), 0.5 * ir + 0.5 * vis, atol=1e-15)
    assert (maximum(ir, vis) >= np.stack(pair)).all()
    assert (np.abs(maximum(ir, vis) - np.stack(pair)).min(0) == 0).all()


@pytest.mark.parametrize("fuse", [average, maximum, laplacian_pyramid])
def test_sources_are_treated_alike(fuse, pair):
    ir, vis = pair
    assert np.allclose(fuse(ir, vis), fuse(vis, ir), atol=1e-12)


def test_laplacian_pyramid_keeps_the_stronger_detail(pair):
    """With a flat infrared image, all detail is the visible image's; only the base is averaged."""
    flat, vis = np.full_like(pair[0], 0.5), pair[1]
    fused = laplacian_pyramid(flat, vis)
    detail = [image - ndimage.gaussian_filter(image, 1.0) for image in (fused, vis)]
    assert np.corrcoef(detail[0].ravel(), detail[1].ravel())[0, 1] > 0.999
    assert detail[0].std() == pytest.approx(detail[1].std(), rel=0.02)
    averaged = average(flat, vis)
    assert (averaged - ndimage.gaussian_filter(averaged, 1.0)).std() < 0.6 * detail[1].std()


def test_two_scale_keeps_targets_that_averaging_halves(pair):
    ir, vis = pair
    targets = thermal_targets(ir)
    kept = {
        fuse: thermal_contrast_retention(targets, ir, fuse(ir, vis))
        for fuse in (two_scale, average)
    }
    assert kept[average] < 0.6
    assert kept[two_scale] > 0.75


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((1, 0, 0), 0.299), ((0, 1, 0), 0.587), ((0, 0, 1), 0.114), ((0.3, 0.3, 0.3), 0.3)],
)
def test_luma_weights(rgb, expected):
    image = np.broadcast_to(np.array(rgb, dtype=float), (2, 3, 3))
    assert luma(image) == pytest.approx(np.full((2, 3), expected))


def test_luma_of_grey_is_the_image(pair):
    assert luma(pair[0]) is pair[0]


def test_to_bytes_rounds_and_clips():
    image = np.array([[-0.5, 0.0, 0.4 / 255, 0.6 / 255, 127.4 / 255, 1.0, 1.5]])
    assert to_bytes(image).tolist() == [[0, 0, 0, 1, 127, 255, 255]]
    assert to_bytes(image).dtype == np.uint8


def test_recolour_takes_luma_from_one_and_colour_from_the_other(pair):
    vis = 0.2 + 0.5 * pair[1][..., None] * np.array([1.0, 0.8, 0.6])
    # Within what these colours leave free of clipping.
    fused = 0.3 + 0.2 * pair[1][::-1]
    coloured = recolour(fused, vis)
    assert coloured.shape == vis.shape
    assert np.abs(luma(coloured) - fused).max() < 2 / 255

    def chroma(image):
        return image - luma(image)[..., None]

    assert np.abs(chroma(coloured) - chroma(vis)).max() < 4 / 255
    assert np.abs(recolour(luma(vis), vis) - vis).max() < 4 / 255
