"""Agreement with targets: scipy, hand-computed goldens, intervals over scenes, undefined cases."""

import json
import math
import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from fuscore_training.evaluate import MIN_POINTS, SPECIAL_SCENES, evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=10)
NAN, INF = float("nan"), float("inf")
STATISTICS = [
    "srcc",
    "plcc",
    "krcc",
    "within_srcc",
    "within_krcc",
    "method_srcc",
    "pairwise_accuracy",
]

# Two scenes of three methods, worked out by hand.
GOLDEN = {
    "predictions": [1.0, 2.0, 3.0, 3.0, 1.0, 2.0],
    "targets": [1.0, 2.0, 4.0, 2.0, 3.0, 5.0],
    "scenes": ["s", "s", "s", "t", "t", "t"],
    "methods": ["a", "b", "c", "a", "b", "c"],
}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sample(n_scenes=12, n_methods=4, seed=0, levels=None):
    """Predictions that follow the targets loosely; `levels` rounds both, for ties."""
    generator = np.random.default_rng(seed)
    targets = generator.uniform(1, 5, n_scenes * n_methods)
    predictions = targets + generator.normal(size=targets.size)
    if levels:
        targets, predictions = np.round(targets * levels), np.round(predictions * levels)
    scenes = np.repeat(np.arange(n_scenes), n_methods)
    return predictions, targets, scenes, np.tile(np.arange(n_methods), n_scenes)


def values_of(evaluation):
    return {name: one.value for name, one in evaluation.statistics().items()}


def test_golden():
    assert values_of(evaluate(**GOLDEN, n_boot=0)) == pytest.approx(
        {
            # Ranks 1.5 3.5 5.5 5.5 1.5 3.5 and 1 2.5 5 2.5 4 6: sums of squares 16 and 17, of
            # products 5 about the means 3.5.
            "srcc": 5 / math.sqrt(16 * 17),
            # Sums of squares 4 and 65/6, of products 2 about the means 2 and 17/6.
            "plcc": 2 / math.sqrt(4 * 65 / 6),
            # Of 15 pairs, 3 tie in the predictions and 1 in the targets; 7 agree, 4 do not.
            "krcc": 3 / math.sqrt(12 * 14),
            "within_srcc": (1 - 0.5) / 2,
            "within_krcc": (1 - 1 / 3) / 2,
            # Means 2, 1.5, 2.5 and 1.5, 2.5, 4.5: ranks 2 1 3 and 1 2 3.
            "method_srcc": 0.5,
            "pairwise_accuracy": 4 / 6,
        }
    )


def test_min_gap_leaves_close_pairs_out():
    # Gaps: s has 1, 2, 3, all ordered rightly; t has 1 and 3 ordered wrongly, 2 rightly.
    shares = {0.0: (4, 6), 1.0: (4, 6), 1.5: (3, 4), 2.5: (1, 2), 3.5: (None, 0)}
    for gap, (right, pairs) in shares.items():
        one = evaluate(**GOLDEN, n_boot=0, min_gap=gap).pairwise_accuracy
        assert one.count == pairs
        assert one.value == right / pairs if pairs else math.isnan(one.value)


def test_min_gap_is_not_foiled_by_rounding():
    one = evaluate([1, 2], [2.8, 3.3], "ss", "ab", n_boot=0, min_gap=0.5).pairwise_accuracy
    assert 3.3 - 2.8 > 0.5 - 1e-9
    assert (one.value, one.count) == (1.0, 1)
    one = evaluate([1, 2], [1.1, 1.4], "ss", "ab", n_boot=0, min_gap=0.3).pairwise_accuracy
    assert 1.4 - 1.1 < 0.3
    assert (one.value, one.count) == (1.0, 1)


def test_ties_in_the_predictions_count_half_and_in_the_targets_not_at_all():
    one = evaluate([1, 1, 2], [1, 2, 2], "sss", "abc", n_boot=0).pairwise_accuracy
    assert (one.value, one.count) == (0.75, 2)


@DETERMINISTIC
@given(st.integers(0, 10**6), st.sampled_from([None, 1, 3]))
def test_agrees_with_scipy(seed, levels):
    x, y, scenes, methods = sample(seed=seed, levels=levels)
    found = values_of(evaluate(x, y, scenes, methods, n_boot=0))
    assert found["srcc"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found["plcc"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["krcc"] == pytest.approx(stats.kendalltau(x, y, variant="b").statistic)
    for name, measure in (("within_srcc", stats.spearmanr), ("within_krcc", stats.kendalltau)):
        inside = [(x[scenes == s], y[scenes == s]) for s in range(12)]
        each = [
            0.0 if np.ptp(own) == 0 else measure(own, target).statistic
            for own, target in inside
            if np.ptp(target) > 0
        ]
        assert found[name] == pytest.approx(np.mean(each))
    means = [[z[methods == m].mean() for m in range(4)] for z in (x, y)]
    if min(map(np.ptp, means)) > 0:
        assert found["method_srcc"] == pytest.approx(stats.spearmanr(*means).statistic)


@DETERMINISTIC
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-100, 100))
def test_only_the_order_matters_and_not_the_scale(seed, scale, shift):
    x, y, scenes, methods = sample(seed=seed, levels=4)
    found = values_of(evaluate(x, y, scenes, methods, n_boot=0))
    moved = values_of(evaluate(x * scale + shift, y, scenes, methods, n_boot=0))
    turned = values_of(evaluate(-x, y, scenes, methods, n_boot=0))
    bent = values_of(evaluate(np.exp(x / 8), y, scenes, methods, n_boot=0))
    assert moved == pytest.approx(found, abs=1e-9)
    for name, value in found.items():
        assert turned[name] == pytest.approx(1 - value if name == "pairwise_accuracy" else -value)
        if name not in ("plcc", "method_srcc"):
            assert bent[name] == pytest.approx(value)


