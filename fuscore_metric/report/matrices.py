"""Tables of the page as figures for print: preferences, ranks by measure, correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fuscore_metric.leaderboard.tables import number
from fuscore_metric.report.figures import Names, Palette, embolden, short
from fuscore_metric.report.measures import (
    Correlations,
    MeasureRanks,
    coefficient,
    shades,
    with_arrow,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fuscore_metric.leaderboard import Leaderboard

_COLOURS = LinearSegmentedColormap.from_list("preference", ["#d98a3d", "#ffffff", "#2f8f8a"])
_LONGEST = 24


def preferences(board: Leaderboard, *, palette: Palette, bold: Names = ()) -> Figure:
    """Draw the mean P(row better than column); hatched where no difference was found."""
    names = [str(name) for name in board.preferences.index]
    values = board.preferences.to_numpy(dtype=float)
    known = np.where(np.eye(len(names), dtype=bool), np.nan, values)
    cell = 27 if len(names) <= 20 else 20
    figure, axes = _matrix(
        (names, names),
        values,
        lambda *place: f"{known[place]:.2f}" if np.isfinite(known[place]) else "",
        cell=(cell, cell),
        size=8 if cell > 20 else 6,
        palette=palette,
        bold=bold,
    )
    for row, column in np.ndindex(values.shape):
        if row != column and not _is_real(board, row, column):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb", linewidth=0)
            )
    return figure


def measure_ranks(table: MeasureRanks, *, palette: Palette, bold: Names = ()) -> Figure:
    """Draw each method's rank by each measure, its mean below."""

    def text(row: int, column: int) -> str:
        return f"{number(table.ranks[row, column], '.0f')}\n{number(table.means[row, column])}"

    figure, _ = _matrix(
        (table.methods, [with_arrow(name) for name in table.measures]),
        shades(table),
        text,
        cell=(38, 22),
        size=7,
        palette=palette,
        bold=bold,
    )
    return figure


def measure_correlations(matrix: Correlations, *, palette: Palette) -> Figure:
    """Draw the SRCC between measures."""
    figure, _ = _matrix(
        (matrix.names, matrix.names),
        (matrix.values + 1) / 2,
        lambda *place: coefficient(matrix.values[place]) if place[0] != place[1] else "",
        cell=(27, 20),
        size=7,
        palette=palette,
    )
    return figure


def _is_real(board: Leaderboard, row: int, column: int) -> bool:
    """Whether two methods differ by the paired test; unknown counts as no."""
    return bool(board.p_values.to_numpy(dtype=float)[row, column] <= board.alpha)


def _matrix(
    names: tuple[Sequence[str], Sequence[str]],
    values: NDArray[np.float64],
    text: Callable[[int, int], str],
    *,
    cell: tuple[int, int],
    size: int,
    palette: Palette,
    bold: Names = (),
) -> tuple[Figure, Axes]:
    """A table of coloured cells.

    Args:
        names: Of the rows, of the columns.
        values: (rows, columns) from 0 to 1, which give the colours; white where NaN.
        text: Of a cell.
        cell: Its width and height in points.
        size: Of its text, in points.
        palette: Colours of the text.
        bold: Names that are bold.
    """
    rows, columns = ([short(name, _LONGEST) for name in some] for some in names)
    left, top = (12 + 6.6 * max(map(len, some)) for some in (rows, columns))
    inner = cell[0] * len(columns), cell[1] * len(rows)
    width, height = left + inner[0] + 8, top + inner[1] + 8
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((left / width, 8 / height, inner[0] / width, inner[1] / height))
    axes.imshow(values, cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(values.shape):
        said = text(row, column)
        axes.text(column, row, said, ha="center", va="center", fontsize=size, color=palette.ink)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=9, labelcolor=palette.ink, top=True, bottom=False)
    axes.tick_params(labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    for labels, some in zip((axes.get_yticklabels(), axes.get_xticklabels()), names, strict=True):
        embolden(labels, some, bold)
    return figure, axes
