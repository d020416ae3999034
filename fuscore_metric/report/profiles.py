"""Aspects of all methods -> parallel coordinates: a line for each method, an axis for each aspect.

Of many methods a radar chart would be a knot around its centre; lines stay apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fuscore_metric.report.figures import PRINT_WIDTH, Means, Names, Palette, embolden, short

_MARKS = "osD^vPX*"
_HEIGHT, _TOP, _BOTTOM, _LEFT = 380, 12, 50, 50
_APART = 15
"""Least distance of two names, in CSS pixels."""


def coloured(methods: Sequence[str], bold: Names) -> list[str]:
    """The methods with a colour and a name: those that are bold, then the best."""
    first = [name for name in methods if name in bold]
    return [*first, *(name for name in methods if name not in bold)][: len(_MARKS)]


def profiles(
    methods: Sequence[str],
    means: Mapping[str, Means],
    *,
    width: int,
    palette: Palette,
    bold: Names = (),
) -> Figure:
    """Draw a line for each method over all aspects; eight are coloured and named, the rest grey.

    Args:
        methods: Names, best first.
        means: Aspect -> numbers of the methods in that order.
        width: In CSS pixels; at least what is printed is taken, and scrolled on a small screen.
        palette: Colours.
        bold: Methods whose names are bold; they are coloured whatever their place.
    """
    width = max(width, PRINT_WIDTH)
    named = coloured(methods, bold)
    labels = {name: short(name, 18 if width == PRINT_WIDTH else 30) for name in named}
    right = 36 + max((8.6 if name in bold else 7.4) * len(labels[name]) for name in named)
    across, along = width - _LEFT - right, _HEIGHT - _TOP - _BOTTOM
    figure = Figure(figsize=(width / 72, _HEIGHT / 72))
    FigureCanvasAgg(figure)
    place = (_LEFT / width, _BOTTOM / _HEIGHT, across / width, along / _HEIGHT)
    axes = figure.add_axes(place)
    values = dict(zip(methods, np.stack([one.mean for one in means.values()], 1), strict=True))
    last = len(means) - 1
    for name, line in values.items():
        if name not in named:
            axes.plot(line, color=palette.quiet, alpha=0.4, linewidth=1)
    for number, name in reversed(list(enumerate(named))):
        axes.plot(
            values[name],
            color=palette.series[number],
            marker=_MARKS[number],
            markersize=5.5,
            linewidth=2.6 if name in bold else 1.8,
            clip_on=False,
            zorder=3,
        )
    low, high = axes.get_ylim()
    pixel = (high - low) / along
    ends = np.array([values[name][-1] for name in named])
    told = np.flatnonzero(np.isfinite(ends))
    heights = _apart(ends[told], _APART * pixel, low, high)
    steps = [last, last + 8 * last / across, last + 22 * last / across]
    for number, height in zip(told.tolist(), heights.tolist(), strict=True):
        colour, name = palette.series[number], named[number]
        line = [ends[number], ends[number], height]
        axes.plot(steps, line, color=colour, linewidth=0.8, clip_on=False)
        at = steps[-1] + 3 * last / across
        text = axes.text(at, height, labels[name], va="center", fontsize=12, color=palette.ink)
        embolden([text], [name], bold)
    axes.set_xlim(0, last)
    axes.set_ylim(low, high)
    axes.set_xticks(range(last + 1), [title.replace(" ", "\n") for title in means])
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(length=0, labelsize=11, labelcolor=palette.quiet)
    axes.tick_params(axis="x", labelcolor=palette.ink, pad=8)
    axes.tick_params(axis="y", pad=9)
    axes.grid(axis="x", color=palette.line, linewidth=1.2)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    return figure


def _apart(
    heights: NDArray[np.float64], gap: float, low: float, high: float
) -> NDArray[np.float64]:
    """Heights moved to be `gap` apart between `low` and `high`, in their order."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    # Pushed up from the lowest, and down from the highest; half-way they are as far apart.
    level = heights[order] - steps
    up = np.minimum(np.maximum.accumulate(level), high - steps[-1:])
    down = np.maximum(np.minimum.accumulate(level[::-1])[::-1], low)
    moved = heights.copy()
    moved[order] = (up + down) / 2 + steps
    return moved
