"""MS-GMSDc against another implementation, and the curves that turn it into quality kept."""

import numpy as np
import pytest
from fuscore_training.labels.change_curves import Curve, fit_curve, fit_hits
from fuscore_training.labels.visible_change import visible_change

# piq 0.8.0 (Apache-2.0), multi_scale_gmsd(x, y, chromatic=True) in float64 on `picture` changed as
# named; computed once, as piq needs torchvision.
GOLDEN = [
    ((64, 64), "dim", 0.041229022),
    ((64, 64), "swap", 0.172744843),
    ((64, 64), "grey", 0.115531811),
    ((75, 101), "dim", 0.038888691),
    ((75, 101), "swap", 0.162293227),
    ((75, 101), "grey", 0.108679121),
    ((240, 320), "dim", 0.041118411),
    ((240, 320), "swap", 0.172878411),
    ((240, 320), "grey", 0.115899768),
]
CHANGES = {
    "dim": lambda image: 0.7 * image,
    "swap": lambda image: image[..., ::-1],
    "grey": lambda image: np.repeat(image.mean(2, keepdims=True), 3, axis=2),
}


def picture(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([0.5 + 0.4 * np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in (0, 0.5, 1)], 2)


@pytest.mark.parametrize(("size", "name", "value"), GOLDEN)
def test_values_of_another_implementation(size, name, value):
    base = picture(*size)
    assert visible_change(CHANGES[name](base), base) == pytest.approx(value, abs=1e-8)


def test_nothing_is_seen_where_nothing_changed():
    base = picture(40, 50)
    assert visible_change(base, base) == pytest.approx(0, abs=1e-12)
    assert visible_change(base[..., 0], np.repeat(base[..., :1], 3, axis=2)) < 1e-12


def test_the_fit_finds_the_curve_that_made_the_means():
    curve = Curve(0.1, 1.3, (1, 1, 1, 1), "viewers")
    changes = [np.array([0.01, 0.03]), np.array([0.05, 0.09]), np.array([0.1, 0.2, 0.3])]
    kept = [float(curve.kept(change).mean()) for change in changes]
    assert fit_curve(changes, kept) == pytest.approx((0.1, 1.3), rel=1e-3)


def test_powers_of_the_sub_scores_are_found():
    overall = np.array([0.9, 0.6, 0.3])
    powers = (0.4, 1.5, 2.0, 0.0)
    sub_scores = np.stack([overall**power for power in powers], axis=1)
    assert fit_hits(overall, sub_scores) == pytest.approx(powers, abs=1e-6)
