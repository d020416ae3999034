"""Scores and a leaderboard -> figures, drawn by matplotlib without its global state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.text import Text

    from fuscore_metric.leaderboard import Leaderboard

Scores: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Method -> its scores (n,), in the order in which they are drawn."""
Names: TypeAlias = Collection[str]

WIDE, NARROW, PRINT_WIDTH = 1080, 350, 500
"""Widths in CSS pixels, on the page at most 1:1; the printed one is 500/72 inches."""
_NARROW_BELOW = 400
MOST_POINTS = 2500
"""With more scores than that only outliers are drawn as points: every point is an SVG element."""
_LEAST_FOR_VIOLIN = 5


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for."""

    ink: str
    quiet: str
    line: str
    accent: str
    paper: str
    series: tuple[str, ...]


PRINT = Palette(
    ink="#1a1a1a",
    quiet="#555555",
    line="#d4d4d4",
    accent="#2b5fb0",
    paper="#ffffff",
    series=(
        *("#2454b8", "#c2410c", "#0d8a7f", "#9333c9"),
        *("#a16207", "#d1307f", "#4d7c0f", "#7a4a3a"),
    ),
)


@dataclass(frozen=True)
class Means:
    """Means of M methods and the ends of their intervals, each (M,); NaN where there is none."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def distribution(
    scores: Scores, *, width: int, palette: Palette, label: str, bold: Names = ()
) -> Figure:
    """Draw the distribution of each method's scores: violin, quartiles, median, points.

    Args:
        scores: Scores by method, first on top; a method may have none.
        width: In CSS pixels.
        palette: Colours.
        label: What the axis shows.
        bold: Methods whose names are bold.
    """
    step = _pitch(len(scores), few=34, many=22)
    every_point = sum(map(len, scores.values())) <= MOST_POINTS
    figure, [axes] = _rows(list(scores), step=step, width=width, palette=palette, bold=bold)
    for row, values in enumerate(scores.values()):
        if len(np.unique(values)) >= _LEAST_FOR_VIOLIN:
            _violin(axes, values, row, palette)
        if len(values):
            _box(axes, values, row, palette)
            _points(axes, values if every_point else _outliers(values), row, palette)
    axes.set_xlim(1, 5)
    axes.set_xticks([1, 2, 3, 4, 5])
    axes.set_xlabel(label, color=palette.quiet, fontsize=11)
    return figure


def aspects(
    methods: Sequence[str],
    means: Mapping[str, Means],
    *,
    width: int,
    palette: Palette,
    bold: Names = (),
) -> Figure:
    """Draw what each method is good at: a panel for each aspect, a dot and its interval in a line.

    Args:
        methods: Names, first on top.
        means: Aspect -> numbers of the methods in that order.
        width: In CSS pixels; at least what is printed is taken, and scrolled on a small screen.
        palette: Colours.
        bold: Methods whose names are bold.
    """
    figure, panels = _rows(
        methods,
        step=_pitch(len(methods), few=24, many=20),
        width=max(width, PRINT_WIDTH),
        palette=palette,
        bold=bold,
        right=16,
        top=44,
        panels=len(means),
    )
    numbers = np.concatenate([[one.mean, one.low, one.high] for one in means.values()])
    # Half points around all of them, and more than none.
    least = np.floor(2 * np.nanmin(numbers)) / 2
    most = max(np.ceil(2 * np.nanmax(numbers)) / 2, least + 0.5)
    for axes, (title, one) in zip(panels, means.items(), strict=True):
        for row, (mean, low, high) in enumerate(zip(one.mean, one.low, one.high, strict=True)):
            axes.plot([low, high], [row, row], color=palette.accent, linewidth=4, alpha=0.45)
            axes.plot(mean, row, "o", color=palette.accent, markersize=5.5)
        axes.set_xlim(least, most)
        axes.set_xticks([least, most], [f"{least:g}", f"{most:g}"])
        axes.set_title(title.replace(" ", "\n"), color=palette.ink, fontsize=11)
    return figure


