"""Importers of mean opinions and pairwise choices: planted truths come back, faults are listed."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fuscore_training.cli import app
from fuscore_training.import_report import read_report
from fuscore_training.mean_opinions import SIGMA_FLOOR, import_mean_opinions
from fuscore_training.preferences import CENTRE, SLOPE, import_preferences
from fuscore_training.raters import rejected_by_bt500, standardised
from fuscore_training.ratings import (
    SUB_SCORE_COLUMNS,
    RatingsError,
    read_ratings,
    write_ratings,
)
from fuscore_training.scale_values import ALPHA, scale_values
from PIL import Image
from scipy.special import ndtr
from typer.testing import CliRunner

from tests.conftest import synthetic_pair

METHODS = ("A", "B", "C", "D")
SCENES = ("s", "t")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with the images of two scenes by four methods."""
    folder = tmp_path_factory.mktemp("study")
    for number, scene in enumerate(SCENES):
        ir, vis = synthetic_pair(number, 40, 48)
        fused = {method: (ir * n + vis * (4 - n)) / 4 for n, method in enumerate(METHODS)}
        for name, image in {"ir": ir, "vis": vis, **fused}.items():
            eight = np.rint(image * 255).astype(np.uint8)
            Image.fromarray(eight).save(folder / f"{scene}_{name}.png")
    (folder / "broken.png").write_bytes(b"no image")
    Image.new("L", (64, 64)).save(folder / "other_size.png")
    return folder


def triple(scene, method, **changes):
    paths = {"ir": f"{scene}_ir.png", "vis": f"{scene}_vis.png", "fused": f"{scene}_{method}.png"}
    return {"scene": scene, "method": method, **paths} | changes


def write(study, rows, name="study.csv"):
    pd.DataFrame(rows).to_csv(study / name, index=False)
    return study / name


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


def without(column):
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def each(**changes):
    return lambda rows: [row | changes for row in rows]


def as_they_are(rows):
    return rows


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


# Pairwise choices

TRUTH = np.array([-1.2, -0.3, 0.4, 1.1])  # of METHODS, mean 0


def votes(truth, each, seed=0):
    """(M, 2) winners and losers: `each` votes on every pair, drawn by Thurstone's case V."""
    rng, pairs = np.random.default_rng(seed), []
    for a in range(len(truth)):
        for b in range(a + 1, len(truth)):
            wins = rng.random(each) < ndtr(truth[a] - truth[b])
            pairs += [(a, b) if won else (b, a) for won in wins]
    return np.array(pairs)


NONE = np.zeros((0, 2), dtype=np.int64)


@pytest.mark.parametrize("model", ["thurstone", "bradley-terry"])
def test_planted_scale_values_come_back(model):
    found = scale_values(4, votes(TRUTH, 400), NONE, model=model)
    assert list(np.argsort(found.mean)) == [0, 1, 2, 3]
    assert found.mean == pytest.approx(TRUTH, abs=0.12)
    assert np.abs(found.mean - TRUTH).max() < 4 * np.sqrt(found.variance.max())
    assert abs(found.mean.sum()) < 1e-9


def test_variance_is_that_of_the_estimates():
    """Over many studies, the squared errors are as large as the posterior says."""
    studies = [scale_values(4, votes(TRUTH, 60, seed), NONE) for seed in range(25)]
    errors = np.mean([(one.mean - TRUTH) ** 2 for one in studies])
    assert 0.6 < errors / np.mean([one.variance for one in studies]) < 1.6


def test_more_votes_shrink_variances():
    few, some, many = (scale_values(4, votes(TRUTH, n), NONE).variance for n in (4, 16, 64))
    assert (some < 0.75 * few).all()
    assert (many < 0.4 * some).all()


def test_without_votes_against_it_the_prior_decides():
    """One vote between two: the posterior by numerical integration of the same model."""
    found = scale_values(2, np.array([(0, 1)]), NONE)
    d = np.linspace(-12, 12, 200_001)  # t_0 - t_1 has variance 2 / alpha a priori
    weight = np.exp(-(d**2) * ALPHA / 4) * ndtr(d)
    mean = (d * weight).sum() / weight.sum()
    variance = ((d - mean) ** 2 * weight).sum() / weight.sum()
    assert found.mean == pytest.approx([mean / 2, -mean / 2], abs=1e-4)
    assert found.variance == pytest.approx([variance / 4] * 2, abs=1e-4)


def test_ties_pull_together_and_two_are_a_win_each():
    wins = votes(TRUTH, 10)
    ties = np.array([(0, 3), (3, 0)] * 10)
    tied = scale_values(4, wins, ties)
    same = scale_values(4, np.concatenate([wins, ties]), NONE)
    assert tied.mean == pytest.approx(same.mean, abs=1e-3)
    plain = scale_values(4, wins, NONE)
    assert np.ptp(tied.mean) < np.ptp(plain.mean)
    odd = scale_values(2, NONE, np.array([(1, 0)]))
    assert odd.mean == pytest.approx([0, 0], abs=1e-6)