@DETERMINISTIC
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_row_order_does_not_matter(seed, random):
    columns = sample(seed=seed)
    order = list(range(columns[0].size))
    random.shuffle(order)
    shuffled = evaluate(*(column[order] for column in columns), n_boot=0)
    assert values_of(shuffled) == pytest.approx(values_of(evaluate(*columns, n_boot=0)))


@DETERMINISTIC
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_any_finite_prediction_gives_a_number_in_range_or_a_reason(predictions):
    found = evaluate(**GOLDEN | {"predictions": predictions}, n_boot=20)
    for name, one in found.statistics().items():
        assert math.isnan(one.value) or (name != "pairwise_accuracy") * -1 <= one.value <= 1
        assert not math.isnan(one.value) or one.reason
        assert math.isnan(one.low) == math.isnan(one.high)
        assert not math.isnan(one.low) or one.reason


def test_interval_is_that_of_copied_scenes():
    """Each resample, with its scenes copied out row by row, gives the value that was used."""
    x, y, scenes, methods = sample(n_scenes=6, levels=2)
    n_boot = 25
    values = {name: [] for name in STATISTICS}
    for copies in np.random.default_rng(5).multinomial(6, [1 / 6] * 6, n_boot):
        parts = [s for s, n in enumerate(copies) for _ in range(n)]
        rows = np.concatenate([np.flatnonzero(scenes == s) for s in parts])
        names = np.repeat(np.arange(len(parts)), 4)
        for name, value in values_of(evaluate(x[rows], y[rows], names, methods, n_boot=0)).items():
            values[name].append(value)
    for name, one in evaluate(*(x, y, scenes, methods), n_boot=n_boot, seed=5).statistics().items():
        low, high = np.nanquantile(values[name], [0.025, 0.975])
        assert (one.low, one.high) == pytest.approx((low, high)), name


def test_intervals_follow_the_seed_and_nothing_else():
    columns = sample()
    one = evaluate(*columns, n_boot=100)
    assert one.to_json() == evaluate(*columns, n_boot=100, seed=0).to_json()
    other = evaluate(*columns, n_boot=100, seed=1)
    assert values_of(one) == values_of(other)
    assert all(
        one.statistics()[name].low != other.statistics()[name].low for name in ("srcc", "plcc")
    )


def test_interval_holds_the_value_and_grows_with_confidence():
    columns = sample(n_scenes=20)
    wide, narrow = (evaluate(*columns, n_boot=100, confidence=c).srcc for c in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_resampling_is_over_scenes_and_not_rows():
    # Scenes that agree wholly or not at all: rows would average out, scenes do not.
    scenes = np.repeat(np.arange(10), 30)
    targets = np.tile(np.arange(30.0), 10)
    predictions = np.where(scenes % 2, targets, -targets)
    one = evaluate(predictions, targets, scenes, targets, n_boot=200).within_srcc
    assert one.value == pytest.approx(0)
    assert one.high - one.low > 0.8


def test_scenes_left_out_of_the_means_are_counted():
    columns = {
        "predictions": [1, 2, 3, 1, 2, 1, 2, 3, 1, 1, 1],
        "targets": [1, 2, 3, 1, 2, 4, 4, 4, 1, 2, 3],
        "scenes": list("aaabbcccddd"),
        "methods": list("xyzxyxyzxyz"),
    }
    found = evaluate(**columns, n_boot=0)
    assert [found.counts[name] for name in SPECIAL_SCENES] == [1, 1, 1]
    assert (found.counts["rows"], found.counts["scenes"], found.counts["methods"]) == (11, 4, 3)
    assert found.within_srcc.count == 2
    assert found.within_srcc.value == pytest.approx(0.5)  # a is 1, d counts as 0
    # All 7 pairs of a, b and d take part, the 3 of d as ties.
    assert found.pairwise_accuracy.value == pytest.approx((3 + 1 + 1.5) / 7)


def test_methods_of_one_scene_do_not_take_part():
    columns = {
        "predictions": [1, 2, 3, 1, 2, 3, 9],
        "targets": [1, 2, 3, 1, 2, 3, 0],
        "scenes": list("sssttts"),
        "methods": list("abcabcd"),
    }
    one = evaluate(**columns, n_boot=0).method_srcc
    assert (one.value, one.count, one.unit) == (pytest.approx(1), 3, "methods")


def test_equal_means_tie_whatever_the_order_of_their_sum():
    scores = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.3, 0.4, 0.5], [0.5, 0.6, 0.7]])
    assert scores[0].sum() != scores[1].sum()
    targets = np.repeat([1.0, 2.0, 3.0, 4.0], 3)
    scenes, methods = np.tile(np.arange(3), 4), np.repeat(np.arange(4), 3)
    found = evaluate(scores.ravel(), targets, scenes, methods, n_boot=0).method_srcc.value
    assert found == pytest.approx(stats.spearmanr([1, 1, 2, 3], [1, 2, 3, 4]).statistic)


