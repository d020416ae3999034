"""Importer of pairwise choices: planted truths come back as ratings, and faults are listed."""

import json
import math

import numpy as np
import pytest
from fuscore_training.cli import app
from fuscore_training.importers.import_report import read_report
from fuscore_training.importers.preferences import CENTRE, SLOPE, import_preferences
from fuscore_training.ratings import RatingsError, read_ratings, write_ratings
from scipy.special import ndtr
from typer.testing import CliRunner

from tests.training.importers.conftest import (
    METHODS,
    SCENES,
    TRUTH,
    as_they_are,
    each,
    triple,
    votes,
    without,
    write,
)


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


def test_command_for_preferences(study, triples):
    run = CliRunner().invoke
    pairs = write(study, choices(votes(TRUTH, 5)), "pairs.csv")
    arguments = ["import-preferences", pairs, "--triples", triples, "--out", study / "p.csv"]
    result = run(app, [*map(str, arguments), "--label-kind", "model"])
    assert result.exit_code == 0, result.output
    assert "30 rows read, 4 ratings kept" in result.output
    assert "4 never compared" in result.output
    assert read_ratings(study / "p.csv").label_kind == "model"
    assert run(app, list(map(str, arguments))).exit_code == 2  # --label-kind has no default
