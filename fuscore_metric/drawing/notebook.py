"""Scores as an HTML table: what a notebook shows of an output or a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from fuscore_metric.prompts import LEVEL_WORDS

if TYPE_CHECKING:
    from fuscore_metric.outputs import FuScoreOutput

WIDTH = 160
"""Of a bar for the best score, in pixels."""
COLOURS = ("#b2182b", "#ef8a62", "#cccccc", "#67a9cf", "#2166ac")
"""Of the level words, worst first."""


def table(names: Sequence[str], output: FuScoreOutput) -> str:
    """Draw a table of N triples, in the order given.

    Args:
        names: N names, in the first column.
        output: Of one aspect or of several.

    Returns:
        HTML. Without an axis of aspects: score, standard deviation and a bar of the five levels'
        probabilities. With one: a column of scores for each aspect.
    """
    if not output.aspects:
        heads = ["score", "std", "bad to excellent"]
        rows = [[f"{s:.3f}", f"{d:.3f}", _bar(p)] for s, d, p in _values(output)]
    else:
        heads = list(output.aspects)
        rows = [[f"{score:.3f}" for score in scores] for scores in output.score.tolist()]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *heads))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in zip(names, rows, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _values(output: FuScoreOutput) -> list[tuple[float, float, list[float]]]:
    fields = (output.score, output.std, output.probabilities)
    return list(zip(*(field.tolist() for field in fields), strict=True))


def _bar(probabilities: Sequence[float]) -> str:
    """One stripe for each level, as wide as it is probable."""
    parts = zip(LEVEL_WORDS, COLOURS, probabilities, strict=True)
    stripes = "".join(
        f'<span title="{word}: {p:.0%}" style="display:inline-block;height:1em;'
        f'width:{p * WIDTH:.1f}px;background:{colour}"></span>'
        for word, colour, p in parts
    )
    return f'<span style="white-space:nowrap;line-height:0">{stripes}</span>'