def test_constant_predictions_are_undefined_and_not_a_crash():
    found = evaluate(**GOLDEN | {"predictions": [3.0] * 6})
    content = json.loads(found.to_json())
    for name in STATISTICS[:-1]:
        assert content[name]["value"] is content[name]["low"] is content[name]["high"] is None
        assert "constant predictions" in content[name]["reason"]
    assert content["pairwise_accuracy"]["value"] == 0.5


def test_constant_targets_are_undefined():
    content = json.loads(evaluate(**GOLDEN | {"targets": [3.0] * 6}).to_json())
    assert all(content[name]["value"] is None for name in STATISTICS)
    assert "constant targets" in content["srcc"]["reason"]
    assert "varied targets" in content["within_srcc"]["reason"]
    assert "targets far enough apart" in content["pairwise_accuracy"]["reason"]


@pytest.mark.parametrize(
    ("rows", "n_boot", "name", "reason"),
    [
        (1, 100, "srcc", "fewer than 3 rows"),
        (2, 100, "krcc", "fewer than 3 rows"),
        (2, 100, "method_srcc", "fewer than 3 methods in 2 scenes"),
        (3, 100, "srcc", "no interval: 1 scenes"),
        (6, 0, "srcc", "no interval: 2 scenes, defined in 0/0 resamples"),
    ],
)
def test_too_little_data(rows, n_boot, name, reason):
    found = evaluate(*(column[:rows] for column in GOLDEN.values()), n_boot=n_boot)
    one = found.statistics()[name]
    assert reason in one.reason
    assert math.isnan(one.value) == (rows < MIN_POINTS)
    assert math.isnan(one.low)


def test_json_holds_every_field():
    found = evaluate(*sample(), n_boot=10, min_gap=0.5, confidence=0.9, seed=3)
    content = json.loads(found.to_json())
    assert list(content) == [*STATISTICS, "counts", "settings"]
    assert content["settings"] == {"n_boot": 10, "confidence": 0.9, "min_gap": 0.5, "seed": 3}
    assert content["srcc"] == {
        "value": found.srcc.value,
        "low": found.srcc.low,
        "high": found.srcc.high,
        "count": 48,
        "unit": "rows",
        "reason": "",
    }


def test_table_is_plain_markdown(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    lines = evaluate(**GOLDEN | {"predictions": [3.0] * 6}).to_table().splitlines()
    assert lines[0].split("|")[1:4] == [" statistic         ", " value ", " 95 % interval  "]
    assert set(lines[1]) == {"|", "-"}
    names = [line.split("|")[1].strip() for line in lines[2:9]]
    assert names == STATISTICS
    assert len({len(line) for line in lines[:9]}) == 1
    assert "| 6 rows " in lines[2]
    assert "constant predictions" in lines[2]
    assert lines[-1].startswith("rows 6, scenes 2, methods 3, ")


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        evaluate(**GOLDEN, n_boot=0).srcc = None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"predictions": [1, 2, NAN, 4, INF, 6]},
            r"predictions without NaN.*nan at index 2 \(2 such",
        ),
        ({"predictions": [1, 2, 3, 4, 5, -INF]}, "predictions without NaN.*-inf at index 5"),
        ({"targets": [NAN, 2, 3, 4, 5, 6]}, "targets without NaN.*nan at index 0"),
        ({"scenes": ["s", "s", None, "t", "t", "t"]}, "scenes without.*gaps.*at index 2"),
        ({"methods": [NAN, "b", "c", "a", "b", "c"]}, "methods without.*gaps.*at index 0"),
        ({"predictions": [1, 2]}, r"as many predictions, targets.*\[2, 6, 6, 6\]"),
        ({"methods": ["a"]}, r"\[6, 6, 6, 1\]"),
        ({name: [] for name in GOLDEN}, r"at least 1, got \[0, 0, 0, 0\]"),
        ({"predictions": [[1.0]] * 6}, "1-dim"),
        ({"n_boot": -1}, "n_boot >= 0.*got -1"),
        ({"confidence": 0.0}, r"confidence in \(0, 1\).*0\.0"),
        ({"confidence": 1.0}, r"confidence in \(0, 1\).*1\.0"),
        ({"confidence": NAN}, r"confidence in \(0, 1\).*nan"),
        ({"min_gap": -0.5}, "min_gap >= 0.*-0.5"),
        ({"min_gap": NAN}, "min_gap >= 0.*nan"),
        ({"seed": -1}, "non-negative"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(ValueError, match=words):
        evaluate(**GOLDEN | {"n_boot": 0} | change)
