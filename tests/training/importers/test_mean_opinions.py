"""Importer of mean opinions: means and spreads are exact, raters screened, faults listed."""

import math

import numpy as np
import pandas as pd
import pytest
from fuscore_training.cli import app
from fuscore_training.importers.import_report import read_report
from fuscore_training.importers.mean_opinions import SIGMA_FLOOR, import_mean_opinions
from fuscore_training.labels.raters import rejected_by_bt500, standardised
from fuscore_training.ratings import SUB_SCORE_COLUMNS, RatingsError, read_ratings, write_ratings
from typer.testing import CliRunner

from tests.training.importers.conftest import (
    METHODS,
    SCENES,
    as_they_are,
    each,
    triple,
    without,
    write,
)


def opinion(scene, method, rater, overall, **more):
    return triple(scene, method, rater=rater, overall=overall, **more)


def opinions(values, scene="s"):
    """One row for each (method, rater) of a table of values."""
    return [
        opinion(scene, method, f"r{rater}", value)
        for method, row in zip(METHODS, values, strict=False)
        for rater, value in enumerate(row)
    ]


def test_means_spread_and_raters_are_exact(study):
    source = write(study, opinions([[1, 2, 3], [4, 4, 4], [5, 5], [2, 4]]))
    table = import_mean_opinions(source, label_kind="human")
    frame = table.frame
    assert table.label_kind == "human"
    assert not table.has_sub_scores
    assert list(frame["method"]) == list(METHODS)
    assert list(frame["overall"]) == [2, 4, 5, 3]
    assert list(frame["raters"]) == [3, 3, 2, 2]
    spread = [math.sqrt(2 / 3), SIGMA_FLOOR, SIGMA_FLOOR, 1]
    assert frame["sigma"].tolist() == pytest.approx(spread, abs=1e-12)
    write_ratings(table, study / "out.csv")
    assert len(read_ratings(study / "out.csv")) == 4


@pytest.mark.parametrize(
    ("scale", "values", "expected"),
    [
        ((0, 100), [0, 50, 100, 25], [1, 3, 5, 2]),
        ((5, 1), [5, 3, 1, 4], [1, 3, 5, 2]),
        ((-3, 3), [-3, 0, 3, -1.5], [1, 3, 5, 2]),
    ],
)
def test_scales(study, scale, values, expected):
    source = write(study, opinions([[value, value] for value in values]))
    table = import_mean_opinions(source, label_kind="human", scale=scale)
    assert table.frame["overall"].tolist() == pytest.approx(expected, abs=1e-12)
    assert (table.frame["sigma"] == SIGMA_FLOOR).all()


SUB = dict(zip(SUB_SCORE_COLUMNS, [1.0, 2.0, 3.0, 4.0], strict=True))
SUB_SIGMA = math.sqrt(SIGMA_FLOOR**2 + 1.25)  # population variance of 1, 2, 3, 4


def test_one_rater_with_sub_scores_has_their_sigma(study):
    rows = [opinion("s", "A", "x", 2, **SUB), opinion("s", "A", "y", 4, **SUB)]
    both = write(study, [*rows, opinion("s", "B", "x", 2, **SUB)])
    frame = import_mean_opinions(both, label_kind="human").frame
    assert frame["sigma"].tolist() == pytest.approx([1.0, SUB_SIGMA], abs=1e-12)
    assert frame[list(SUB_SCORE_COLUMNS)].iloc[0].tolist() == [1, 2, 3, 4]
    alone = import_mean_opinions(write(study, rows[:1]), label_kind="human")
    assert "sigma" not in alone.frame
    assert alone.has_sub_scores


def test_one_rater_without_sub_scores_is_an_error(study):
    source = write(study, opinions([[1, 2], [3], [4]]))
    with pytest.raises(RatingsError, match=r"one rater .*'s', method 'B' \(2 of 3 triples\)"):
        import_mean_opinions(source, label_kind="human")


