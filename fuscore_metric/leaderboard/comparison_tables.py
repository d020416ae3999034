"""A comparison of two methods -> text for a terminal, Markdown, LaTeX, CSV or JSON.

Every table names the weights that gave the scores, and what those learned from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fuscore_metric.leaderboard.comparison import Comparison, SceneComparison
from fuscore_metric.leaderboard.markup import (
    csv_table,
    escape_latex,
    escape_markdown,
    latex_table,
    markdown_table,
    one_line,
    provenance,
)
from fuscore_metric.leaderboard.tables import interval, without_nan


def as_rich(result: Comparison, *, settings: Mapping[str, Any], limit: int | None = None) -> Group:
    """Text for a terminal: the verdict, the scenes, and those that disagree.

    Args:
        result: The comparison.
        settings: Of the run, as `read_results` gives them.
        limit: How many scenes to list, and how many of those that disagree; None lists all.

    Returns:
        What `rich.console.Console.print` takes; also readable without colours.
    """
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(overflow="fold")
    facts.add_column(overflow="fold")
    for name, value in _facts(result):
        facts.add_row(Text(one_line(name)), Text(value))
    parts: list[RenderableType] = [Text(_title(result), style="bold"), facts, Text("")]
    for heading, scenes in _lists(result):
        parts += [Text(heading, style="bold"), _scene_table(result, scenes[:limit])]
        more = _more(scenes, limit)
        parts += [Text(f"{more}\n" if more else "")]
    return Group(*parts, *map(Text, (*result.notes, provenance(settings))))


def as_markdown(
    result: Comparison, *, settings: Mapping[str, Any], limit: int | None = None
) -> str:
    """The same in Markdown.

    Args:
        result: The comparison.
        settings: Of the run, as `read_results` gives them.
        limit: How many scenes to list, and how many of those that disagree; None lists all.
    """
    facts = [[escape_markdown(cell) for cell in fact] for fact in _facts(result)]
    parts = [f"**{escape_markdown(_title(result))}**", markdown_table(["", ""], facts, left=2)]
    for heading, scenes in _lists(result):
        cells = [[escape_markdown(cell) for cell in _cells(scene)] for scene in scenes[:limit]]
        headings = [escape_markdown(name) for name in _headings(result)]
        parts += [f"**{escape_markdown(heading)}**", markdown_table(headings, cells)]
        parts += [_more(scenes, limit)]
    below = map(escape_markdown, (*result.notes, provenance(settings)))
    return "\n\n".join(part for part in (*parts, *below) if part)


def as_latex(result: Comparison, *, settings: Mapping[str, Any], limit: int | None = None) -> str:
    """A LaTeX table (booktabs) of the scenes; the verdict is its caption.

    Args:
        result: The comparison.
        settings: Of the run, as `read_results` gives them.
        limit: How many scenes to list; None lists all.
    """
    facts = "; ".join(f"{name} {value}" for name, value in _facts(result))
    caption = [f"{_title(result)}: {facts}.", _more(result.scenes, limit), *result.notes]
    return latex_table(
        [
            escape_latex(name.capitalize() if n == 0 else name)
            for n, name in enumerate(_headings(result))
        ],
        [[escape_latex(cell) for cell in _cells(scene)] for scene in result.scenes[:limit]],
        columns="lrrr",
        caption=" ".join(part for part in caption if part),
        label="tab:fuscore-compare",
        statement=provenance(settings),
    )


def as_csv(result: Comparison, *, settings: Mapping[str, Any]) -> str:
    """Every scene of a comparison as CSV.

    Args:
        result: The comparison.
        settings: Of the run, as `read_results` gives them.
    """
    names = ("scene", "score_a", "score_b", "difference", "preference")
    statement = " ".join([*result.notes, provenance(settings)])
    return csv_table(
        ["a", "b", *names, "statement"],
        [
            [result.a, result.b, *(getattr(scene, name) for name in names), statement]
            for scene in result.scenes
        ],
    )


def as_json(result: Comparison, *, settings: Mapping[str, Any]) -> str:
    """All of a comparison as JSON, every scene; a number that does not exist is null.

    Args:
        result: The comparison.
        settings: Of the run, as `read_results` gives them.
    """
    report = {
        "labels": settings.get("labels"),
        "statement": provenance(settings),
        **asdict(result),
        "winner": result.winner,
        "disagreeing": [scene.scene for scene in result.disagreeing],
        "settings": dict(settings),
    }
    return json.dumps(without_nan(report), indent=2)


def _title(result: Comparison) -> str:
    count = len(result.scenes)
    return f"{result.a} against {result.b} on {count} scene{'s' if count > 1 else ''}"


def _facts(result: Comparison) -> list[tuple[str, str]]:
    """The numbers of the comparison, by name."""
    win = interval(100 * result.win_low, 100 * result.win_high, ".1f")
    ties = ", ties count half" if any(scene.difference == 0 for scene in result.scenes) else ""
    facts = [
        (f"{result.a} wins", f"{100 * result.win_rate:.1f} % {win} of scenes{ties}"),
        (
            "difference of means",
            f"{result.difference:+.3f} {interval(result.low, result.high, '+.3f')}".rstrip()
            + f" ({result.mean_a:.3f} against {result.mean_b:.3f})",
        ),
        ("Wilcoxon signed-rank test", f"p = {result.p_value:.2g}"),
        (f"P({result.a} is better)", f"{result.preference:.3f} on average"),
    ]
    return [*facts, ("intervals", f"{100 * result.confidence:g} %, over scenes")]


def _lists(result: Comparison) -> list[tuple[str, tuple[SceneComparison, ...]]]:
    """Headings and scenes of the lists to show; a list without scenes is not shown."""
    lists = [(f"Scenes, surest for {result.a} first", result.scenes)]
    against = result.disagreeing
    if against:
        count = f"{len(against)} of {len(result.scenes)}"
        lists.append((f"Scenes that disagree with the means, surest first: {count}", against))
    return lists


def _headings(result: Comparison) -> tuple[str, ...]:
    return ("scene", f"P({result.a} better)", result.a, result.b)


def _cells(scene: SceneComparison) -> tuple[str, ...]:
    return (
        scene.scene,
        f"{scene.preference:.3f}",
        f"{scene.score_a:.3f}",
        f"{scene.score_b:.3f}",
    )


def _scene_table(result: Comparison, scenes: Sequence[SceneComparison]) -> Table:
    table = Table(box=None, pad_edge=False)
    for n, heading in enumerate(_headings(result)):
        table.add_column(
            Text(one_line(heading)), justify="right" if n else "left", overflow="fold", min_width=5
        )
    for scene in scenes:
        table.add_row(*(Text(one_line(cell)) for cell in _cells(scene)))
    return table


def _more(scenes: Sequence[SceneComparison], limit: int | None) -> str:
    """How many scenes a list does not show."""
    hidden = 0 if limit is None else len(scenes) - limit
    return f"{hidden} more scene{'s' if hidden > 1 else ''} not shown." if hidden > 0 else ""
