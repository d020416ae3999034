"""What all printed tables share: the sentence on the weights, and Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#&])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def provenance(settings: Mapping[str, Any]) -> str:
    """The weights and their labels, in a sentence that belongs to every table of scores.

    Args:
        settings: Of the run, as `read_results` gives them; empty for a table without.
    """
    weights, labels = settings.get("weights"), settings.get("labels")
    if not weights or not labels:
        return "Weights and labels unknown: this table came without the settings of its run."
    aspect = settings.get("aspect")
    asked = "" if aspect in (None, "all", "overall") else f", aspect {aspect}"
    return f"FuScore{asked}, 1 (bad) to 5 (excellent); weights {weights}, {labels}."


def higher_is_better(measure: str) -> bool:
    """The direction of a classic measure."""
    from fuscore_metric.measures.catalogue import MEASURES  # not at the top: it needs torch

    return MEASURES[measure].higher_is_better


def measured(names: Sequence[str], convention: str | None, colour: str | None) -> str:
    """What classic measures are, in a sentence that belongs to every table of them.

    Args:
        names: Of the measures.
        convention: Whose formulas; None for a table without the settings of its run.
        colour: How colour images were measured; None likewise.
    """
    lower = [name for name in names if not higher_is_better(name)]
    how = f"convention {convention or 'unknown'}, colour {colour or 'unknown'}"
    return f"Classic measures: {how}{', lower is better for ' * bool(lower)}{', '.join(lower)}."


def one_line(text: str) -> str:
    """Text without line breaks and control characters, as names of files may have them."""
    return "".join(c if c.isprintable() else " " for c in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    escaped = "".join(_LATEX.get(character, character) for character in one_line(text))
    # At the start of a row these would be options of the line break before them.
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table of cells that are escaped already; the first `left` columns are text."""
    rule = ["---" if n < left else "---:" for n in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def csv_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV table; a number that does not exist, or None, is an empty cell."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(headings)
    for row in rows:
        write("" if isinstance(one, float) and math.isnan(one) else one for one in row)
    return text.getvalue().rstrip("\n")


def latex_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    columns: str,
    caption: str,
    label: str,
    statement: str,
) -> str:
    r"""A LaTeX table with booktabs rules; headings and rows are escaped already.

    Args:
        headings: Cells of the first row.
        rows: Cells of the others.
        columns: Such as "lrr".
        caption: Plain text.
        label: For `\ref`.
        statement: Plain text about the weights. It is printed with the caption, and is a comment
            at the top, which stays with the numbers when the caption is rewritten.
    """
    lines = [
        f"% {one_line(statement)}",
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escape_latex(caption)} {escape_latex(statement)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {' & '.join(headings)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(cells)} \\\\" for cells in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)
