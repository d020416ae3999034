"""Scores and a leaderboard -> figures: SVG that follows the page's theme, PDF and PNG for a paper.

Drawn by matplotlib without its global state. On the page each colour is a sentinel that becomes a
CSS variable, so that one drawing serves the light and the dark theme.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from markupsafe import escape
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

    from fuscore_metric.leaderboard import Leaderboard

Scores: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Method -> its scores (n,), in the order in which they are drawn."""

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


PRINT = Palette(ink="#1a1a1a", quiet="#555555", line="#d4d4d4", accent="#2b5fb0", paper="#ffffff")
THEMED = Palette(ink="#010201", quiet="#010202", line="#010203", accent="#010204", paper="#010205")
"""Sentinels: colours that nobody would choose, each to be replaced by a variable of the page."""
_VARIABLES = {
    THEMED.ink: "var(--ink)",
    THEMED.quiet: "var(--quiet)",
    THEMED.line: "var(--line)",
    THEMED.accent: "var(--accent)",
    THEMED.paper: "var(--card)",
}
SENTINEL = re.compile(r"#0102[0-9a-f]{2}", re.IGNORECASE)

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same widths everywhere
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.6,
}


def distribution(scores: Scores, *, width: int, palette: Palette, label: str) -> Figure:
    """Draw the distribution of each method's scores: violin, quartiles, median, points.

    Args:
        scores: Scores by method, first on top; a method may have none.
        width: In CSS pixels.
        palette: Colours.
        label: What the axis shows.
    """
    step = _pitch(len(scores), few=34, many=22)
    every_point = sum(map(len, scores.values())) <= MOST_POINTS
    figure, axes = _rows(list(scores), step=step, width=width, palette=palette)
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


def ranks(board: Leaderboard, *, width: int, palette: Palette) -> Figure:
    """Draw mean ranks, best on top; a bar joins methods between which no difference was found.

    What a critical-difference diagram says, with a line for each method: so that forty of them,
    with long names, stay readable.

    Args:
        board: At least one method.
        width: In CSS pixels.
        palette: Colours.
    """
    methods = sorted(board.methods, key=lambda one: one.mean_rank)
    places = {one.method: row for row, one in enumerate(methods)}
    bars = _lanes([[places[name] for name in group] for group in board.groups if len(group) > 1])
    lanes = 1 + max((lane for lane, _, _ in bars), default=-1)
    step = _pitch(len(methods), few=26, many=20)
    figure, axes = _rows(
        list(places), step=step, width=width, palette=palette, right=16 + 9 * lanes
    )
    highest = max(2.0, len(methods))
    for row, one in enumerate(methods):
        axes.plot([1, one.mean_rank], [row, row], color=palette.line, linewidth=2, zorder=1)
        axes.plot(one.mean_rank, row, "o", color=palette.accent, markersize=6.5, zorder=2)
    for lane, first, last in bars:
        x = 1 + (10 + 9 * lane) / _axes_width(figure, axes)
        axes.plot(
            *([x, x], [first - 0.3, last + 0.3]),
            transform=axes.get_yaxis_transform(),
            color=palette.ink,
            linewidth=3,
            solid_capstyle="butt",
            clip_on=False,
        )
    axes.set_xlim(1, highest)
    axes.set_xticks(range(1, len(methods) + 1, 1 + (len(methods) - 1) // 8))
    axes.set_xlabel("mean rank over scenes, 1 is best", color=palette.quiet, fontsize=11)
    return figure


def matrix(board: Leaderboard, *, palette: Palette) -> Figure:
    """Draw the mean P(row better than column); hatched where no difference was found.

    On the page this is a table; the figure is for print.
    """
    names = [_short(str(name), 24) for name in board.preferences.index]
    values = board.preferences.to_numpy(dtype=float)
    count, cell = len(names), 27 if len(names) <= 20 else 20
    left = top = 12 + 6.6 * max(map(len, names))
    width, height = left + cell * count + 8, top + cell * count + 8
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((left / width, 8 / height, cell * count / width, cell * count / height))
    colours = LinearSegmentedColormap.from_list("preference", ["#d98a3d", "#ffffff", "#2f8f8a"])
    axes.imshow(values, cmap=colours, vmin=0, vmax=1)
    size = 8 if cell > 20 else 6
    for row, column in np.ndindex(count, count):
        if row == column:
            continue
        if not _is_real(board, row, column):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb", linewidth=0)
            )
        if np.isfinite(values[row, column]):
            text = f"{values[row, column]:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=palette.ink)
    axes.set_xticks(range(count), names, rotation=90, parse_math=False)
    axes.set_yticks(range(count), names, parse_math=False)
    axes.tick_params(length=0, labelsize=9, labelcolor=palette.ink, top=True, bottom=False)
    axes.tick_params(labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def _is_real(board: Leaderboard, row: int, column: int) -> bool:
    """Whether two methods differ by the paired test; unknown counts as no."""
    return bool(board.p_values.to_numpy(dtype=float)[row, column] <= board.alpha)


def themed_svg(draw: Callable[[Palette], Figure], *, name: str, title: str) -> str:
    """Draw with sentinels and return an inline `<svg>`: no ids but its own, no date, no fonts.

    Args:
        draw: Makes the figure in the colours given.
        name: Begins the ids of the drawing; unique on the page.
        title: What the drawing shows, for those who cannot see it. Escaped here.
    """
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Letters are left to the browser, which has the fonts that matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        buffer = io.StringIO()
        draw(THEMED).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, title)


def save_print(draw: Callable[[Palette], Figure], stem: Path) -> list[Path]:
    """Write a figure for a paper as PDF and PNG (300 dpi), without dates.

    Args:
        draw: Makes the figure in the colours given.
        stem: Path without suffix.

    Returns:
        What was written.

    Raises:
        OSError: A file cannot be written, such as on a full disk.
    """
    # Into memory: at a full disk matplotlib raises what says nothing of it.
    pdf, png = io.BytesIO(), io.BytesIO()
    with rc_context(_STYLE):
        figure = draw(PRINT)
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
        figure.savefig(png, format="png", dpi=300, metadata={"Software": None})
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("pdf", "png")]
    for path, drawn in zip(paths, (pdf, png), strict=True):
        path.write_bytes(drawn.getvalue())
    return paths