def test_a_raters_repeats_count_once(study):
    rows = opinions([[1, 3]])
    source = write(study, [*rows, opinion("s", "A", "r0", 3)])  # r0: 1 and 3
    frame = import_mean_opinions(source, label_kind="human", report=study / "r.json").frame
    assert frame["overall"].tolist() == [2.5]
    assert frame["raters"].tolist() == [2]
    assert "1 opinions repeat" in read_report(study / "r.json").notes[0]


def test_faulty_opinions_are_listed_with_their_rows(study):
    bad = [
        opinion("s", "B", "r0", "good"),
        opinion("s", "B", "r1", ""),
        opinion("s", "B", "r2", 6),
        opinion("s", "B", "r3", 0.5),
        opinion("s", "B", "", 3),
        opinion("s", "C", "r0", 3, fused="broken.png"),
        opinion("s", "D", "r0", 3, fused="nowhere.png"),
        opinion("t", "A", "r0", 3, fused="other_size.png"),
        opinion("t", "A", "r1", 3, fused="other_size.png"),
    ]
    source = write(study, [*opinions([[2, 4]]), *bad])
    frame = import_mean_opinions(source, label_kind="human", report=study / "r.json").frame
    report = read_report(study / "r.json")
    assert (report.rows, report.kept, len(frame)) == (11, 1, 1)
    assert report.skipped == {
        "images cannot be used": 3,
        "score is not a number": 2,
        "score off the scale": 2,
        "no rater": 1,
    }
    rows = {row["row"]: row["reason"] for row in report.skipped_rows}
    assert rows[4] == rows[5] == "score is not a number"
    assert rows[6] == rows[7] == "score off the scale"
    assert (rows[8], rows[9], rows[11]) == ("no rater", *["images cannot be used"] * 2)


