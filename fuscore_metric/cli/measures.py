"""`fuscore measures`: what each classic measure is, and how far it agrees with what eyes see."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fuscore_metric.cli.shared.console import has_width, make_console
from fuscore_metric.cli.shared.options import one_of
from fuscore_metric.cli.shared.start_up import start_up

if TYPE_CHECKING:
    from rich.console import Console

    from fuscore_metric.measures.kinds import Measure
    from fuscore_metric.measures.trust import Agreement

FORMATS = ("text", "csv", "json", "markdown")
HEADINGS = (
    "measure",
    "what it is",
    "range",
    "gradient",
    "viewers, within scenes",
    "viewers, pooled",
    "people",
    "source",
)
NARROW = ("measure", "what it is", "viewers, within", "viewers, pooled", "people")
"""Columns where a terminal has no room for all; without intervals."""


@dataclass(frozen=True)
class Line:
    """A line of the list.

    Attributes:
        agreement: With viewers and people.
        Others: As those of `kinds.Measure`.
    """

    name: str
    title: str
    higher_is_better: bool
    low: float
    high: float
    differentiable: bool
    source: str
    agreement: Agreement

    def cells(self) -> list[str]:
        """What stands under `HEADINGS`."""
        known = self.agreement
        name = f"{self.name} {'↑' if self.higher_is_better else '↓'}"
        ends = f"{self.low:.5g} to {self.high:.5g}"
        gradient = "yes" if self.differentiable else "no"
        numbers = map(str, (known.within, known.pooled, known.people))
        return [name, self.title, ends, gradient, *numbers, self.source]

    def narrow_cells(self) -> list[str]:
        """What stands under `NARROW`."""
        known = self.agreement
        numbers = (f"{one.value:.2f}" for one in (known.within, known.pooled, known.people))
        return [*self.cells()[:2], *numbers]

    def fields(self) -> dict[str, Any]:
        """All numbers by name; an end of the range that is not there is None."""
        found = {key: value for key, value in vars(self).items() if key != "agreement"}
        for end in ("low", "high"):
            found[end] = None if math.isinf(found[end]) else found[end]
        for kind, coefficient in vars(self.agreement).items():
            for key, value in coefficient._asdict().items():
                found[f"{kind}_srcc" if key == "value" else f"{kind}_{key}"] = value
        return found


def measures(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MEASURE", help="Show only this one, in full.", show_default=False),
    ] = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Of the list: {', '.join(FORMATS)}.",
            autocompletion=one_of(*FORMATS),
        ),
    ] = "text",
) -> None:
    """List the classic measures, and which of them agree with what eyes see.

    \b
    Examples:
      fuscore measures
      fuscore measures Qabf
      fuscore measures --format csv
    """  # noqa: D301 - \b keeps the lines of a paragraph
    if output_format not in FORMATS:
        raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}", param_hint="--format")
    with start_up():
        from fuscore_metric.measures import catalogue
    if name is None:
        SHOWN[output_format](_lines())
        return
    try:
        asked = catalogue.chosen(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="MEASURE") from error
    for one in asked:
        _show_in_full(catalogue.MEASURES[one])


def _lines() -> list[Line]:
    """FuScore first, then all measures."""
    from fuscore_metric.measures.catalogue import MEASURES
    from fuscore_metric.measures.trust import OWN, agreements, facts

    known = agreements()
    title, weights = "this package's score, which learned from viewers", facts()["fuscore"]
    own = Line(OWN, title, True, 1, 5, True, weights["weights"], known[OWN])
    return [own, *(_line(one, known[one.name]) for one in MEASURES.values())]


def _line(one: Measure, agreement: Agreement) -> Line:
    return Line(
        one.name,
        one.title,
        one.higher_is_better,
        one.low,
        one.high,
        one.differentiable,
        one.source,
        agreement,
    )


def _show_text(lines: list[Line]) -> None:
    from fuscore_metric.measures.trust import statements

    console = make_console()
    unlimited = console.options.update(max_width=100_000)
    table = _table(HEADINGS, [line.cells() for line in lines])
    needed = console.measure(table, options=unlimited).maximum
    notes = statements()
    if not has_width(console):
        console.width = max(console.width, needed)
    elif needed > console.width:
        table = _table(NARROW, [line.narrow_cells() for line in lines])
        notes = ["Ranges, sources and intervals: --format csv, or a wider terminal.", *notes]
    console.print(table, markup=False)
    _say(console, *notes)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _show_markdown(lines: list[Line]) -> None:
    from fuscore_metric.leaderboard.markup import escape_markdown, markdown_table
    from fuscore_metric.measures.trust import statements

    rows = [[escape_markdown(cell) for cell in line.cells()] for line in lines]
    typer.echo(markdown_table(HEADINGS, rows, left=len(HEADINGS)))
    typer.echo("\n" + "\n\n".join(statements()))


def _show_csv(lines: list[Line]) -> None:
    from fuscore_metric.leaderboard.markup import csv_table

    rows = [line.fields() for line in lines]
    typer.echo(csv_table(list(rows[0]), [list(row.values()) for row in rows]))


def _show_json(lines: list[Line]) -> None:
    from fuscore_metric.measures.trust import statements

    document = {"measures": [line.fields() for line in lines], "notes": statements()}
    typer.echo(json.dumps(document, indent=2))


SHOWN = {
    "text": _show_text,
    "csv": _show_csv,
    "json": _show_json,
    "markdown": _show_markdown,
}
"""What prints the list, by format."""


def _show_in_full(one: Measure) -> None:
    """Print all that is known of one measure."""
    from fuscore_metric.measures.trust import agreements, statements

    cells = _line(one, agreements()[one.name]).cells()
    facts = zip(HEADINGS[2:], cells[2:], strict=True)
    lines = [f"{heading}: {cell}" for heading, cell in facts]
    text = inspect.getdoc(one.compute) or ""
    _say(make_console(), f"{cells[0]}  {one.title}", "", text, "", *lines, "", *statements())


def _say(console: Console, *lines: str) -> None:
    """Print lines, broken only where a terminal ends."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=not has_width(console))
