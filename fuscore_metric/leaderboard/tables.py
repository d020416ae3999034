"""A leaderboard -> a table for a terminal, Markdown, LaTeX, CSV or JSON.

Every table names the weights that gave the scores, and what those learned from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fuscore_metric.leaderboard.markup import (
    csv_table,
    escape_latex,
    escape_markdown,
    higher_is_better,
    latex_table,
    markdown_table,
    measured,
    one_line,
    provenance,
)
from fuscore_metric.leaderboard.statistics import Leaderboard, MethodSummary
from fuscore_metric.measures.trust import doubts
from fuscore_metric.results.rows import FURTHER_ASPECTS

NARROWEST_NAME = 12
"""Characters that a terminal's column of method names is left with at least; longer ones fold."""

_GAP = 2  # characters between columns


@dataclass(frozen=True)
class _Column:
    """A column: a number of each method, and a text behind it that is not marked.

    Attributes:
        heading: In a terminal.
        numbers: As printed.
        extras: The texts.
        better: Which of `values` are marked; "" marks none.
        values: The numbers.
        measure: Whether it is a classic measure, which has an arrow whether marked or not.
    """

    heading: str
    numbers: list[str]
    extras: list[str]
    better: Literal["high", "low", ""] = ""
    values: tuple[float, ...] = ()
    measure: bool = False

    def cells(self) -> list[str]:
        return [
            f"{number} {extra}".rstrip()
            for number, extra in zip(self.numbers, self.extras, strict=True)
        ]

    @property
    def arrow(self) -> str:
        """The direction of better numbers."""
        if self.measure:
            return "↑" if higher_is_better(self.heading) else "↓"
        return {"high": "↑", "low": "↓", "": ""}[self.better]

    def places(self) -> list[int]:
        """1 for the best numbers, 2 for the second best, else 0; equal as printed is equal."""
        known = [
            (-value if self.better == "high" else value, number)
            for value, number in zip(self.values, self.numbers, strict=False)
            if not math.isnan(value)
        ]
        if not self.better or len(known) < 2:
            return [0] * len(self.numbers)
        distinct = list(dict.fromkeys(number for _, number in sorted(known)))
        # With two methods the second best would be the worst.
        marked = distinct[: 2 if len(known) > 2 else 1]
        return [marked.index(n) + 1 if n in marked else 0 for n in self.numbers]


def as_rich(board: Leaderboard, *, settings: Mapping[str, Any], width: int) -> Group:
    """A table for a terminal, best first, with what it means below.

    Args:
        board: The leaderboard.
        settings: Of the run, as `read_results` gives them.
        width: Of the terminal, in characters. Where it is short, columns are dropped,
            aspects first, and a line says which.

    Returns:
        What `rich.console.Console.print` takes; also readable without colours.
    """
    names = [one_line(summary.method) for summary in board.methods]
    columns, measures = _columns(board), _measure_names(board)
    name_width = min(max(map(cell_len, ["method", *names])), NARROWEST_NAME)
    # The least important first; of equal ones the last. Measures are there only if asked for.
    order = [*reversed(_aspects(board)), *reversed(measures), "scenes", "win %", "rank", "groups"]
    dropped = []
    for heading in order:
        if name_width + sum(_width(column) + _GAP for column in columns) <= width:
            break
        dropped += [column.heading for column in columns if column.heading == heading]
        columns = [column for column in columns if column.heading != heading]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    table.add_column("method", overflow="fold")
    for column in columns:
        table.add_column(
            column.heading, justify="left" if column.heading == "groups" else "right", no_wrap=True
        )
    styles = {0: "", 1: "bold", 2: "underline"}
    shown = [
        [
            Text.assemble((number, styles[place]), f" {extra}" if extra else "")
            for number, extra, place in zip(c.numbers, c.extras, c.places(), strict=True)
        ]
        for c in columns
    ]
    for name, *cells in zip(names, *shown, strict=True):
        table.add_row(Text(name), *cells)
    below = [_legend(board, settings), *board.notes, provenance(settings)]
    if dropped:
        rest = " leaderboard.csv and .to_pandas() have all columns." if measures else ""
        below.insert(1, f"Not shown in {width} characters: {', '.join(dropped)}.{rest}")
    return Group(table, Text(""), *map(Text, below))


