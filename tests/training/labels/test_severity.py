"""Retention curves: what people granted, what we scored, and that more damage never pays."""

import numpy as np
import pandas as pd
import pytest
from fuscore_training.labels.severity import ANCHORS, HUMAN_KINDS, Severity, fit_severity

HUMAN = {"noise": (0.08, 1.2), "stripes": (0.07, 0.9), "blur": (2.5, 1.4)}
STRENGTHS = {"noise": (0.005, 0.02, 0.05), "stripes": (0.005, 0.02, 0.05), "blur": (0.5, 1.5, 3.0)}
KINDS = [*HUMAN, *ANCHORS]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Opinions that follow the curves of `HUMAN` exactly."""
    rows = []
    for method, clean, gain in (("average", 58.0, 0.5**0.5), ("pyramid", 62.0, 1.0)):
        rows.append({"fusion_method": method, "distortion": "none", "mean_opinion_0_100": clean})
        for kind, (scale, power) in HUMAN.items():
            for strength in STRENGTHS[kind]:
                # Averaging two sources with independent noise leaves 1 / sqrt(2) of it.
                felt = strength * (1.0 if kind == "blur" else gain)
                opinion = clean * np.exp(-((felt / scale) ** power))
                row = {"fusion_method": method, "distortion": HUMAN_KINDS[kind]}
                rows.append(row | {"parameter": strength, "mean_opinion_0_100": opinion})
    path = tmp_path_factory.mktemp("severity") / "human_severity.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_the_fit_finds_the_curves_that_made_the_opinions(table):
    found = fit_severity(table).human
    for kind, curve in HUMAN.items():
        assert found[kind] == pytest.approx(curve, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_retention_falls_from_1_and_stays_above_0(kind):
    greatest = ANCHORS[kind][-1][0] if kind in ANCHORS else 3 * STRENGTHS[kind][-1]
    strengths = np.linspace(0, greatest, 60)
    kept = np.array([Severity(HUMAN).retention(kind, strength) for strength in strengths])
    assert kept[0] == 1
    assert kept[-1] > 0
    assert (np.diff(kept) < 0).all()


@pytest.mark.parametrize("kind", ANCHORS)
def test_anchors_are_met_and_hold_beyond_the_last(kind):
    severity = Severity(HUMAN)
    for strength, kept in ANCHORS[kind]:
        assert severity.retention(kind, strength) == pytest.approx(kept)
    assert severity.retention(kind, 1e6) == ANCHORS[kind][-1][1]


def test_unknown_kind_names_what_is_known():
    with pytest.raises(ValueError, match=r"noise, .*jpeg, .*got 'rain'"):
        Severity(HUMAN).retention("rain", 1.0)


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError):
        fit_severity(tmp_path / "human_severity.csv")


@pytest.mark.real_data
def test_the_fit_reproduces_what_people_said(real_data):
    """27 people's means over 19 scenes; 0.06 is a third of what a single person differs by."""
    severity = fit_severity(real_data / "human_severity.csv")
    table = pd.read_csv(real_data / "human_severity.csv", keep_default_na=False)
    kinds = {name: kind for kind, name in HUMAN_KINDS.items()}
    clean = table[table.distortion == "none"].set_index("fusion_method").mean_opinion_0_100
    damaged = table[table.distortion != "none"]
    assert len(damaged) == 27
    for row in damaged.itertuples():
        kind, strength = kinds[row.distortion], float(row.parameter)
        if row.fusion_method == "average" and kind != "blur":
            strength /= np.sqrt(2)
        said = row.mean_opinion_0_100 / clean[row.fusion_method]
        assert severity.retention(kind, strength) == pytest.approx(said, abs=0.06), row


@pytest.mark.real_data
def test_people_hate_blur_and_forgive_noise(real_data):
    severity = fit_severity(real_data / "human_severity.csv")
    # The strongest of each in the study, plainly visible both.
    assert severity.retention("blur", 3.0) < 0.35
    assert severity.retention("noise", 0.025) > 0.6
    assert severity.retention("stripes", 0.025) > 0.6
    # Blur of 1 px costs as much as the study's strongest noise.
    assert severity.retention("blur", 1.0) < severity.retention("noise", 0.025)
