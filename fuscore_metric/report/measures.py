"""Classic measures beside the scores: ranks by each, how far they agree, where they contradict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fuscore_metric.leaderboard.markup import higher_is_better
from fuscore_metric.leaderboard.tables import about_measures, number
from fuscore_metric.measures.trust import OWN
from fuscore_metric.report.data import Grid, Numbers
from fuscore_metric.report.pictures import CONTRARY, Choice
from fuscore_metric.results.rows import FURTHER_ASPECTS

if TYPE_CHECKING:
    from fuscore_metric.leaderboard.statistics import Leaderboard, MethodSummary
    from fuscore_metric.report.build import Report

MOST_CONTRADICTIONS = 3
_LEAST_TRIPLES = 3
"""Two triples have a correlation of 1 or -1, whatever they are."""


@dataclass(frozen=True)
class MeasureRanks:
    """Ranks of M methods by K measures.

    Attributes:
        methods: Best first by FuScore.
        measures: FuScore first.
        means: (M, K) as in the leaderboard; NaN where there is none.
        ranks: (M, K) 1 is best, means that are equal as printed share it; NaN likewise, and
            everywhere if the means are over different scenes.
    """

    methods: tuple[str, ...]
    measures: tuple[str, ...]
    means: Numbers
    ranks: Numbers


@dataclass(frozen=True)
class Correlations:
    """SRCC between FuScore, its aspects and measures.

    Those of which lower is better were turned round, so that 1 is always full agreement.

    Attributes:
        names: FuScore first; those that were turned round have an arrow.
        values: (K, K); NaN on the diagonal, of fewer than three triples, and of a constant.
    """

    names: tuple[str, ...]
    values: Numbers


@dataclass(frozen=True)
class Contradiction:
    """Two methods that a measure puts in the other order than FuScore, and a scene to see it on.

    Attributes:
        measure: Its name.
        better: The method that FuScore prefers.
        worse: The one that the measure prefers.
        real: Whether the paired test finds them different by FuScore.
        choice: A scene where both prefer the same as by their means, with these two methods.
    """

    measure: str
    better: MethodSummary
    worse: MethodSummary
    real: bool
    choice: Choice


def names_of(board: Leaderboard | None) -> tuple[str, ...]:
    """The classic measures of a leaderboard."""
    return tuple(board.methods[0].measures) if board else ()


def with_arrow(name: str) -> str:
    """A measure with the direction of better numbers."""
    return f"{name} {'↑' if name == OWN or higher_is_better(name) else '↓'}"


def rank_methods(board: Leaderboard) -> MeasureRanks:
    """Rank the methods of a leaderboard by the mean of each measure."""
    names = (OWN, *names_of(board))
    means = np.array([[one.mean, *one.measures.values()] for one in board.methods])
    ranks = np.full(means.shape, np.nan)
    if board.paired:
        ranks = np.stack(
            [_places(-_sign(n) * column) for n, column in zip(names, means.T, strict=True)], 1
        )
    return MeasureRanks(tuple(one.method for one in board.methods), names, means, ranks)


def _places(values: Numbers) -> Numbers:
    """Ranks (M,) of numbers of which lower is better, those that are equal as printed alike."""
    printed = np.array([float(f"{value:.3f}") for value in values])
    places = 1.0 + (printed < printed[:, None]).sum(1)
    return np.where(np.isfinite(values), places, np.nan)


def _sign(name: str) -> int:
    return 1 if name == OWN or higher_is_better(name) else -1


def correlate(grid: Grid, measures: Sequence[str]) -> Correlations:
    """Correlate FuScore, its aspects and measures over all triples.

    Args:
        grid: The numbers.
        measures: Names of its columns.
    """
    aspects = [name for name in FURTHER_ASPECTS if np.isfinite(grid.columns[name]).any()]
    found = {OWN: grid.score, **{name.replace("_", " "): grid.columns[name] for name in aspects}}
    for name in measures:
        turned = _sign(name) < 0
        found[with_arrow(name) if turned else name] = _sign(name) * grid.columns[name]
    columns = pd.DataFrame({name: values.reshape(-1) for name, values in found.items()})
    values = columns.corr(method="spearman", min_periods=_LEAST_TRIPLES).to_numpy(copy=True)
    np.fill_diagonal(values, np.nan)
    return Correlations(tuple(found), values)


def contradictions(grid: Grid, board: Leaderboard | None, count: int) -> list[Contradiction]:
    """Find where the means of measures most clearly put two methods otherwise than FuScore does.

    Differences are in standard deviations of a measure over all triples. A contradiction is as
    clear as the smaller of its two differences, so both have to prefer one method clearly. The same
    rule chooses the scene.

    Args:
        grid: The numbers.
        board: Its leaderboard; None where nothing has a score.
        count: How many at most, each of another measure, another pair and another scene.

    Returns:
        The clearest first; none if the means are over different scenes.
    """
    if board is None or not board.paired:
        return []
    scenes = [grid.scenes.index(name) for name in board.scenes]
    methods = [grid.methods.index(one.method) for one in board.methods]
    own = _in_deviations(grid.score[np.ix_(scenes, methods)])  # (S, M)
    others = {
        name: _in_deviations(_sign(name) * grid.columns[name][np.ix_(scenes, methods)])
        for name in names_of(board)
    }
    opposed = [
        (gap, name, better, worse)
        for name, other in others.items()
        for (better, worse), gap in np.ndenumerate(_opposed(own.mean(0), other.mean(0)))
        if gap > 0
    ]
    found: list[Contradiction] = []
    for _, name, better, worse in sorted(opposed, key=lambda one: -one[0]):
        pair, other = (board.methods[better], board.methods[worse]), others[name]
        if len(found) == count:
            break
        if any(one.measure == name or (one.better, one.worse) == pair for one in found):
            continue
        by_scene = np.minimum(own[:, better] - own[:, worse], other[:, worse] - other[:, better])
        by_scene[[scenes.index(one.choice.scene) for one in found]] = -np.inf
        if by_scene.max() <= 0:
            continue
        real = bool(board.p_values.to_numpy(dtype=float)[better, worse] <= board.alpha)
        shown = methods[better], methods[worse]
        choice = Choice(scenes[int(by_scene.argmax())], CONTRARY, (), shown, shown)
        found.append(Contradiction(name, *pair, real, choice))
    return found


def _in_deviations(values: Numbers) -> Numbers:
    return values / (np.nanstd(values) or 1)


def _opposed(own: Numbers, other: Numbers) -> Numbers:
    """(M, M) how clearly `own` (M,) prefers the row and `other` the column; positive if both do."""
    return np.minimum(own[:, None] - own, other - other[:, None])


def measures_context(report: Report) -> dict[str, Any]:
    """Give the template's values for the measures: two tables and what they mean."""
    names = names_of(report.board)
    if report.board is None or not names:
        return {"rank_headings": [], "rank_lines": [], "correlations": [], "measure_notes": []}
    table, matrix = rank_methods(report.board), correlate(report.grid, names)
    places, shade = range(len(matrix.names)), shades(table)
    return {
        "rank_headings": [with_arrow(name) for name in table.measures],
        "rank_lines": [
            {
                "method": method,
                "cells": [_rank_cell(table, row, k, value) for k, value in enumerate(shade[row])],
            }
            for row, method in enumerate(table.methods)
        ],
        "correlations": [
            {"name": name, "cells": [_correlation_cell(matrix, row, k) for k in places]}
            for row, name in enumerate(matrix.names)
        ],
        "measure_notes": about_measures(report.board, report.settings),
    }