def as_markdown(board: Leaderboard, *, settings: Mapping[str, Any]) -> str:
    """A Markdown table: the best number of a column bold, the second in italics.

    With classic measures the second is underlined, as papers print them.

    Args:
        board: The leaderboard.
        settings: Of the run, as `read_results` gives them.
    """
    columns, measures = _columns(board), _measure_names(board)
    wrap = {0: "{}", 1: "**{}**", 2: "<u>{}</u>" if measures else "*{}*"}
    names = [escape_markdown(summary.method) for summary in board.methods]
    table = markdown_table(
        ["method", *(c.heading + f" {c.arrow}" * c.measure for c in columns)],
        _rows(names, columns, lambda number, place: wrap[place].format(number)),
    )
    below = [_legend(board, settings), *board.notes, provenance(settings)]
    return "\n\n".join([table, *map(escape_markdown, below)])


def as_latex(board: Leaderboard, *, settings: Mapping[str, Any]) -> str:
    """A LaTeX table (booktabs): the best number of a column bold, the second underlined.

    Args:
        board: The leaderboard.
        settings: Of the run, as `read_results` gives them.
    """
    columns = _columns(board)
    wrap = {0: "%s", 1: r"\textbf{%s}", 2: r"\underline{%s}"}
    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    names = [escape_latex(summary.method) for summary in board.methods]
    headings = [
        escape_latex(c.heading if c.measure else c.heading.capitalize()) + arrows[c.arrow]
        for c in columns
    ]
    alignment = ["l" if column.heading == "groups" else "r" for column in columns]
    return latex_table(
        ["Method", *headings],
        _rows(names, columns, lambda number, place: wrap[place] % number),
        columns="l" + "".join(alignment),
        caption=" ".join([_legend(board, settings), *board.notes]),
        label="tab:fuscore",
        statement=provenance(settings),
    )


def as_csv(board: Leaderboard, *, settings: Mapping[str, Any]) -> str:
    """All numbers of the methods as CSV; one that does not exist is an empty cell.

    Args:
        board: The leaderboard.
        settings: Of the run, as `read_results` gives them.
    """
    numbers = ("mean", "low", "high", "std", "mean_rank", "win_rate", "groups", "scenes")
    aspects, measures = _aspect_names(board), _measure_names(board)
    statement = " ".join([provenance(settings), *about_measures(board, settings), *board.notes])
    return csv_table(
        ["method", *numbers, *aspects, *measures, "statement"],
        [
            [
                summary.method,
                *(getattr(summary, name) for name in numbers),
                *(summary.aspects.get(name) for name in aspects),
                *(summary.measures[name] for name in measures),
                statement,
            ]
            for summary in board.methods
        ],
    )


def as_json(board: Leaderboard, *, settings: Mapping[str, Any]) -> str:
    """All of a leaderboard as JSON; a number that does not exist is null.

    Args:
        board: The leaderboard.
        settings: Of the run, as `read_results` gives them.
    """
    measures = _measure_names(board)
    lines = [asdict(summary) for summary in board.methods]
    if not measures:
        lines = [{key: line[key] for key in line if key != "measures"} for line in lines]
    report = {
        "labels": settings.get("labels"),
        "statement": provenance(settings),
        **({"measures": _described(measures, settings)} if measures else {}),
        "methods": lines,
        "p_values": board.p_values.to_dict("index"),
        "preferences": board.preferences.to_dict("index"),
        "groups": board.groups,
        "scenes": board.scenes,
        "left_out": board.left_out,
        "in_training": board.in_training,
        "notes": board.notes,
        "paired": board.paired,
        "confidence": board.confidence,
        "resamples": board.resamples,
        "alpha": board.alpha,
        "settings": dict(settings),
    }
    return json.dumps(without_nan(report), indent=2)


def about_measures(board: Leaderboard, settings: Mapping[str, Any]) -> list[str]:
    """Sentences on the classic measures of a leaderboard; none where it has none."""
    names = _measure_names(board)
    if not names:
        return []
    how = (settings.get(name) for name in ("measures_convention", "measures_colour"))
    return [sentence for sentence in (measured(names, *how), doubts(names)) if sentence]


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: float, form: str = ".3f") -> str:
    """A number for people; a dash for one that does not exist."""
    return "-" if math.isnan(value) else format(value, form)


