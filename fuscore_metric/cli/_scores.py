"""Outputs of the fusions of one source pair -> a table, lines for narrow terminals, CSV or JSON."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from fuscore_metric.cli._console import has_width, make_console, one_line
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, LEVEL_WORDS

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from fuscore_metric.checkpoint import FuScoreSpec
    from fuscore_metric.model import FuScoreOutput

_NAME_WIDTH = 16
"""Columns that a name needs in a table, at least; longer ones are folded."""
_UNLIMITED = 100_000


@dataclass(frozen=True)
class Judged:
    """A fused image and what came of it.

    Attributes:
        path: The file.
        output: Of this image alone, fields (1,), (1, 5); of all aspects (1, A), (1, A, 5). None if
            it could not be judged.
        error: Why it could not.
    """

    path: str
    output: FuScoreOutput | None
    error: Exception | None = None


def show_json(judged: list[Judged], spec: FuScoreSpec, aspect: str) -> None:
    """Print one JSON document: an image that could not be judged has an `error`."""
    document = {
        "weights": spec.name,
        "label_kind": spec.label_kind,
        "labels": spec.label_statement(),
        "aspect": aspect,
        "results": [{"fused": one.path} | _result(one, aspect) for one in judged],
    }
    typer.echo(json.dumps(document, indent=2))


def show_csv(judged: list[Judged], spec: FuScoreSpec, aspect: str) -> None:
    """Print a line of CSV for each image: its numbers, or why it could not be judged."""
    from fuscore_metric.leaderboard.markup import csv_table

    names = ASPECTS if aspect == ALL_ASPECTS else ("score", "std", *LEVEL_WORDS)
    rows = []
    for one in judged:
        numbers = _numbers(one, several=aspect == ALL_ASPECTS) or [math.nan] * len(names)
        error = " ".join(str(one.error or "").split())
        rows.append([one.path, *numbers, error, spec.name, spec.label_statement()])
    typer.echo(csv_table(["fused", *names, "error", "weights", "labels"], rows))


def _result(judged: Judged, aspect: str) -> dict[str, Any]:
    if judged.output is None:
        return {"error": " ".join(str(judged.error).split())}

    def one(score: Tensor, std: Tensor, probabilities: Tensor) -> dict[str, Any]:
        levels = dict(zip(LEVEL_WORDS, probabilities.tolist(), strict=True))
        return {"score": score.item(), "std": std.item(), "probabilities": levels}

    output = judged.output
    fields = output.score[0], output.std[0], output.probabilities[0]
    if aspect != ALL_ASPECTS:
        return one(*fields)
    return {"aspects": {name: one(*(f[n] for f in fields)) for n, name in enumerate(ASPECTS)}}


def show_text(judged: list[Judged], spec: FuScoreSpec, aspect: str) -> None:
    """Print a table, or where the terminal is too narrow for its numbers some lines an image."""
    several = aspect == ALL_ASPECTS
    headings = tuple(
        heading.replace("_", " ")
        for heading in (ASPECTS if several else ("score", "std", *LEVEL_WORDS))
    )
    numbers = [
        None if (found := _numbers(one, several=several)) is None else [f"{n:.3f}" for n in found]
        for one in judged
    ]
    console = make_console()
    table = _table(judged, headings, numbers)
    if not has_width(console):
        unlimited = console.options.update(max_width=_UNLIMITED)
        console.width = max(console.width, console.measure(table, options=unlimited).maximum)
    # Names of two words may be cut between them, numbers and words never.
    words = [max(map(len, heading.split() if several else [heading])) for heading in headings]
    longest = max(len(one_line(one.path)) for one in judged)
    if console.width >= sum(word + 2 for word in words) + min(longest, _NAME_WIDTH):
        console.print(table, markup=False)
    else:
        _print_lines(console, judged, headings, numbers)
    asked = "every aspect" if several else aspect
    console.print(
        f"{asked}, 1 (bad) to 5 (excellent); weights {spec.name}, {spec.label_statement()}",
        markup=False,
        soft_wrap=not has_width(console),
    )


def _numbers(judged: Judged, *, several: bool) -> list[float] | None:
    """The numbers of an image: its scores, or score, std and probabilities; None if it has none."""
    output = judged.output
    if output is None:
        return None
    score: list[float] = output.score.flatten().tolist()
    return score if several else [*score, *output.std.tolist(), *output.probabilities[0].tolist()]


def _table(
    judged: list[Judged], headings: tuple[str, ...], numbers: list[list[str] | None]
) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("fused", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=" " not in heading)
    for one, cells in zip(judged, numbers, strict=True):
        table.add_row(Text(one_line(one.path)), *(cells or ["-"] * len(headings)))
    return table


def _print_lines(
    console: Console,
    judged: list[Judged],
    headings: tuple[str, ...],
    numbers: list[list[str] | None],
) -> None:
    for one, cells in zip(judged, numbers, strict=True):
        console.print(Text(one_line(one.path), overflow="fold"))
        # To textwrap a heading and its number are one word.
        pairs = [f"{h}\N{NO-BREAK SPACE}{c}" for h, c in zip(headings, cells or (), strict=False)]
        for line in textwrap.wrap("  ".join(pairs) or "-", console.width - 2):
            typer.echo("  " + line.replace("\N{NO-BREAK SPACE}", " "))


SHOWN = {"text": show_text, "csv": show_csv, "json": show_json}
"""What prints, by format."""
