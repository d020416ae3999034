"""Arrays of scores -> intervals of means, paired tests, groups: what a leaderboard is made of.

- Interval of a mean: percentile bootstrap, scenes drawn with replacement (Efron 1979).
- Test of a difference: Wilcoxon's signed-rank test on the scenes that both methods have, corrected
  for the number of pairs by Holm (A simple sequentially rejective multiple test procedure, 1979).
- Groups: a critical-difference diagram (Demsar, Statistical comparisons of classifiers over
  multiple data sets, JMLR 2006), with those tests rather than Nemenyi's, whose verdict on two
  methods depends on which others are in the table (Benavoli et al., Should we really use post-hoc
  tests based on mean-ranks?, JMLR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import bootstrap, wilcoxon

from fuscore_metric.thurstone import standard_difference

Array: TypeAlias = npt.NDArray[np.float64]


def mean_interval(
    values: npt.ArrayLike, *, confidence: float, resamples: int, seed: int
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of means over scenes.

    Args:
        values: (M, S) one row for each mean. All rows are resampled alike, so an interval does not
            depend on what else is computed with it.
        confidence: Such as 0.95.
        resamples: How often S scenes are drawn with replacement.
        seed: Of the draws.

    Returns:
        Lower and upper ends, each (M,); NaN if S = 1, which tells nothing about other scenes.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if rows.shape[1] < 2:
        nothing = np.full(len(rows), np.nan)
        return nothing, nothing
    at_once = max(1, 4_000_000 // rows.size)  # resamples held in memory
    drawn = bootstrap(
        (rows,),
        np.mean,
        axis=-1,
        n_resamples=resamples,
        batch=at_once,
        confidence_level=confidence,
        method="percentile",
        random_state=seed,
    )
    low, high = drawn.confidence_interval
    return np.asarray(low), np.asarray(high)


def known_intervals(
    values: Array, *, confidence: float, resamples: int, seed: int
) -> tuple[Array, Array]:
    """Intervals as `mean_interval` gives them, each over the scenes that its row has.

    Args:
        values: (M, S), NaN where there is none.
        confidence: As in `mean_interval`.
        resamples: Likewise.
        seed: Likewise.

    Returns:
        Lower and upper ends, each (M,).
    """
    rows = [values] if np.isfinite(values).all() else [row[np.isfinite(row)] for row in values]
    ends = [
        mean_interval(row, confidence=confidence, resamples=resamples, seed=seed) for row in rows
    ]
    return np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])


def preference(difference: Array, variance: Array, temperature: float) -> Array:
    """P(a better than b), as `fuscore_metric.levels.preference` gives it, without torch.

    Args:
        difference: Score of a minus score of b, any shape.
        variance: Sum of their variances, same shape.
        temperature: T > 0.
    """
    return np.asarray(ndtr(standard_difference(difference, variance, temperature=temperature)))


def paired_p_value(difference: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences lie about zero.

    Scenes without a difference are dropped, as Wilcoxon did. The exact distribution is used up to
    50 scenes, also where sizes of differences are tied: for these scipy would rather go through
    all permutations, half a second for a single pair of methods.

    Args:
        difference: (S,) score of a minus score of b, on the scenes that both have; S > 0.

    Returns:
        p in (0, 1]; 1 if a and b are equal everywhere.
    """
    different = difference[difference != 0]
    if different.size == 0:
        return 1.0
    # "auto" is the normal approximation above 50, under every version's name for it.
    result = wilcoxon(different, method="exact" if different.size <= 50 else "auto")
    return float(result.pvalue)


def holm(p_values: npt.ArrayLike) -> Array:
    """Holm's step-down correction for several tests at once.

    Args:
        p_values: (P,) of single tests; NaN stands for no test and stays NaN.

    Returns:
        (P,) adjusted: those at most alpha are the differences found at family-wise error alpha.
    """
    adjusted = np.array(p_values, dtype=np.float64)
    order = np.argsort(adjusted)  # NaN last
    order = order[np.isfinite(adjusted[order])]
    steps = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def critical_groups(order: Sequence[int], differ: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Group methods in order of rank: maximal runs in which no two differ.

    Args:
        order: Numbers of the methods, best rank first.
        differ: (M, M), whether two methods differ.

    Returns:
        The groups, best first. Every method is in at least one.
    """
    groups: list[list[int]] = []
    end = 0  # of the last group
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and not any(differ[order[stop], n] for n in order[start:stop]):
            stop += 1
        if stop > end:
            groups.append(list(order[start:stop]))
            end = stop
    return groups


def mean_of_known(values: Array) -> Array:
    """Mean over the first axis of what is not NaN; NaN if nothing is."""
    there = np.isfinite(values)
    number = there.sum(axis=0)
    total = np.where(there, values, 0).sum(axis=0)
    mean = np.full(total.shape, np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean
