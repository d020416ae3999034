"""CC and SCD, against numpy's correlation."""

import numpy as np
import pytest
import torch

from fuscore_metric.measures.catalogue import MEASURES
from fuscore_metric.measures.grey import Grey


def measured(name, *images):
    made = (Grey(torch.as_tensor(x, dtype=torch.float64)[None]) for x in images)
    return float(MEASURES[name].compute(*made))


def plain(one, other):
    return np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]


@pytest.fixture(scope="module")
def triple():
    return np.random.default_rng(0).integers(0, 128, (3, 40, 50))


def test_equal_numpys_correlation(triple):
    ir, vis, fused = triple
    assert measured("CC", *triple) == pytest.approx((plain(ir, fused) + plain(vis, fused)) / 2)
    expected = plain(fused - vis, ir) + plain(fused - ir, vis)
    assert measured("SCD", *triple) == pytest.approx(expected)


def test_known_fusions(triple):
    ir, vis, _ = triple
    assert measured("SCD", ir, vis, ir + vis) == pytest.approx(2)
    assert measured("SCD", ir, vis, 127 - ir + vis) == pytest.approx(
        -1 + plain(127 - 2 * ir + vis, vis)
    )
    assert measured("CC", ir, ir, 255 - ir) == pytest.approx(-1)
    assert measured("CC", ir, ir, 2 * ir) == pytest.approx(1)


def test_a_constant_correlates_with_nothing(triple):
    ir, vis, _ = triple
    flat = np.full_like(ir, 77)
    assert measured("CC", ir, vis, flat) == 0
    assert measured("CC", flat, vis, vis) == pytest.approx(0.5)
    # What is left of one source is constant, not noise of rounding.
    assert measured("SCD", ir, vis, vis + 3) == pytest.approx(plain(vis + 3 - ir, vis), abs=1e-12)
    assert measured("SCD", vis, vis, vis) == 0
