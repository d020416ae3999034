"""Two methods against each other: exact numbers, symmetry, and the printed forms."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, wilcoxon

from fuscore_metric import InputError
from fuscore_metric.leaderboard.comparison import compare, wilson
from fuscore_metric.leaderboard.comparison_tables import as_json, as_latex, as_markdown, as_rich
from fuscore_metric.leaderboard.inference import preference
from fuscore_metric.leaderboard.statistics import leaderboard
from tests.helpers.results_tables import SETTINGS, STATEMENT, random_results, results, shown

TABLE = results(
    {
        "A_1": [4.0, 3.0, 5.0, 2.0, 3.0, 4.0],
        "B": [3.0, 3.0, 2.0, 2.5, 1.0, 4.5],
        "other": [1.0, None, 1.0, 1.0, 1.0, 1.0],
    }
)


def test_exact_numbers():
    result = compare(TABLE, "A_1", "B")
    assert result.win_rate == pytest.approx((3 + 0.5) / 6)
    assert (result.mean_a, result.mean_b) == (3.5, pytest.approx(16 / 6))
    assert result.difference == pytest.approx(5 / 6)
    assert result.low < result.difference < result.high
    assert result.p_value == wilcoxon([1, 3, -0.5, 2, -0.5], method="exact").pvalue
    by_scene = {scene.scene: scene for scene in result.scenes}
    assert by_scene["s1"].preference == 0.5
    expected = preference(np.array(1.0), np.array(0.5), 1.0)
    assert by_scene["s0"].preference == pytest.approx(float(expected))
    assert (by_scene["s2"].score_a, by_scene["s2"].score_b) == (5, 2)
    assert result.preference == pytest.approx(np.mean([s.preference for s in result.scenes]))
    # Surest for A_1 first; s3 and s5 differ alike and come by name.
    assert [scene.scene for scene in result.scenes] == ["s2", "s4", "s0", "s1", "s3", "s5"]
    assert result.winner == "A_1"
    assert {scene.scene for scene in result.disagreeing} == {"s3", "s5"}
    assert result.left_out == ()


def test_the_surest_scene_that_disagrees_comes_first_on_either_side():
    scores = {"a": [5.0, 5.0, 2.0, 2.9], "b": [1.0, 1.0, 3.0, 3.0]}
    ahead = compare(results(scores), "a", "b")
    behind = compare(results(scores), "b", "a")
    assert ahead.winner == behind.winner == "a"
    assert [scene.scene for scene in ahead.disagreeing] == ["s2", "s3"]
    assert [scene.scene for scene in behind.disagreeing] == ["s2", "s3"]


def test_equal_means_have_no_winner_and_nothing_disagrees():
    result = compare(results({"a": [1.0, 2.0], "b": [2.0, 1.0]}), "a", "b")
    assert result.winner is None
    assert result.disagreeing == ()
    assert result.win_rate == 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_swapping_the_two_mirrors_everything(seed, scenes):
    table = random_results(seed, scenes, methods=2)
    table["score"] = table["score"].round(1)
    there = compare(table, "m00", "m01", resamples=200)
    back = compare(table.sample(frac=1, random_state=seed), "m01", "m00", resamples=200)
    assert back.win_rate == pytest.approx(1 - there.win_rate)
    assert (back.win_low, back.win_high) == pytest.approx((1 - there.win_high, 1 - there.win_low))
    assert back.difference == pytest.approx(-there.difference)
    assert back.p_value == there.p_value
    assert back.preference == pytest.approx(1 - there.preference)
    assert back.winner == there.winner
    assert sorted(s.scene for s in back.disagreeing) == sorted(s.scene for s in there.disagreeing)
    if scenes > 1:
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=0.1)


def test_a_comparison_agrees_with_the_leaderboard_of_the_two():
    table = random_results(3, scenes=20, methods=2)
    board = leaderboard(table, temperature=0.7)
    result = compare(table, "m00", "m01", temperature=0.7)
    assert result.p_value == board.p_values.loc["m00", "m01"]  # one pair: Holm changes nothing
    assert result.preference == pytest.approx(board.preferences.loc["m00", "m01"])
    assert result.win_rate == next(m.win_rate for m in board.methods if m.method == "m00")


@pytest.mark.parametrize(("wins", "number"), [(0, 5), (3, 8), (21, 21), (250, 500), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys_for_whole_numbers(wins, number, confidence):
    expected = binomtest(wins, number).proportion_ci(confidence, method="wilson")
    assert wilson(wins / number, number, confidence) == pytest.approx(tuple(expected))


def test_scenes_of_one_alone_are_left_out_and_counted():
    table = results({"a": [3.0, 4.0, None, None], "b": [2.0, None, 1.0, None]})
    result = compare(table, "a", "b")
    assert [scene.scene for scene in result.scenes] == ["s0"]
    assert result.left_out == ("s1", "s2")
    assert np.isnan([result.low, result.high]).all()
    assert result.p_value == 1
    said = " ".join(result.notes)
    assert "1 scene left out: no score of b." in said
    assert "1 scene left out: no score of a." in said
    assert "One scene" in said


@pytest.mark.parametrize(("scenes", "noted"), [(5, True), (6, False)])
def test_too_few_scenes_for_the_test_are_named(scenes, noted):
    ahead = [3.0 + 0.1 * n for n in range(scenes)]
    result = compare(results({"a": ahead, "b": [1.0] * scenes}), "a", "b")
    assert (result.p_value > 0.05) is noted
    assert any("cannot reach p = 0.05" in note for note in result.notes) is noted


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [("A_1", "A_1", "twice"), ("A_1", "C", "'C'"), ("C", "B", "A_1, B, other")],
)
def test_bad_names_are_refused(a, b, word):
    with pytest.raises(InputError, match="Expected") as caught:
        compare(TABLE, a, b)
    assert word in str(caught.value)


def test_methods_without_a_common_scene_are_refused():
    with pytest.raises(InputError, match="share a scene"):
        compare(results({"a": [3.0, None], "b": [None, 3.0]}), "a", "b")


# ------------------------------------------------------------------- printed


def test_markdown():
    result = compare(results({"A_1": [4.0, 3.0, 2.0], "B": [2.0, 2.5, 3.0]}, std=1.0), "A_1", "B")
    text = as_markdown(result, settings=SETTINGS, limit=2)
    assert text == (
        r"""**A\_1 against B on 3 scenes**

