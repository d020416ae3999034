"""Outputs of the fusions of one source pair -> a table, lines for narrow terminals, CSV or JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from fuscore_metric.cli.shared.console import has_width, make_console, one_line
from fuscore_metric.errors import InputError
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, LEVEL_WORDS
from fuscore_metric.runs.measuring import NO_MEASURES, Measuring

if TYPE_CHECKING:
    from rich.console import Console

    from fuscore_metric.checkpoints.spec import FuScoreSpec
    from fuscore_metric.outputs import FuScoreOutput
    from fuscore_metric.runs.measuring import Measured

_NAME_WIDTH = 16
"""Columns that a name needs in a table, at least; longer ones are folded."""
_UNLIMITED = 100_000


@dataclass(frozen=True)
class Scored:
    """A fused image and what came of it.

    Attributes:
        path: The file.
        output: Of this image alone: fields (1, A), (1, A, 5). None if it could not be scored.
        error: Why it could not be scored or measured.
        measures: Classic measures by name; none where none were asked for, or computed.
    """

    path: str
    output: FuScoreOutput | None
    error: Exception | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    def measured(self, values: Measured) -> Self:
        """The same with measures; an image without a score gets none."""
        if self.output is None:
            return self
        if isinstance(values, Exception):
            return replace(self, error=as_input_error(values))
        return replace(self, measures=values)


def as_input_error(error: Exception) -> InputError:
    """What kept an image from being computed, with what helps if that was lack of memory."""
    from fuscore_metric.results.rows import describe_error

    return error if isinstance(error, InputError) else InputError(describe_error(error))


def show_json(
    scored: list[Scored], spec: FuScoreSpec, aspect: str, measuring: Measuring = NO_MEASURES
) -> None:
    """Print one JSON document: an image that could not be computed has an `error`."""
    how = {"convention": measuring.convention, "colour": measuring.colour}
    document = {
        "weights": spec.name,
        "label_kind": spec.label_kind,
        "labels": spec.label_statement(),
        "aspect": aspect,
        **({"measures": how} if measuring.names else {}),
        "results": [{"fused": one.path} | _result(one, aspect) for one in scored],
    }
    typer.echo(json.dumps(document, indent=2))


def show_csv(
    scored: list[Scored], spec: FuScoreSpec, aspect: str, measuring: Measuring = NO_MEASURES
) -> None:
    """Print a line of CSV for each image: its numbers, or why it could not be computed."""
    from fuscore_metric.leaderboard.markup import csv_table

    several = aspect == ALL_ASPECTS
    names = (*(ASPECTS if several else ("score", "std", *LEVEL_WORDS)), *measuring.names)
    about = [spec.name, spec.label_statement()]
    headings = ["fused", *names, "error", "weights", "labels"]
    if measuring.names:
        headings += ["measures_convention", "measures_colour"]
        about += [measuring.convention, measuring.colour]
    rows = []
    for one in scored:
        numbers = _numbers(one, measuring, several=several) or [math.nan] * len(names)
        error = " ".join(str(one.error or "").split())
        rows.append([one.path, *numbers, error, *about])
    typer.echo(csv_table(headings, rows))


def _result(scored: Scored, aspect: str) -> dict[str, Any]:
    error = {} if scored.error is None else {"error": " ".join(str(scored.error).split())}
    if scored.output is None:
        return error

    aspects = {name: _answer(scored.output.of(name)) for name in scored.output.aspects}
    found = {"aspects": aspects} if aspect == ALL_ASPECTS else aspects[aspect]
    if scored.measures:
        known = {n: None if math.isnan(v) else v for n, v in scored.measures.items()}
        found = found | {"measures": known}
    return found | error


def _answer(output: FuScoreOutput) -> dict[str, Any]:
    """The numbers of one image and one aspect, for JSON."""
    levels = dict(zip(LEVEL_WORDS, output.probabilities[0].tolist(), strict=True))
    return {"score": output.score.item(), "std": output.std.item(), "probabilities": levels}


def show_text(
    scored: list[Scored], spec: FuScoreSpec, aspect: str, measuring: Measuring = NO_MEASURES
) -> None:
    """Print a table, or where the terminal is too narrow for its numbers some lines per image."""
    several = aspect == ALL_ASPECTS
    names = ASPECTS if several else ("score", "std", *LEVEL_WORDS)
    headings = (*(name.replace("_", " ") for name in names), *measuring.names)
    numbers = [_cells(_numbers(one, measuring, several=several)) for one in scored]
    console = make_console()
    table = _table(scored, headings, numbers)
    if not has_width(console):
        unlimited = console.options.update(max_width=_UNLIMITED)
        console.width = max(console.width, console.measure(table, options=unlimited).maximum)
    # Names of two words may be cut between them, numbers and words never.
    words = [max(map(len, heading.split() if several else [heading])) for heading in headings]
    longest = max(len(one_line(one.path)) for one in scored)
    if console.width >= sum(word + 2 for word in words) + min(longest, _NAME_WIDTH):
        console.print(table, markup=False)
    else:
        _print_lines(console, scored, headings, numbers)
    asked = "every aspect" if several else aspect
    console.print(
        f"{asked}, 1 (bad) to 5 (excellent); weights {spec.name}, {spec.label_statement()}",
        markup=False,
        soft_wrap=not has_width(console),
    )
    if measuring.names:
        from fuscore_metric.leaderboard.markup import measured

        about = measured(measuring.names, measuring.convention, measuring.colour)
        console.print(about, markup=False, soft_wrap=not has_width(console))


def _cells(numbers: list[float] | None) -> list[str] | None:
    if numbers is None:
        return None
    return ["-" if math.isnan(number) else f"{number:.3f}" for number in numbers]


def _numbers(scored: Scored, measuring: Measuring, *, several: bool) -> list[float] | None:
    """The numbers of an image, None if it has no score.

    They are its scores, or score, std and probabilities, and its measures.
    """
    output = scored.output
    if output is None:
        return None
    numbers: list[float] = output.score[0].tolist()
    if not several:
        numbers += [*output.std[0].tolist(), *output.probabilities[0, 0].tolist()]
    return numbers + [scored.measures.get(name, math.nan) for name in measuring.names]


def _table(
    scored: list[Scored], headings: tuple[str, ...], numbers: list[list[str] | None]
) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("fused", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=" " not in heading)
    for one, cells in zip(scored, numbers, strict=True):
        table.add_row(Text(one_line(one.path)), *(cells or ["-"] * len(headings)))
    return table


def _print_lines(
    console: Console,
    scored: list[Scored],
    headings: tuple[str, ...],
    numbers: list[list[str] | None],
) -> None:
    for one, cells in zip(scored, numbers, strict=True):
        console.print(Text(one_line(one.path), overflow="fold"))
        # To textwrap a heading and its number are one word.
        pairs = [f"{h}\N{NO-BREAK SPACE}{c}" for h, c in zip(headings, cells or (), strict=False)]
        for line in textwrap.wrap("  ".join(pairs) or "-", console.width - 2):
            typer.echo("  " + line.replace("\N{NO-BREAK SPACE}", " "))


SHOWN = {"text": show_text, "csv": show_csv, "json": show_json}
"""What prints, by format."""
