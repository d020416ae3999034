"""Means, ranks, win rates, groups and which scenes count, by exact numbers in any order."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from fuscore_metric import InputError
from fuscore_metric.leaderboard.statistics import leaderboard
from tests.helpers.results_tables import random_results, results, summary


def test_means_ranks_and_win_rates_with_ties():
    board = leaderboard(results({"a": [4, 3, 5, 2], "b": [4, 2, 4, 4], "c": [1, 2, 5, 1]}))
    a, b, c = (summary(board, name) for name in "abc")
    assert [line.method for line in board.methods] == ["a", "b", "c"]  # equal means: by name
    assert (a.mean, b.mean, c.mean) == (3.5, 3.5, 2.25)
    # Ranks by scene: a 1.5 1 1.5 2, b 1.5 2.5 3 1, c 3 2.5 1.5 3.
    assert (a.mean_rank, b.mean_rank, c.mean_rank) == (1.5, 2.0, 2.5)
    # Of 8 (scene, other): a beats 5 and ties 2.
    assert (a.win_rate, b.win_rate, c.win_rate) == (0.75, 0.5, 0.25)
    assert {line.scenes for line in board.methods} == {4}
    assert board.scenes == ("s0", "s1", "s2", "s3")
    assert board.paired
    assert a.std == 0.5


def test_mean_ranks_are_those_of_scipy():
    table = random_results(0, scenes=12, methods=5)
    table["score"] = table["score"].round(1)  # ties
    by_scene = table.pivot(index="scene", columns="method", values="score")
    expected = dict(zip(by_scene.columns, rankdata(-by_scene, axis=1).mean(axis=0), strict=True))
    found = {line.method: line.mean_rank for line in leaderboard(table).methods}
    assert found == pytest.approx(expected)


def test_aspects_that_have_numbers_have_means():
    table = results(
        {"a": [4, 3], "b": [2, 1]}, sharpness=[4.5, 3.5, 2.5, 1.5], artifacts=[None] * 4
    )
    board = leaderboard(table)
    assert summary(board, "a").aspects == {"sharpness": 4.0}
    assert summary(board, "b").aspects == {"sharpness": 2.0}


def test_only_scenes_of_every_method_count():
    # b failed where all are bad: over its own scenes it would lead.
    table = results(
        {"a": [5, 4, 1, 1], "b": [4, 3, None, 4]}, sharpness=[5, 4, 1, 1, 4, 3, None, 4]
    )
    board = leaderboard(table)
    assert board.scenes == ("s0", "s1", "s3")
    assert board.left_out == {"s2": ("b",)}
    assert summary(board, "a").mean == pytest.approx(10 / 3)
    assert summary(board, "a").aspects["sharpness"] == pytest.approx(10 / 3)
    assert summary(board, "a").win_rate == pytest.approx(2 / 3)
    assert board.paired
    assert any("1 scene of 4 left out" in note and "b (1)" in note for note in board.notes)
    # A row that is not there is like a row without a score.
    absent = table.dropna(subset="score")
    assert json_of(leaderboard(absent)) == json_of(board)


def test_methods_to_drop_for_more_scenes_are_named():
    nothing = [None]
    table = results(
        {
            "a": [1.0, 2, 3, 4, 5],
            "b": [2.0, 2, 2, 2, 2],
            "c": [3.0, 3, 3, 3, *nothing],
            "d": [1.0, 1, *(3 * nothing)],
        }
    )
    (note,) = (note for note in leaderboard(table).notes if "left out" in note)
    assert "without d, 4 scenes; without d and c, 5 scenes would count" in note
    few = table[(table["method"] != "d") | (table["scene"] == "s0")]
    assert any("without d, 4 scenes" in note for note in leaderboard(few).notes)
    pair = table[table["method"].isin(["a", "d"])]
    assert not any("won back" in note for note in leaderboard(pair).notes)


@pytest.mark.parametrize("shared", [0, 1])
def test_without_common_scenes_two_methods_are_compared_at_a_time(shared):
    nothing = [None] * 4
    a, b, c = [5, 4, 5, 4], [4, 3, 4, 3], [1, 2, 1, 2]
    scores = {"a": a + nothing, "b": b + b, "c": nothing + c}
    if shared:
        scores = {name: [*found, 3] for name, found in scores.items()}
    board = leaderboard(results(scores))
    assert not board.paired
    assert len(board.scenes) == 8 + shared
    assert board.left_out == {}
    assert summary(board, "a").scenes == 4 + shared
    assert summary(board, "b").scenes == 8 + shared
    assert summary(board, "a").mean == pytest.approx((18 + 3 * shared) / (4 + shared))
    assert any("NOT COMPARABLE" in note for note in board.notes)
    assert board.preferences.loc["a", "b"] > 0.5
    if not shared:
        assert np.isnan(board.p_values.loc["a", "c"])
        assert np.isnan(board.preferences.loc["a", "c"])
        assert summary(board, "a").win_rate == 1  # over b alone
        assert summary(board, "b").win_rate == 0.5
        assert any("1 of 3 pairs" in note for note in board.notes)


def test_a_method_without_any_score_does_not_cost_the_others_their_scenes():
    board = leaderboard(results({"a": [3, 4], "broken": [None, None], "b": [2, 3]}))
    assert [line.method for line in board.methods] == ["a", "b"]
    assert board.scenes == ("s0", "s1")
    assert any("no score at all: broken" in note for note in board.notes)


def test_one_method_has_a_mean_and_no_rank():
    board = leaderboard(results({"only": [3, 4, 5]}))
    (line,) = board.methods
    assert line.mean == 4
    assert line.low < 4 < line.high
    assert np.isnan(line.mean_rank)
    assert np.isnan(line.win_rate)
    assert board.groups == (("only",),)
    assert any("one method only" in note for note in board.notes)


def test_one_scene_has_ranks_and_no_interval():
    board = leaderboard(results({"a": [3], "b": [4]}))
    assert [(line.method, line.mean, line.mean_rank) for line in board.methods] == [
        ("b", 4, 1),
        ("a", 3, 2),
    ]
    assert np.isnan([line.low for line in board.methods]).all()
    assert board.groups == (("b", "a"),)
    assert any("One scene" in note for note in board.notes)


def test_too_few_scenes_for_any_difference_are_named():
    # 300 tests: 2 / 2^13 x 300 = 0.073, 2 / 2^14 x 300 = 0.037.
    for scenes, can in ((5, False), (13, False), (14, True)):
        board = leaderboard(random_results(5, scenes, methods=25, spread=1.0), resamples=50)
        noted = any("no difference can be found real" in note for note in board.notes)
        assert noted is not can
        assert (np.nanmin(board.p_values) <= 0.05) is np.bool_(can)
    assert "300 tests at level 0.05 need at least 14 scenes" in "".join(
        leaderboard(random_results(5, 5, 25), resamples=50).notes
    )


def test_more_groups_than_letters_have_numbers():
    board = leaderboard(random_results(6, scenes=20, methods=60, spread=2.0), resamples=50)
    assert len(board.groups) == 60
    assert board.methods[0].groups == "1"
    assert board.methods[-1].groups == "60"


def json_of(board) -> str:
    from fuscore_metric.leaderboard.tables import as_json

    return as_json(board, settings={})


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 5))
def test_the_order_of_rows_changes_nothing(seed, scenes, methods):
    table = random_results(seed, scenes, methods)
    table.loc[table.sample(frac=0.1, random_state=seed).index, ["score", "std"]] = None
    shuffled = table.sample(frac=1, random_state=seed).reset_index(drop=True)
    assert json_of(leaderboard(shuffled, resamples=100)) == json_of(
        leaderboard(table, resamples=100)
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 1))
def test_a_constant_added_to_all_scores_changes_only_the_means(seed, constant):
    table = random_results(seed, scenes=10, methods=4)
    board = leaderboard(table, resamples=200)
    moved = leaderboard(table.assign(score=table["score"] + constant), resamples=200)
    for before, after in zip(board.methods, moved.methods, strict=True):
        assert (before.method, before.mean_rank, before.win_rate, before.groups) == (
            after.method,
            after.mean_rank,
            after.win_rate,
            after.groups,
        )
        for name in ("mean", "low", "high"):
            assert getattr(after, name) == pytest.approx(getattr(before, name) + constant)
    pd.testing.assert_frame_equal(board.p_values, moved.p_values)
    pd.testing.assert_frame_equal(board.preferences, moved.preferences)


def test_other_names_give_the_same_numbers():
    table = random_results(7, scenes=15, methods=4, spread=0.15)
    names = {"m00": "z", "m01": "y", "m02": "x", "m03": "w"}
    board = leaderboard(table, resamples=200)
    renamed = leaderboard(table.replace({"method": names}), resamples=200)
    for before, after in zip(board.methods, renamed.methods, strict=True):
        assert names[before.method] == after.method
        assert (before.low, before.high, before.groups) == (after.low, after.high, after.groups)
    assert board.p_values.to_numpy() == pytest.approx(renamed.p_values.to_numpy(), nan_ok=True)


def test_win_rates_average_to_a_half_and_ranks_to_the_middle():
    board = leaderboard(random_results(8, scenes=9, methods=6))
    assert np.mean([line.win_rate for line in board.methods]) == pytest.approx(0.5)
    assert np.mean([line.mean_rank for line in board.methods]) == pytest.approx(3.5)


def test_500_scenes_of_40_methods_take_seconds():
    table = random_results(9, scenes=500, methods=40, spread=0.005)
    start = time.process_time()
    board = leaderboard(table)
    assert time.process_time() - start < 6  # 0.6 s on one free core
    assert len(board.methods) == 40


GOOD = results({"a": [3, 4], "b": [2, 1]})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (GOOD.drop(columns="score"), ["column", "score"]),
        (GOOD.drop(columns=["scene", "std"]), ["scene, std"]),
        (pd.concat([GOOD, GOOD.tail(1)]), ["several", "'s1'", "'b'"]),
        (GOOD.assign(score=None), ["scores", "none at all"]),
        (GOOD.head(0), ["scores", "none at all"]),
        (GOOD.assign(score=["good", 1, 2, 3]), ["numbers", "score"]),
        (GOOD.assign(score=[np.inf, 1, 2, 3]), ["finite", "score"]),
        (GOOD.assign(std=None), ["std beside every score"]),
        (GOOD.assign(method=[None, "a", "b", "b"]), ["method in every row"]),
    ],
)
def test_bad_tables_are_refused_in_one_line(table, words):
    with pytest.raises(InputError) as caught:
        leaderboard(table)
    message = str(caught.value)
    assert message.startswith("Expected")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 0),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("confidence", 1),
        ("confidence", 95),
        ("alpha", 0),
        ("alpha", 1.5),
        ("resamples", 0),
    ],
)
def test_bad_options_are_refused(option, value):
    with pytest.raises(ValueError, match=f"Expected `{option}`"):
        leaderboard(GOOD, **{option: value})


def test_names_that_look_like_numbers_stay_names():
    table = GOOD.assign(scene=[1, 2, 1, 2])  # as pandas reads a CSV of scenes 1, 2
    assert leaderboard(table).scenes == ("1", "2")


def test_statistics_do_not_need_torch_and_the_package_needs_nothing():
    probe = (
        "import json, sys; import fuscore_metric.leaderboard as l; early = set(sys.modules);"
        "l.leaderboard, l.compare, l.Leaderboard, l.MethodSummary, l.Comparison;"
        "print(json.dumps([sorted(early), sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    early, late = map(set, json.loads(done.stdout))
    assert not early & {"torch", "pandas", "scipy", "numpy"}
    assert {"pandas", "scipy"} <= late
    assert "torch" not in late