def interval(low: float, high: float, form: str = ".3f") -> str:
    """An interval for people; nothing for one that does not exist."""
    return "" if math.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def _columns(board: Leaderboard) -> list[_Column]:
    # Means over different scenes must not be compared, so none is marked as the best.
    better: Literal["high", ""] = "high" if board.paired else ""
    columns = [
        _column(board, "score", lambda m: m.mean, better=better, extra=_interval),
        *(
            _column(board, aspect, _aspect_mean(name), better=better)
            for aspect, name in zip(_aspects(board), _aspect_names(board), strict=True)
        ),
        _column(board, "rank", lambda m: m.mean_rank, ".2f", better="low"),
        _column(board, "win %", lambda m: 100 * m.win_rate, ".1f", better="high"),
        _Column("groups", [m.groups for m in board.methods], [""] * len(board.methods)),
        *(_measure_column(board, name) for name in _measure_names(board)),
    ]
    if not board.paired:  # else all have the same ones, and the legend says how many
        columns.append(_column(board, "scenes", lambda m: m.scenes, "d"))
    if len(board.methods) == 1:
        columns = [c for c in columns if c.heading not in ("rank", "win %", "groups")]
    return columns


def _column(
    board: Leaderboard,
    heading: str,
    value: Callable[[MethodSummary], float],
    form: str = ".3f",
    *,
    better: Literal["high", "low", ""] = "",
    extra: Callable[[MethodSummary], str] = lambda _: "",
) -> _Column:
    values = tuple(value(summary) for summary in board.methods)
    return _Column(
        heading,
        [number(one, form) for one in values],
        [extra(summary) for summary in board.methods],
        better,
        values,
    )


def _measure_column(board: Leaderboard, name: str) -> _Column:
    better: Literal["high", "low"] = "high" if higher_is_better(name) else "low"
    column = _column(board, name, lambda m: m.measures[name], better=better if board.paired else "")
    return replace(column, measure=True)


def _interval(summary: MethodSummary) -> str:
    return interval(summary.low, summary.high)


def _aspect_mean(name: str) -> Callable[[MethodSummary], float]:
    return lambda summary: summary.aspects.get(name, math.nan)


def _aspect_names(board: Leaderboard) -> list[str]:
    return [name for name in FURTHER_ASPECTS if any(name in m.aspects for m in board.methods)]


def _measure_names(board: Leaderboard) -> list[str]:
    return list(board.methods[0].measures)


def _described(measures: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the measures are, for programs."""
    return {
        "convention": settings.get("measures_convention"),
        "colour": settings.get("measures_colour"),
        "higher_is_better": {name: higher_is_better(name) for name in measures},
    }


def _aspects(board: Leaderboard) -> list[str]:
    """Headings of the aspects: the first word of `thermal_retention` tells it from the others."""
    return [name.split("_")[0] for name in _aspect_names(board)]


def _width(column: _Column) -> int:
    return max(map(cell_len, [column.heading, *column.cells()]))


def _rows(
    names: list[str], columns: list[_Column], mark: Callable[[str, int], str]
) -> list[list[str]]:
    marked = [
        [
            f"{mark(number, place)} {extra}".rstrip()
            for number, extra, place in zip(c.numbers, c.extras, c.places(), strict=True)
        ]
        for c in columns
    ]
    return [[name, *cells] for name, *cells in zip(names, *marked, strict=True)]


def _legend(board: Leaderboard, settings: Mapping[str, Any]) -> str:
    """What the columns mean."""
    scenes = len(board.scenes)
    over = f"{scenes} scene{'s' if scenes > 1 else ''}" if board.paired else "the method's scenes"
    span = f" [{100 * board.confidence:g} % bootstrap interval]" if scenes > 1 else ""
    parts = [f"Score: mean over {over}{span}."]
    if len(board.methods) > 1:
        parts += [
            "Rank: mean over scenes, 1 is best.",
            "Win: share of scenes and other methods beaten, ties count half.",
            "Between methods that share a letter no difference was found (Wilcoxon signed-rank "
            f"test, Holm, alpha {board.alpha:g}).",
        ]
    return " ".join([*parts, *about_measures(board, settings)])
