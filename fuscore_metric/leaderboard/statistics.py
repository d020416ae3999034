"""Results table -> leaderboard: means with intervals, ranks, win rates, and which differences hold.

A scene is the unit of everything: some scenes are harder than others for every method, so methods
are compared within scenes, and intervals and tests are over scenes.

How: `fuscore_metric.leaderboard.inference`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from fuscore_metric.leaderboard.inference import (
    Array,
    critical_groups,
    holm,
    known_intervals,
    mean_of_known,
    paired_p_value,
    preference,
)
from fuscore_metric.leaderboard.scenes import (
    choose_scenes,
    held_out_rows,
    learned_scenes,
    numbers,
    pivot,
    training_notes,
)
from fuscore_metric.results.rows import FURTHER_ASPECTS, NAMES, measures_in

CONFIDENCE, ALPHA, RESAMPLES = 0.95, 0.05, 10_000


@dataclass(frozen=True)
class MethodSummary:
    """A line of the leaderboard.

    Attributes:
        method: Its name.
        scenes: Number of scenes that the means are over.
        mean: Mean score, in [1, 5].
        low: Lower end of the bootstrap interval of the mean; NaN for a single scene.
        high: Upper end.
        std: Mean of the model's own standard deviation.
        mean_rank: Mean over scenes of its rank, 1 is best, ties share their ranks' average; NaN if
            there is no other method.
        win_rate: Share of (scene, other method) that it beats, in [0, 1], ties half; NaN likewise.
        groups: Letters of the critical-difference groups it is in, "a" the best. Between
            methods that share a letter no difference was found.
        aspects: Mean score of each further aspect that has numbers.
        measures: Mean of each classic measure of the table, in its order; NaN where a scene that
            counts has none.
    """

    method: str
    scenes: int
    mean: float
    low: float
    high: float
    std: float
    mean_rank: float
    win_rate: float
    groups: str
    aspects: dict[str, float]
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """Methods, best first, and what is known of the differences between them.

    Attributes:
        methods: A line for each, best mean first.
        p_values: Method x method, best first: Holm-adjusted p of the paired test. NaN on the
            diagonal, and for two methods without a common scene.
        preferences: Method x method, best first: mean over common scenes of P(row is better than
            column); 0.5 on the diagonal.
        groups: Names of the methods of each critical-difference group, in order of mean rank:
            maximal runs in which no two differ. A method that differs from all is a group alone.
        scenes: The scenes that count: those that every method has, if `paired`.
        left_out: Scenes that do not count, and which methods have no score there.
        notes: Sentences for the reader: what was left out, what cannot be concluded.
        confidence: Of the intervals, such as 0.95.
        resamples: Bootstrap resamples.
        alpha: Level of the tests.
        paired: Whether all means are over the same scenes. If not, only pairs of methods are.
        in_training: Those of the scenes that the weights learned from, as far as that is known.
    """

    methods: tuple[MethodSummary, ...]
    p_values: pd.DataFrame
    preferences: pd.DataFrame
    groups: tuple[tuple[str, ...], ...]
    scenes: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    confidence: float
    resamples: int
    alpha: float
    paired: bool
    in_training: tuple[str, ...] = ()


def leaderboard(
    table: pd.DataFrame,
    *,
    temperature: float = 1.0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
    seed: int = 0,
    held_out: bool = False,
) -> Leaderboard:
    """Rank the methods of a results table.

    Only scenes where every method has a score count: a method that failed on the hard scenes
    would otherwise have the better mean. If fewer than two scenes are left of several, each mean is
    over the method's own scenes instead, and ranks, win rates, tests and preferences compare two
    methods at a time on the scenes that both have; `paired` is then False and there is a note about
    it. Methods without any score are left out first.

    Args:
        table: Columns `scene`, `method`, `score` (missing where scoring failed), `std`, and any
            aspects and classic measures; one row for each (scene, method), in any order.
        temperature: T of P(a better than b), from the settings of the run.
        confidence: Of the intervals, in (0, 1).
        resamples: Bootstrap resamples.
        alpha: Level of the tests, in (0, 1).
        seed: Of the bootstrap.
        held_out: Whether only scenes count that the weights are known not to have learned from.

    Returns:
        The `Leaderboard`; it does not depend on the order of the rows.

    Raises:
        InputError: The table has no scores, lacks columns, or has a (scene, method) twice; or no
            scene is known to be held out.
        ValueError: An option is out of range.
    """
    check_options(temperature, confidence, resamples)
    learned = learned_scenes(table)
    if held_out:
        table = held_out_rows(table, learned)
    if not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` between 0 and 1, got {alpha}")
    scores, stds = pivot(table)
    design = choose_scenes(scores)
    scores = scores.loc[list(design.scenes)]
    means = scores.mean().dropna()  # a method without any score has none
    best_first = sorted(means.index, key=lambda name: (-means[name], name))
    scores = scores[best_first]
    stds = stds.loc[scores.index, best_first]

    p_values = _all_p_values(scores)
    beats = _pairwise(scores, stds, lambda difference, _: (np.sign(difference) + 1) / 2)
    preferences = _pairwise(
        scores, stds, lambda difference, variance: preference(difference, variance, temperature)
    )
    np.fill_diagonal(preferences, 0.5)
    win_rates = mean_of_known(beats.T)  # the diagonal is NaN, so each is over the others
    # Over common scenes this is the usual mean rank: 1, and 1 more for each better method, half for
    # ties. Written so, it also exists where methods have different scenes. Rounded, because equal
    # ranks must not differ by the order of additions.
    mean_ranks = np.round(1 + (len(best_first) - 1) * (1 - win_rates), 9)
    by_rank = sorted(range(len(best_first)), key=lambda n: (np.nan_to_num(mean_ranks[n]), n))
    groups = critical_groups(by_rank, p_values <= alpha)
    letters = _letters(groups, len(best_first))
    low, high = known_intervals(
        scores.to_numpy().T, confidence=confidence, resamples=resamples, seed=seed
    )
    aspects = _aspect_means(table, scores)
    measures = _measure_means(table, scores)
    in_training = tuple(name for name in design.scenes if learned.get(name))
    return Leaderboard(
        methods=tuple(
            MethodSummary(
                method=name,
                scenes=int(scores[name].count()),
                mean=float(means[name]),
                low=float(low[n]),
                high=float(high[n]),
                std=float(stds[name].mean()),
                mean_rank=float(mean_ranks[n]),
                win_rate=float(win_rates[n]),
                groups=letters[n],
                aspects=aspects[name],
                measures=measures[name],
            )
            for n, name in enumerate(best_first)
        ),
        p_values=pd.DataFrame(p_values, best_first, best_first),
        preferences=pd.DataFrame(preferences, best_first, best_first),
        groups=tuple(tuple(best_first[n] for n in group) for group in groups),
        scenes=design.scenes,
        left_out=design.left_out,
        notes=(
            *training_notes(learned, len(in_training), len(design.scenes), held_out=held_out),
            *design.notes,
            *_limits(scores, p_values, alpha),
            *_unmeasured(measures),
        ),
        confidence=confidence,
        resamples=resamples,
        alpha=alpha,
        paired=design.paired,
        in_training=in_training,
    )


def check_options(temperature: float, confidence: float, resamples: int) -> None:
    """Refuse options that make no sense; raises ValueError."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"Expected `temperature` to be above 0, got {temperature}")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ValueError(f"Expected `resamples` to be at least 1, got {resamples}")