def panel(raters=15, triples=60, seed=0):
    """Opinions of a careful panel: the truth of each triple, and none more than 0.7 from it."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(1.5, 4.5, triples)
    values = truth[:, None] + rng.uniform(-0.7, 0.7, (triples, raters))  # (T, R)
    item, rater = np.indices(values.shape)
    names = [f"r{number:02d}" for number in rater.ravel()]
    frame = pd.DataFrame({"item": item.ravel(), "rater": names, "overall": values.ravel()})
    return truth, frame


def test_screening_rejects_the_erratic_not_the_strict():
    truth, frame = panel()
    assert rejected_by_bt500(frame) == []
    strict, erratic = frame.copy(), frame.copy()
    strict.loc[frame["rater"] == "r03", "overall"] -= 1.2
    erratic.loc[frame["rater"] == "r05", "overall"] = 6 - truth  # turned the scale around
    assert rejected_by_bt500(strict) == []
    assert rejected_by_bt500(erratic) == ["r05"]


UNEVEN = [-0.5] * 4 + [0.5] * 4 + [0, 1.5]


def test_screening_by_hand():
    """Of -.5 (4 raters), .5 (4), 0 and 1.5 the last is 2.02 S from the mean, the kurtosis 2.53."""
    values = np.array(UNEVEN)

    def rejected(sign):
        items = [sign**item * values for item in range(10)]
        item, rater = np.indices((10, 10))
        columns = {"item": item.ravel(), "rater": rater.ravel(), "overall": 3 + np.ravel(items)}
        return rejected_by_bt500(pd.DataFrame(columns))

    assert rejected(-1) == [9]  # now high, now low
    assert rejected(1) == []  # always high
    values[9] = 1.4  # 1.91 S
    assert rejected(-1) == []
    values[:9] = 0  # kurtosis 8.11: the bound is sqrt(20) S, which is beyond reach
    assert rejected(-1) == []


def test_standardised_raters_agree_on_level_and_range():
    _, frame = panel(raters=3)
    kind, shy = frame["rater"] == "r00", frame["rater"] == "r01"
    frame.loc[kind, "overall"] += 1
    frame.loc[shy, "overall"] = 3 + (frame.loc[shy, "overall"] - 3) / 4
    result = standardised(frame, ["overall"]).groupby("rater")["overall"]
    assert result.mean().to_numpy() == pytest.approx([frame["overall"].mean()] * 3, abs=1e-12)
    assert np.ptp(result.std(ddof=0).to_numpy()) < 1e-12


def test_screening_and_standardisation_are_options(study):
    rows = []
    for number, (scene, method) in enumerate((s, m) for s in SCENES for m in METHODS):
        away = (-1) ** number * np.array(UNEVEN)
        rows += [opinion(scene, method, f"r{r}", 3 + value) for r, value in enumerate(away)]
    source = write(study, rows)
    options = {"label_kind": "human", "report": study / "r.json"}
    plain = import_mean_opinions(source, **options).frame
    assert (plain["raters"] == 10).all()
    screened = import_mean_opinions(source, screening="bt500", **options).frame
    report = read_report(study / "r.json")
    assert report.facts["raters_rejected_by_bt500"] == ["r9"]
    assert (screened["raters"] == 9).all()
    assert (screened["sigma"] < plain["sigma"]).all()
    even = import_mean_opinions(source, standardisation="raters", **options).frame
    assert not np.allclose(even["overall"], plain["overall"])


def more(**changes):
    return lambda rows: [*rows, rows[0] | changes]


BAD_MOS = {
    "no rater column": (without("rater"), {}, "'rater'.*there: scene"),
    "some sub-scores": (each(sharpness=3), {}, "all four sub-scores or none, got sharp"),
    "no rows": (lambda _: [], {}, "not a readable table"),
    "all off the scale": (each(overall=9), {}, "no opinion .*'score off the scale': 2"),
    "other images": (more(fused="s_B.png"), {}, "row 4: scene 's', method 'A' has another"),
    "other ir": (more(method="B", ir="t_ir.png"), {}, "row 4: scene 's' has another 'ir'"),
    "empty scene": (each(scene=""), {}, "row 2: empty 'scene'"),
    "scale": (as_they_are, {"scale": (3, 3)}, "two different numbers"),
    "scale nan": (as_they_are, {"scale": (1, math.nan)}, "two different numbers"),
    "floor": (as_they_are, {"sigma_floor": 0}, "> 0"),
    "kind": (as_they_are, {"label_kind": "people"}, "in proxy, human, model, got 'people'"),
    "screening": (as_they_are, {"screening": "x"}, "`screening` in none, bt500"),
    "standardisation": (as_they_are, {"standardisation": "x"}, "in none, raters, got 'x'"),
}


@pytest.mark.parametrize(("change", "options", "words"), BAD_MOS.values(), ids=BAD_MOS)
def test_bad_opinions(study, change, options, words):
    source = write(study, change(opinions([[2, 4]])))
    with pytest.raises(RatingsError, match=words):
        import_mean_opinions(source, **{"label_kind": "human"} | options)


def test_not_a_csv(study):
    with pytest.raises(RatingsError, match=r"expected suffix \.csv"):
        import_mean_opinions(study / "x.xlsx", label_kind="human")
    with pytest.raises(RatingsError, match=r"none\.csv"):
        import_mean_opinions(study / "none.csv", label_kind="human")


def test_command_for_mean_opinions(study):
    mos = write(study, opinions([[10, 20, "x"], [80, 90]]), "mos.csv")
    out = study / "mos.parquet"
    arguments = ["import-mos", mos, "--out", out, "--label-kind", "human", "--scale", 0, 100]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "5 rows read, 2 ratings kept" in result.output
    assert "skipped: 1 score is not a number" in result.output
    assert read_ratings(out).frame["overall"].tolist() == pytest.approx([1.6, 4.4])
    assert read_ratings(out).label_kind == "human"
    assert (study / "mos.import_report.json").is_file()
