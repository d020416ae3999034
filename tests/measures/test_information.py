"""Measures of histograms, against counting by hand and by plain numpy."""

import math

import numpy as np
import pytest
import torch

from fuscore_metric.measures.catalogue import CONVENTIONS, MEASURES
from fuscore_metric.measures.grey import Grey


def measured(name, ir, vis, fused, convention="standard"):
    images = (Grey(torch.as_tensor(x, dtype=torch.float64)[None]) for x in (ir, vis, fused))
    return float(CONVENTIONS[convention].computes[name](*images))


def plain_entropy(*images):
    """Of the levels of one image, or of the pairs of two."""
    pixels = np.stack([np.ravel(image) for image in images])
    shares = np.unique(pixels, axis=1, return_counts=True)[1] / pixels.shape[1]
    return -sum(share * math.log2(share) for share in shares)


def plain_information(source, fused):
    return plain_entropy(source) + plain_entropy(fused) - plain_entropy(source, fused)


@pytest.fixture(scope="module")
def triple():
    """Of few levels, so that pairs repeat; 254 and 255 are common."""
    rng = np.random.default_rng(0)
    ir = rng.integers(240, 256, (40, 50))
    vis = rng.integers(0, 40, (40, 50))
    return ir, vis, np.where(rng.random(ir.shape) < 0.5, ir, vis)


def test_by_hand():
    """Halves and quarters of black, white and grey."""
    halves = np.array([[0, 0, 255, 255]] * 4)
    quarters = np.array([[0, 10, 20, 30]] * 4)
    flat = np.full((4, 4), 7)
    assert measured("EN", flat, flat, quarters) == 2
    assert measured("MI", halves, quarters, quarters) == 3  # 1 + 2 bits
    assert measured("MI", halves, halves.T, halves) == 1  # nothing of one, all of the other
    assert measured("NMI", halves, halves, halves) == 2
    assert measured("NMI", halves, quarters, quarters) == pytest.approx(2 * (1 / 3 + 2 / 4))
    assert measured("CE", halves, halves, halves) == 0
    # Only black is common: 1/2 log2(1/2 / 1/4).
    assert measured("CE", halves, halves, quarters) == 0.5


def test_equal_plain_computations(triple):
    ir, vis, fused = triple
    parts = [plain_information(source, fused) for source in (ir, vis)]
    most = [plain_entropy(source) + plain_entropy(fused) for source in (ir, vis)]
    assert measured("EN", *triple) == pytest.approx(plain_entropy(fused))
    assert measured("MI", *triple) == pytest.approx(sum(parts))
    assert measured("MI", *triple, "cddfuse") == pytest.approx(sum(parts) * math.log(2))
    expected = 2 * sum(part / of for part, of in zip(parts, most, strict=True))
    assert measured("NMI", *triple) == pytest.approx(expected)
    expected = 0.0
    for level in np.unique(fused):
        own = (fused == level).mean()
        for share in ((ir == level).mean(), (vis == level).mean()):
            expected += share * math.log2(share / own) / 2 if share else 0
    assert measured("CE", *triple) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["MI", "NMI"])
def test_stretching_to_the_full_range_as_vifb_and_liu_do_changes_nothing(name, triple):
    def stretched(image):
        return np.rint((image - image.min()) / np.ptp(image) * 255)

    expected = measured(name, *triple)
    assert measured(name, *map(stretched, triple)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("convention", ["tang", "tang2022"])
def test_tang_counts_pairs_in_numbers_of_8_bits(convention, triple):
    ir, vis, fused = triple
    places = [np.minimum(image + 1, 255) for image in triple]  # as uint8 of MATLAB
    expected = sum(
        plain_entropy(source) + plain_entropy(fused) - plain_entropy(place, places[2])
        for source, place in zip((ir, vis), places[:2], strict=True)
    )
    assert measured("MI", *triple, convention) == pytest.approx(expected)
    assert expected > measured("MI", *triple) + 0.01


def test_has_no_gradient():
    assert not any(MEASURES[name].differentiable for name in ("EN", "MI", "NMI", "CE"))