|  |  |
| --- | --- |
| A\_1 wins | 66.7 % \[20.8, 93.9\] of scenes |
| difference of means | +0.500 \[-1.000, +2.000\] (3.000 against 2.500) |
| Wilcoxon signed-rank test | p = 0.75 |
| P(A\_1 is better) | 0.600 on average |
| intervals | 95 %, over scenes |

**Scenes, surest for A\_1 first**

| scene | P(A\_1 better) | A\_1 | B |
| --- | ---: | ---: | ---: |
| s0 | 0.921 | 4.000 | 2.000 |
| s1 | 0.638 | 3.000 | 2.500 |

1 more scene not shown.

**Scenes that disagree with the means, surest first: 1 of 3**

| scene | P(A\_1 better) | A\_1 | B |
| --- | ---: | ---: | ---: |
| s2 | 0.240 | 2.000 | 3.000 |

With 3 scenes the test cannot reach p = 0.05, whatever they say; 6 can.

FuScore, 1 (bad) to 5 (excellent); weights fuscore-lite-4, trained on PROXY ratings """
        r"""(classic measures and known degradations), not human ones."""
    )


def test_latex():
    text = as_latex(compare(TABLE, "A_1", "B"), settings=SETTINGS, limit=2)
    assert text.startswith("% FuScore")
    assert STATEMENT in text.splitlines()[0]
    assert r"\caption{A\_1 against B on 6 scenes: A\_1 wins 58.3 \% [" in text
    assert "4 more scenes not shown." in text
    body = text.split("\\midrule\n")[1].split("    \\bottomrule")[0]
    assert body == "    s2 & 1.000 & 5.000 & 2.000 \\\\\n    s4 & 0.998 & 3.000 & 1.000 \\\\\n"


def test_json_has_every_scene():
    read = json.loads(as_json(compare(TABLE, "A_1", "B"), settings=SETTINGS))
    assert read["winner"] == "A_1"
    assert len(read["scenes"]) == 6
    assert read["disagreeing"] == ["s3", "s5"]
    assert read["labels"] == STATEMENT
    single = compare(results({"a": [3.0], "b": [2.0]}), "a", "b")
    assert json.loads(as_json(single, settings={}))["low"] is None


@pytest.mark.parametrize("width", [100, 40])
def test_text_fits_the_terminal(width):
    result = compare(TABLE, "A_1", "B")
    text = shown(as_rich(result, settings=SETTINGS, limit=3), width)
    assert max(map(len, text.splitlines())) <= width
    said = " ".join(text.split())
    assert "A_1 against B on 6 scenes" in said
    assert "58.3 %" in said
    assert "3 more scenes not shown." in said
    assert "disagree with the means, surest first: 2 of 6" in said
    assert STATEMENT in said