def test_fit_leaves_numpys_generator_alone():
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    first = np.random.random()
    one = scale_values(4, votes(TRUTH, 5), NONE)
    assert [first, np.random.random()] == list(expected)
    again = scale_values(4, votes(TRUTH, 5), NONE)
    assert np.array_equal(one.mean, again.mean)


def choices(pairs, scene="s"):
    names = [(METHODS[winner], METHODS[loser]) for winner, loser in pairs]
    keys = ("scene", "method_a", "method_b", "choice", "rater")
    return [dict(zip(keys, (scene, a, b, "a", "x"), strict=True)) for a, b in names]


@pytest.fixture(scope="module")
def triples(study):
    return write(study, [triple(s, m) for s in SCENES for m in METHODS], "triples.csv")


def imported(study, triples, rows, **options):
    source = write(study, rows, "choices.csv")
    options = {"label_kind": "human", "report": study / "r.json"} | options
    return import_preferences(source, triples, **options)


def test_choices_become_ratings(study, triples):
    rows = choices(votes(TRUTH, 100)) + choices(votes(TRUTH[::-1], 100, seed=1), scene="t")
    for row in rows[::2]:  # the same vote, shown the other way round
        row["method_a"], row["method_b"], row["choice"] = row["method_b"], row["method_a"], "B"
    table = imported(study, triples, rows)
    frame = table.frame
    assert (table.label_kind, table.has_sub_scores, len(frame)) == ("human", False, 8)
    s, t = (frame[frame["scene"] == scene] for scene in SCENES)
    assert list(s.sort_values("overall")["method"]) == ["A", "B", "C", "D"]
    assert list(t.sort_values("overall")["method"]) == ["D", "C", "B", "A"]
    assert s["overall"].to_numpy() == pytest.approx(CENTRE + SLOPE * TRUTH, abs=0.25)
    assert frame.groupby("scene")["overall"].mean().to_numpy() == pytest.approx([3, 3])
    assert (frame["comparisons"] == 300).all()
    assert frame.groupby("scene")["component"].nunique().tolist() == [1, 1]
    # What training reads off two rows is the probability of the next vote.
    a, d = s.iloc[3], s.iloc[0]
    preferred = ndtr((a.overall - d.overall) / math.hypot(a.sigma, d.sigma))
    gap = a.scale_value - d.scale_value
    assert preferred == pytest.approx(
        ndtr(gap / math.sqrt(1 + a.scale_variance + d.scale_variance))
    )
    assert preferred == pytest.approx(ndtr(TRUTH[3] - TRUTH[0]), abs=0.03)
    write_ratings(table, study / "out.parquet")
    assert len(read_ratings(study / "out.parquet")) == 8
    report = read_report(study / "r.json")
    assert report.skipped == {}
    facts = {"raters": 1, "choices": 1200, "ties": 0, "connected_parts": 2, "cut_to_the_scale": 0}
    assert report.facts == facts


def test_unanimous_votes_stay_on_the_scale(study, triples):
    frame = imported(study, triples, choices([(0, 1)] * 2000)).frame
    assert frame["overall"].between(1, 5).all()
    few = imported(study, triples, choices([(0, 1)] * 3)).frame
    assert few["overall"].max() < 4.2
    assert few["sigma"].min() > frame["sigma"].min() > SLOPE / math.sqrt(2)


def test_comparisons_across_scenes_put_them_on_one_scale(study, triples):
    """Scene t is better throughout: within scenes that cannot be seen, across scenes it can."""
    truth = dict(
        zip([(s, m) for s in SCENES for m in METHODS], [*TRUTH - 1, *TRUTH + 1], strict=True)
    )
    rng, rows = np.random.default_rng(0), []
    for one in truth:
        for other in truth:
            if one < other:
                for won in rng.random(60) < ndtr(truth[one] - truth[other]):
                    row = {"scene_a": one[0], "method_a": one[1], "scene_b": other[0]}
                    rows.append(row | {"method_b": other[1], "choice": "a" if won else "b"})
    frame = imported(study, triples, rows).frame
    assert frame["component"].nunique() == 1
    assert frame["scale_value"].to_numpy() == pytest.approx(list(truth.values()), abs=0.35)
    means = frame.groupby("scene")["overall"].mean()
    assert means["t"] - means["s"] == pytest.approx(2 * SLOPE, abs=0.3)


def test_anchors_set_the_level(study):
    rows = [triple(s, m, anchor="") for s in SCENES for m in METHODS]
    rows[0]["anchor"], rows[3]["anchor"] = 2.0, 4.0  # s: mean of A and D is 3 by votes, too
    rows[4]["anchor"] = 1.5  # t: A
    triples = write(study, rows, "anchored.csv")
    pairs = votes(TRUTH, 50)
    frame = imported(study, triples, choices(pairs) + choices(pairs, scene="t")).frame
    s, t = (frame[frame["scene"] == scene].reset_index(drop=True) for scene in SCENES)
    assert s["overall"][[0, 3]].mean() == pytest.approx(3)
    assert t["overall"][0] == pytest.approx(1.5)
    assert t["scale_value"].tolist() == pytest.approx(s["scale_value"].tolist(), abs=1e-9)
    assert read_report(study / "r.json").facts["anchored_triples"] == 3