def _rank_cell(table: MeasureRanks, row: int, column: int, shade: float) -> dict[str, str]:
    rank, mean = table.ranks[row, column], number(table.means[row, column])
    return {
        "rank": f"{rank:.0f}" if math.isfinite(rank) else "-",
        "mean": mean,
        **_colour(2 * shade - 1),
        "title": f"{table.methods[row]} by {table.measures[column]}: {mean}",
    }


def shades(table: MeasureRanks) -> Numbers:
    """(M, K) from 0 for the last rank to 1 for the first; NaN where there is none."""
    return 1 - (table.ranks - 1) / max(1, len(table.methods) - 1)


def _correlation_cell(matrix: Correlations, row: int, column: int) -> dict[str, str]:
    value = matrix.values[row, column]
    text = "·" if row == column else coefficient(value)
    title = f"{matrix.names[row]} and {matrix.names[column]}: {text}"
    return {"text": text, **_colour(value), "title": title}


def coefficient(value: float) -> str:
    """A correlation for people, never -0.00."""
    return number(round(float(value), 2) + 0.0, ".2f")


def _colour(value: float) -> dict[str, str]:
    """Class and strength of a cell's colour, for a value from -1 to 1 or NaN."""
    strength = abs(value) if math.isfinite(value) else 0
    return {"kind": "win" if value >= 0 else "lose", "strength": f"{strength:.2f}"}
