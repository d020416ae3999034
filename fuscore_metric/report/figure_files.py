"""Figures -> SVG that follows the page's theme, or PDF and PNG for a paper.

On the page each colour is a sentinel that becomes a CSS variable, so that one drawing serves the
light and the dark theme.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import escape
from matplotlib import rc_context

from fuscore_metric.report.figures import PRINT, Palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEMED = Palette(
    ink="#010201",
    quiet="#010202",
    line="#010203",
    accent="#010204",
    paper="#010205",
    series=tuple(f"#0102{number:02x}" for number in range(0x10, 0x18)),
)
"""Sentinels: unlikely colours, each to be replaced by a variable of the page."""
_VARIABLES = {
    THEMED.ink: "var(--ink)",
    THEMED.quiet: "var(--quiet)",
    THEMED.line: "var(--line)",
    THEMED.accent: "var(--accent)",
    THEMED.paper: "var(--card)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(THEMED.series)},
}
SENTINEL = re.compile(r"#0102[0-9a-f]{2}", re.IGNORECASE)
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same widths everywhere
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.6,
}


def themed_svg(draw: Callable[[Palette], Figure], *, name: str, title: str) -> str:
    """Draw with sentinels and return an inline `<svg>`: no ids but its own, no date, no fonts.

    Args:
        draw: Makes the figure in the colours given.
        name: Begins the ids of the drawing; unique on the page.
        title: What the drawing shows, for screen readers. Escaped here.
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
    # Into memory first: at a full disk matplotlib raises errors that do not mention the disk.
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