def ranks(board: Leaderboard, *, width: int, palette: Palette, bold: Names = ()) -> Figure:
    """Draw mean ranks, best on top; a bar beside dots joins those without a difference found.

    The content of a critical-difference diagram, with a line for each method, so that forty of
    them, with long names, stay readable.

    Args:
        board: At least one method.
        width: In CSS pixels.
        palette: Colours.
        bold: Methods whose names are bold.
    """
    methods = sorted(board.methods, key=lambda one: one.mean_rank)
    places = {one.method: row for row, one in enumerate(methods)}
    groups = [[places[name] for name in group] for group in board.groups if len(group) > 1]
    step = _pitch(len(methods), few=26, many=20)
    figure, [axes] = _rows(
        list(places), step=step, width=width, palette=palette, bold=bold, right=48
    )
    highest = max(2.0, len(methods))
    found = [one.mean_rank for one in methods]
    pixel = (highest - 1) / _axes_width(figure, axes)
    ends = found.copy()
    above, beside = -1, 0.0
    for first, last in sorted((min(group), max(group)) for group in groups):
        # Right of the lowest of its dots, so of all; never on the bar before it.
        beside = max(found[last] + 10 * pixel, beside + 8 * pixel if first <= above else 0)
        above = last
        axes.plot(
            [beside, beside],
            [first - 0.3, last + 0.3],
            color=palette.ink,
            linewidth=3,
            solid_capstyle="butt",
            clip_on=False,
            zorder=3,
        )
        ends[first : last + 1] = [beside] * (last + 1 - first)
    for row, (rank, end) in enumerate(zip(found, ends, strict=True)):
        axes.plot([1, rank], [row, row], color=palette.line, linewidth=2, zorder=1)
        axes.plot([rank, end], [row, row], color=palette.quiet, linewidth=0.8, clip_on=False)
        axes.plot(rank, row, "o", color=palette.accent, markersize=6.5, zorder=4)
    axes.set_xlim(1, highest)
    axes.set_xticks(range(1, len(methods) + 1, 1 + (len(methods) - 1) // 8))
    axes.set_xlabel("mean rank over scenes, 1 is best", color=palette.quiet, fontsize=11)
    return figure


def _rows(
    names: Sequence[str],
    *,
    step: int,
    width: int,
    palette: Palette,
    bold: Names,
    right: int = 12,
    top: int = 6,
    panels: int = 1,
) -> tuple[Figure, list[Axes]]:
    """A figure with a line for each name, the first on top, and free x axes side by side."""
    longest = 16 if width < _NARROW_BELOW else 30
    labels = [short(name, longest) for name in names]
    lengths = [
        (8.6 if name in bold else 7.4) * len(label)
        for name, label in zip(names, labels, strict=True)
    ]
    left, bottom, gap = 14 + max(lengths), 40, 26
    height = top + step * len(names) + bottom
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    share = (width - left - right + gap) / panels
    made = []
    for number in range(panels):
        place = (left + number * share, bottom, share - gap, step * len(names))
        axes = figure.add_axes(
            (place[0] / width, place[1] / height, place[2] / width, place[3] / height)
        )
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), labels if number == 0 else [""] * len(names))
        axes.tick_params(length=0, labelsize=12, labelcolor=palette.ink)
        axes.tick_params(axis="x", labelsize=11, labelcolor=palette.quiet)
        axes.grid(axis="x", color=palette.line, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.patch.set_visible(False)
        made.append(axes)
    embolden(made[0].get_yticklabels(), names, bold)
    return figure, made


def embolden(labels: Iterable[Text], names: Iterable[object], bold: Names) -> None:
    """Write names as they are, not as formulas; those asked for bold."""
    for label, name in zip(labels, names, strict=True):
        label.set_parse_math(False)
        if str(name) in bold:
            label.set_fontweight("bold")


def _pitch(count: int, *, few: int, many: int) -> int:
    """Height of a line in CSS pixels."""
    return few if count <= 20 else many


def _axes_width(figure: Figure, axes: Axes) -> float:
    return float(figure.get_figwidth() * 72 * axes.get_position().width)


def short(name: str, longest: int) -> str:
    """A name in one line, cut where it is too long."""
    name = " ".join(name.split()) or "(no name)"
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _violin(axes: Axes, values: NDArray[np.float64], row: int, palette: Palette) -> None:
    parts = axes.violinplot(
        [values], [row], orientation="horizontal", widths=0.86, showextrema=False, points=80
    )
    for body in cast("list[PolyCollection]", parts["bodies"]):
        body.set(facecolor=palette.accent, edgecolor=palette.accent, alpha=0.22, linewidth=0.8)


def _box(axes: Axes, values: NDArray[np.float64], row: int, palette: Palette) -> None:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([low, high], [row, row], color=palette.accent, linewidth=5, solid_capstyle="round")
    axes.plot(
        *([middle], [row], "o"),
        color=palette.paper,
        markeredgecolor=palette.accent,
        markersize=6.5,
        markeredgewidth=1.8,
        zorder=5,
    )


def _points(axes: Axes, values: NDArray[np.float64], row: int, palette: Palette) -> None:
    """Points below the box, spread over the line's height so that equal ones stay apart."""
    spread = (np.arange(len(values)) * 0.618034) % 1  # evenly, and the same every time
    heights = row + 0.14 + 0.24 * spread
    axes.plot(values, heights, "o", color=palette.ink, alpha=0.5, markersize=3, markeredgewidth=0)


def _outliers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What lies more than 1.5 interquartile ranges beyond the quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (high - low)
    outside: NDArray[np.float64] = values[(values < low - reach) | (values > high + reach)]
    return outside
