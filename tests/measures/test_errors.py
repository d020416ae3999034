"""MSE, RMSE and PSNR, by hand, and as the evaluators have them."""

import math

import numpy as np
import pytest
import torch

from fuscore_metric.measures.catalogue import CONVENTIONS
from fuscore_metric.measures.grey import Grey

# Errors of 3 and of 4 grey levels: 12.5 on average of the squares.
IR, VIS, FUSED = (np.full((20, 30), level) for level in (97, 104, 100))


def measured(name, ir, vis, fused, convention="standard"):
    images = (Grey(torch.as_tensor(x, dtype=torch.float64)[None]) for x in (ir, vis, fused))
    return float(CONVENTIONS[convention].computes[name](*images))


@pytest.mark.parametrize(
    ("convention", "name", "expected"),
    [
        ("standard", "MSE", 12.5),
        ("standard", "RMSE", math.sqrt(12.5)),
        ("standard", "PSNR", 10 * math.log10(255**2 / 12.5)),
        ("tang", "MSE", 12.5 / 255**2),
        ("tang", "PSNR", 20 * math.log10(255 / math.sqrt(12.5 / 255**2))),
        ("tang2022", "PSNR", 20 * math.log10(255 / math.sqrt(12.5 / 255**2))),
        ("cddfuse", "MSE", 12.5),
        ("cddfuse", "PSNR", 10 * math.log10(100**2 / 12.5)),
        ("vifb", "RMSE", 3.5 * math.sqrt(600) / 600),
        ("vifb", "PSNR", 20 * math.log10(255 / math.sqrt(3.5 * math.sqrt(600) / 600))),
    ],
)
def test_by_hand(convention, name, expected):
    assert measured(name, IR, VIS, FUSED, convention) == pytest.approx(expected)


def test_the_mean_of_both_sources_is_best():
    rng = np.random.default_rng(0)
    ir, vis = rng.integers(0, 128, (2, 20, 30)) * 2
    best = measured("MSE", ir, vis, (ir + vis) / 2)
    assert best == pytest.approx(((ir - vis) ** 2).mean() / 4)
    assert best < measured("MSE", ir, vis, np.maximum(ir, vis))


def test_no_error_and_the_largest():
    black, white = np.zeros_like(FUSED), np.full_like(FUSED, 255)
    assert measured("PSNR", FUSED, FUSED, FUSED) == 100
    assert measured("RMSE", FUSED, FUSED, FUSED) == 0
    assert measured("PSNR", white, white, black) == 0
    assert measured("RMSE", white, white, black) == 255
