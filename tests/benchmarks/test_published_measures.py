"""Published values of classic measures, on a few scenes and methods; the benchmark has all."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.measures.published import KEYS, TABLES, agreement, compare, page

EXACT = {"EN", "SD", "SF", "AG", "EI", "MI", "CE", "CC", "SCD", "MSE", "RMSE", "PSNR"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "scene", "methods", "tolerance"),
    [
        (
            "VIFB",
            "carShadow",
            ["CBF", "GFCE", "IFCNN"],
            {"rtol": 5.1e-5},
        ),  # five digits are printed
        ("TNO", "41", ["PIAFusion", "U2Fusion"], {"rtol": 0, "atol": 1e-9}),
    ],
)
def test_conventions_give_published_values_again(name, scene, methods, tolerance, real_data):
    found = compare(real_data / name, TABLES[name], scene, methods)
    exact = found[found["measure"].isin(EXACT)]
    assert len(exact) == 9 * len(methods)
    np.testing.assert_allclose(exact["convention"], exact["value"], **tolerance)


def test_agreement_counts_what_is_equal_as_printed():
    values = [7.0, 8.0, 6.0, 1234.5]
    apart = [0.0004, -0.0006, 0.5, 0.04]  # the last is below half of the fifth digit
    rows = [("1", str(n), "EN", value) for n, value in enumerate(values)]
    compared = pd.DataFrame(rows, columns=[*KEYS, "value"])
    compared["convention"] = compared["value"] + apart
    compared["definition"] = compared["value"] ** 2
    (found,) = agreement("TNO", compared)
    assert (found.measure, found.values, found.reproduced, found.srcc) == ("EN", 4, 2, 1)
    assert found.largest == pytest.approx(0.5)
    assert found.median == pytest.approx((0.0006 + 0.04) / 2)
    assert "| TNO | tang2022 | EN | 4 | 2 | 1, 2 |" in page([found])