def test_disconnected_comparisons(study, triples):
    rows = choices([(0, 1)] * 3 + [(2, 3)] * 3)
    with pytest.raises(RatingsError, match=r"'s' falls into 2 parts .*: A, B; C, D$"):
        imported(study, triples, rows)
    frame = imported(study, triples, rows, disconnected="separate").frame
    assert frame.groupby("component")["overall"].mean().tolist() == pytest.approx([3, 3])
    assert "A, B; C, D" in read_report(study / "r.json").notes[0]
    joined = [{"scene_a": "s", "method_a": "A", "scene_b": "t", "method_b": m, "choice": "tie"}
              for m in "AB"]  # fmt: skip
    across = [row | {"scene_a": "s", "scene_b": "s"} for row in without("scene")(rows[:3])]
    assert imported(study, triples, joined + across).frame["component"].nunique() == 1


def test_faulty_choices_are_listed(study):
    shown = [triple("s", m) for m in METHODS[:3]] + [triple("s", "D", fused="broken.png")]
    triples = write(study, [*shown, triple("t", "A")], "some.csv")
    rows = choices([(0, 1), (1, 2), (0, 3), (1, 1)])
    rows += [rows[0] | {"choice": "left"}, rows[0] | {"method_b": "Z"}, rows[0] | {"choice": "Tie"}]
    frame = imported(study, triples, rows).frame
    assert list(frame["method"]) == ["A", "B", "C"]
    report = read_report(study / "r.json")
    assert report.skipped == {
        "no usable triple of that name": 2,
        "images cannot be used": 1,
        "no such choice": 1,
        "compared with itself": 1,
        "never compared": 1,
    }
    assert {row["row"] for row in report.skipped_rows if "choice" in row["reason"]} == {6}
    assert report.facts["choices"] == 3
    assert report.facts["ties"] == 1
    content = json.loads((study / "r.json").read_text())
    assert (content["rows"], content["kept"]) == (7, 3)


BAD_CHOICES = {
    "no choice": (without("choice"), {}, "'choice'.*there: scene"),
    "no scene": (without("scene"), {}, "either column 'scene' or"),
    "both": (each(scene_a="s", scene_b="s"), {}, "either column 'scene' or"),
    "all unknown": (each(method_a="Z"), {}, "no choice can be used"),
    "alpha": (as_they_are, {"alpha": 0}, "> 0"),
    "kind": (as_they_are, {"label_kind": "people"}, "`label_kind` in"),
    "model": (as_they_are, {"model": "elo"}, "`model` in thurstone, bradley-terry, got 'elo'"),
    "disconnected": (as_they_are, {"disconnected": "x"}, "`disconnected` in error, separate"),
}


@pytest.mark.parametrize(("change", "options", "words"), BAD_CHOICES.values(), ids=BAD_CHOICES)
def test_bad_choices(study, triples, change, options, words):
    with pytest.raises(RatingsError, match=words):
        imported(study, triples, change(choices([(0, 1), (1, 2)])), **options)


@pytest.mark.parametrize("anchor", ["x", 0.5, 6])
def test_bad_anchor(study, anchor):
    triples = write(study, [triple("s", "A", anchor=anchor), triple("s", "B", anchor="")], "b.csv")
    with pytest.raises(RatingsError, match=rf"row 2: expected 'anchor' .*'{anchor}'"):
        imported(study, triples, choices([(0, 1)]))


def test_commands(study, triples):
    run = CliRunner().invoke
    mos = write(study, opinions([[10, 20, "x"], [80, 90]]), "mos.csv")
    out = study / "mos.parquet"
    arguments = ["import-mos", mos, "--out", out, "--label-kind", "human", "--scale", 0, 100]
    result = run(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "5 rows read, 2 ratings kept" in result.output
    assert "skipped: 1 score is not a number" in result.output
    assert read_ratings(out).frame["overall"].tolist() == pytest.approx([1.6, 4.4])
    assert read_ratings(out).label_kind == "human"
    assert (study / "mos.import_report.json").is_file()
    pairs = write(study, choices(votes(TRUTH, 5)), "pairs.csv")
    arguments = ["import-preferences", pairs, "--triples", triples, "--out", study / "p.csv"]
    result = run(app, [*map(str, arguments), "--label-kind", "model"])
    assert result.exit_code == 0, result.output
    assert "30 rows read, 4 ratings kept" in result.output
    assert "4 never compared" in result.output
    assert read_ratings(study / "p.csv").label_kind == "model"
    assert run(app, list(map(str, arguments))).exit_code == 2  # --label-kind has no default
