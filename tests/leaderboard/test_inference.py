"""Tests, corrections, groups, preferences and intervals, held to scipy and to exact numbers."""

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from fuscore_metric import levels
from fuscore_metric.leaderboard.inference import (
    critical_groups,
    holm,
    mean_interval,
    paired_p_value,
    preference,
)
from fuscore_metric.leaderboard.statistics import leaderboard
from tests.helpers.results_tables import random_results, results, summary


def test_holm_on_a_textbook_example():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])  # never above 1
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_was_not_tested():
    assert holm([0.02, np.nan, 0.04]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_single_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values)) + 1e-15).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ([], [[0, 1, 2, 3]]),
        ([(0, 3)], [[0, 1, 2], [1, 2, 3]]),
        ([(0, 2), (0, 3), (1, 3)], [[0, 1], [1, 2], [2, 3]]),
        ([(0, 1), (0, 2), (0, 3)], [[0], [1, 2, 3]]),
        ([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], [[0], [1], [2], [3]]),
        # 1 and 2 differ, so the run ends between them although 0 and 2 do not differ.
        ([(1, 2)], [[0, 1], [2, 3]]),
    ],
)
def test_groups_are_maximal_runs_without_a_difference(differing, expected):
    differ = np.zeros((4, 4), dtype=bool)
    for a, b in differing:
        differ[a, b] = differ[b, a] = True
    assert critical_groups(range(4), differ) == expected
    # Named otherwise, they are the same groups.
    names = [2, 0, 3, 1]
    renamed = np.zeros_like(differ)
    renamed[np.ix_(names, names)] = differ
    assert critical_groups(names, renamed) == [[names[n] for n in group] for group in expected]


def test_p_values_are_scipys_with_holm():
    table = random_results(1, scenes=20, methods=3, spread=0.12)
    board = leaderboard(table)
    scores = {name: rows["score"].to_numpy() for name, rows in table.groupby("method")}
    pairs = [("m00", "m01"), ("m00", "m02"), ("m01", "m02")]
    expected = holm([wilcoxon(scores[a], scores[b]).pvalue for a, b in pairs])
    found = [board.p_values.loc[a, b] for a, b in pairs]
    assert found == pytest.approx(expected, rel=1e-12)
    assert np.isnan(np.diag(board.p_values)).all()
    assert board.p_values.equals(board.p_values.T)


def test_letters_say_which_differences_were_found():
    low = [2.0 + 0.01 * n for n in range(20)]
    near = [2.1 + 0.01 * n + (0.15 if n % 2 else -0.2) for n in range(20)]  # p of about 0.1
    board = leaderboard(results({"best": [x + 2 for x in low], "low": low, "near": near}))
    assert board.p_values.loc["best", "low"] < 0.05 < board.p_values.loc["low", "near"]
    assert summary(board, "best").groups == "a"
    assert summary(board, "low").groups == summary(board, "near").groups == "b"
    assert board.groups[0] == ("best",)
    assert set(board.groups[1]) == {"low", "near"}


def test_equal_methods_have_p_1_and_share_the_rank():
    board = leaderboard(results({"a": [3, 4, 2, 5, 1, 3], "b": [3, 4, 2, 5, 1, 3]}))
    assert board.p_values.loc["a", "b"] == 1
    assert {line.mean_rank for line in board.methods} == {1.5}
    assert {line.win_rate for line in board.methods} == {0.5}
    assert board.groups == (("a", "b"),)


def test_p_value_drops_scenes_without_a_difference():
    differences = np.array([0.3, -0.1, 0.5, 0.7, 0.2, 0.9])
    expected = wilcoxon(differences, method="exact").pvalue
    assert paired_p_value(np.concatenate([differences, np.zeros(9)])) == expected
    assert paired_p_value(np.zeros(4)) == 1
    # All six agree: 2 of 64 signs are as extreme.
    assert paired_p_value(np.abs(differences)) == pytest.approx(2 / 64)


def test_p_values_of_tied_sizes_are_quick():
    """Where sizes are tied, scipy's choice for few scenes is all permutations: 0.4 s a pair."""
    rng = np.random.default_rng(0)
    table = results({f"m{n}": list(rng.integers(1, 6, 12)) for n in range(12)})
    start = time.perf_counter()
    leaderboard(table, resamples=100)
    assert time.perf_counter() - start < 5  # 26 s


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_preferences_are_those_of_levels(temperature):
    rng = np.random.default_rng(2)
    a, b = rng.uniform(1, 5, (2, 50))
    va, vb = rng.uniform(0, 2, (2, 50))
    va[0] = vb[0] = 0
    expected = levels.preference(
        *(torch.from_numpy(x) for x in (a, b, va, vb)), temperature=temperature
    )
    found = preference(a - b, va + vb, temperature)
    assert found == pytest.approx(expected.numpy(), abs=1e-12)
    table = results({"a": list(a), "b": list(b)})
    table["std"] = np.sqrt([*va, *vb])
    board = leaderboard(table, temperature=temperature)
    assert board.preferences.loc["a", "b"] == pytest.approx(expected.mean().item())
    assert board.preferences.loc["b", "a"] == pytest.approx(1 - expected.mean().item())
    assert (np.diag(board.preferences) == 0.5).all()


def test_interval_of_a_mean_is_near_the_one_of_theory():
    values = np.random.default_rng(3).normal(3, 0.4, 400)
    (low,), (high,) = mean_interval(values, confidence=0.95, resamples=10_000, seed=0)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    (narrow_low,), (narrow_high,) = mean_interval(values, confidence=0.5, resamples=999, seed=0)
    assert low < narrow_low < values.mean() < narrow_high < high


def test_interval_of_two_scenes_is_known():
    # Means of two draws from {1, 3} are 1, 2, 2 or 3: a quarter each at the ends.
    (low,), (high,) = mean_interval([1.0, 3.0], confidence=0.95, resamples=1000, seed=0)
    assert (low, high) == (1, 3)


def test_interval_of_equal_scores_is_their_value():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        board = leaderboard(results({"a": [3.5] * 8, "b": [2.5] * 8}))
    assert [(line.low, line.high) for line in board.methods] == [(3.5, 3.5), (2.5, 2.5)]


def test_an_interval_does_not_depend_on_what_else_is_computed():
    rows = np.random.default_rng(4).normal(size=(3, 9))
    low, high = mean_interval(rows, confidence=0.9, resamples=500, seed=7)
    alone = mean_interval(rows[1], confidence=0.9, resamples=500, seed=7)
    assert (low[1], high[1]) == pytest.approx((alone[0][0], alone[1][0]))
    other = mean_interval(rows[1], confidence=0.9, resamples=500, seed=8)
    assert other[0][0] != alone[0][0]


def test_of_equal_methods_few_are_called_different():
    """The family-wise error: of 100 tables of pure noise, at most 5 % or so may claim anything."""
    claims = 0
    for seed in range(100):
        table = random_results(seed, scenes=15, methods=4, spread=0.0)
        claims += len(leaderboard(table, resamples=2).groups) > 1
    assert claims <= 11  # 5 expected at most; above 11 in 0.4 % of runs with other seeds