def _aspect_means(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean of every aspect with numbers, by method, over the scenes whose scores count."""
    found: dict[str, dict[str, float]] = {str(name): {} for name in scores.columns}
    names = [name for name in FURTHER_ASPECTS if name in table.columns]
    rows = _counting(table, scores)
    for aspect in names:
        means = numbers(rows, aspect).groupby(rows["method"]).mean()
        for method, mean in means.dropna().items():
            found[str(method)][aspect] = float(mean)
    return found


def _measure_means(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean of every classic measure with numbers, by method, over the scenes whose scores count.

    NaN where one of a method's scenes has none: a mean over the others cannot be compared.
    """
    found: dict[str, dict[str, float]] = {str(name): {} for name in scores.columns}
    rows = _counting(table, scores)
    for measure in measures_in(table.columns):
        known = numbers(rows, measure).groupby(rows["method"])
        means = known.mean().where(known.count().eq(scores.count()))
        if means.notna().any():
            for method, mean in means.items():
                found[str(method)][measure] = float(mean)
    return found


def _counting(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose scores count."""
    rows = table.astype(dict.fromkeys(NAMES, str))
    return rows[rows["scene"].isin(scores.index) & rows["score"].notna()]


def _unmeasured(measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence on the means of measures that do not exist."""
    lacking = {
        method: [name for name, mean in means.items() if math.isnan(mean)]
        for method, means in measures.items()
    }
    told = [f"{method} ({', '.join(names)})" for method, names in lacking.items() if names]
    if not told:
        return []
    return [f"No mean of a classic measure where not every scene has it: {', '.join(told)}."]


def _all_p_values(scores: pd.DataFrame) -> Array:
    """(M, M) Holm-adjusted p of every pair; NaN on the diagonal and where no scene is shared."""
    values = scores.to_numpy().T  # (M, S)
    found = np.full((len(values), len(values)), np.nan)
    pairs = list(combinations(range(len(values)), 2))
    single = np.full(len(pairs), np.nan)
    for n, (a, b) in enumerate(pairs):
        difference = values[a] - values[b]
        shared = difference[np.isfinite(difference)]
        if len(shared):
            single[n] = paired_p_value(shared)
    for (a, b), p in zip(pairs, holm(single), strict=True):
        found[a, b] = found[b, a] = p
    return found


def _letters(groups: Sequence[Sequence[int]], methods: int) -> list[str]:
    """Letters of each method's groups; numbers if there are more groups than letters."""
    enough = len(groups) <= len(string.ascii_letters)
    names = string.ascii_letters if enough else [str(n + 1) for n in range(len(groups))]
    between = "" if enough else ","
    return [
        between.join(name for name, group in zip(names, groups, strict=False) if n in group)
        for n in range(methods)
    ]


def _pairwise(
    scores: pd.DataFrame, stds: pd.DataFrame, function: Callable[[Array, Array], Array]
) -> Array:
    """Mean over common scenes of a function of score difference and summed variance: (M, M).

    NaN on the diagonal and where no scene is shared.
    """
    values, variances = scores.to_numpy(), stds.to_numpy() ** 2  # (S, M)
    found = np.empty((values.shape[1], values.shape[1]))
    for n in range(len(found)):  # a row at a time: (S, M, M) would not always fit into memory
        difference = values[:, [n]] - values
        found[n] = mean_of_known(function(difference, variances[:, [n]] + variances))
    np.fill_diagonal(found, np.nan)
    return found


def _limits(scores: pd.DataFrame, p_values: Array, alpha: float) -> list[str]:
    """Sentences on what these scenes cannot show."""
    methods = scores.shape[1]
    there = scores.notna().to_numpy().astype(int)
    common = there.T @ there  # (M, M) scenes that two methods share
    if methods == 1:
        single = "There is one method only, so no ranks and no tests."
        return [single] if common.max() > 1 else [single, "One scene gives no interval."]
    scenes = int(common[np.triu_indices(methods, 1)].max())
    notes = []
    if scenes == 1:
        notes.append(
            "One scene gives no intervals, and no test finds a difference: nothing here need hold "
            "on another scene."
        )
    upper = p_values[np.triu_indices(methods, 1)]
    if np.isnan(upper).any():
        notes.append(
            f"{int(np.isnan(upper).sum())} of {len(upper)} pairs of methods share no scene and "
            "cannot be compared; in the groups they count as not different."
        )
    tests = int(np.isfinite(upper).sum())
    # Wilcoxon's smallest p is that of scenes which all agree; Holm's first step times the tests.
    needed = math.ceil(1 + math.log2(tests / alpha)) if tests else 0
    if 1 < scenes < needed:
        notes.append(
            f"With {scenes} scenes no difference can be found real: {tests} "
            f"test{'s' if tests > 1 else ''} at level {alpha:g} "
            f"need{'' if tests > 1 else 's'} at least {needed} scenes. That none is marked is no "
            "sign of equality."
        )
    return notes