def _inline(svg: str, name: str, title: str) -> str:
    """What matplotlib writes -> what stands in a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if view is None:
        raise ValueError("Expected matplotlib to write a viewBox")
    width, height = (round(float(side)) for side in view.groups())
    opening = (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">'
    )
    svg = re.sub(r"^<svg[^>]*>", lambda _: opening, svg)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    kept = {one for pair in used for one in pair if one}
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in kept else "", svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    # Versions of matplotlib differ in which property they write.
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font)", svg)
    svg = SENTINEL.sub(lambda m: _VARIABLES[m[0].lower()], svg)
    return re.sub(r"\s*\n\s*", " ", svg).strip()  # no text of ours has lines


def _rows(
    names: Sequence[str], *, step: int, width: int, palette: Palette, right: int = 12
) -> tuple[Figure, Axes]:
    """A figure with a line for each name, the first on top, and a free x axis below."""
    longest = 16 if width < _NARROW_BELOW else 30
    labels = [_short(name, longest) for name in names]
    left = 14 + 7.4 * max(map(len, labels))
    top, bottom = 6, 40
    height = top + step * len(names) + bottom
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            step * len(names) / height,
        )
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), labels, parse_math=False)
    axes.tick_params(length=0, labelsize=12, labelcolor=palette.ink)
    axes.tick_params(axis="x", labelsize=11, labelcolor=palette.quiet)
    axes.grid(axis="x", color=palette.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    return figure, axes


def _pitch(count: int, *, few: int, many: int) -> int:
    """Height of a line in CSS pixels."""
    return few if count <= 20 else many


def _axes_width(figure: Figure, axes: Axes) -> float:
    return float(figure.get_figwidth() * 72 * axes.get_position().width)


def _short(name: str, longest: int) -> str:
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
    """Points below the box, spread over the line's height so that equal ones are seen."""
    spread = (np.arange(len(values)) * 0.618034) % 1  # evenly, and the same every time
    heights = row + 0.14 + 0.24 * spread
    axes.plot(values, heights, "o", color=palette.ink, alpha=0.5, markersize=3, markeredgewidth=0)


def _outliers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What lies more than 1.5 interquartile ranges beyond the quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (high - low)
    outside: NDArray[np.float64] = values[(values < low - reach) | (values > high + reach)]
    return outside


def _lanes(groups: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Groups of rows -> (lane, first row, last row), no two overlapping in one lane."""
    ends: list[int] = []
    placed = []
    for first, last in sorted((min(group), max(group)) for group in groups):
        free = next((lane for lane, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        placed.append((free, first, last))
    return placed
