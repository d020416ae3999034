"""Measures of fused alone, against numpy and scipy, and as the evaluators have them."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from fuscore_metric.measures.catalogue import CONVENTIONS, MEASURES
from fuscore_metric.measures.grey import Grey


def measured(name, image, convention="standard"):
    fused = Grey(torch.as_tensor(image, dtype=torch.float64)[None])
    return float(CONVENTIONS[convention].computes[name](fused, fused, fused))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (33, 40)).astype(float)


def test_one_edge():
    """Half black, half 200: one edge of 200 grey levels, seen from two columns."""
    half = np.zeros((32, 64))
    half[:, 32:] = 200
    assert measured("SD", half) == 100
    assert measured("SF", half) == pytest.approx(200 / math.sqrt(63))
    assert measured("AG", half) == pytest.approx(2 * 100 / math.sqrt(2) / 64)
    assert measured("EI", half) == pytest.approx(2 * 4 * 200 / 64)


def test_equal_plain_computations(image):
    assert measured("SD", image) == pytest.approx(image.std())
    across, down = np.diff(image, axis=1), np.diff(image, axis=0)
    assert measured("SF", image) == pytest.approx(math.sqrt((across**2).mean() + (down**2).mean()))
    slopes = np.hypot(*np.gradient(image)) / math.sqrt(2)
    assert measured("AG", image) == pytest.approx(slopes.mean())
    edges = np.hypot(*(ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1)))
    assert measured("EI", image) == pytest.approx(edges.mean())
    # As the evaluators have them.
    assert measured("SF", image, "vifb") == pytest.approx(
        math.sqrt(((across**2).sum() + (down**2).sum()) / image.size)
    )
    assert measured("SF", image, "tang2022") == pytest.approx(measured("SF", image / 255))
    for evaluator in ("vifb", "tang", "tang2022"):
        assert measured("AG", image, evaluator) == pytest.approx(slopes.sum() / (32 * 39))
    # 8 bits: below 0 is 0, above 255 is 255.
    kept = np.minimum(np.rint(np.maximum(image - image.mean(), 0)) ** 2, 255)
    assert measured("SD", image, "tang2022") == pytest.approx(math.sqrt(kept.mean()))


@pytest.mark.parametrize("name", ["SD", "SF", "AG", "EI"])
def test_a_flat_image_varies_by_nothing(name):
    assert measured(name, np.full((33, 40), 100.0)) == 0


def test_what_gives_the_most():
    checks = np.indices((32, 32)).sum(0) % 2 * 255.0
    assert measured("SD", checks) == MEASURES["SD"].high
    assert measured("SF", checks) == pytest.approx(MEASURES["SF"].high)
