"""Agreement with viewers -> results.json and results.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.accuracy.results import Row
from benchmarks.accuracy.tables import jsonable
from benchmarks.accuracy.viewer_results import (
    MEASURES,
    PUBLISHED,
    RESULTS,
    SCOPES,
    VIEWERS,
    Leaderboard,
    ViewerResults,
    summarise,
)
from fuscore_metric.leaderboard.markup import markdown_table
from fuscore_metric.measures.catalogue import PAPER
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT

COEFFICIENTS = ("pooled", "within", "by method")
LEARNED = (
    "Weights that learned from viewers have seen the ratings of training scenes: only validation "
    "scenes test them."
)
SHOWN_CLASSICS = 2
"""So many classic measures stand in the leaderboard: those nearest to the viewers' order."""
KEPT = (
    "Means over pictures, each beside the undamaged one of its scene: the share that is kept of "
    "the overall score above the worst value, and the points of thermal retention that are lost."
)


def write_tables(
    frame: pd.DataFrame, data: Path, out: Path, weights: str, *, everything: bool
) -> str:
    """Write results.json and results.md into `out`; return the latter's text.

    Args:
        frame: What `panel.read_panel` returns, with a column of values a measure.
        data: Folder with VIFB's published measures.
        out: Where to write.
        weights: What FuScore's weights are, in a line.
        everything: Whether `frame` has all pictures; if not, tables are of validation scenes only.
    """
    results = summarise(frame, data, everything=everything)
    content = {
        "weights": weights,
        "sizes": results.sizes,
        **{name: _plain(getattr(results, name)) for name in ("agreement", "aspects")},
        "leaderboard": {
            "scenes": results.leaderboard.scenes,
            "means": results.leaderboard.means.to_dict("index"),
            "taus": jsonable(results.leaderboard.taus),
        },
        "kept": results.kept.to_dict("index"),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    markdown = as_markdown(results, weights)
    (out / "results.md").write_text(markdown)
    return markdown


def _plain(tables: dict[str, dict[str, dict[str, Row]]]) -> dict[str, object]:
    return {t: {s: jsonable(rows) for s, rows in of.items()} for t, of in tables.items()}


def as_markdown(results: ViewerResults, weights: str) -> str:
    """Lay out the tables, the short one first."""
    blocks = [f"FuScore weights: {weights}.", LEARNED, summary(results)]
    for table, of in results.sizes.items():
        sizes = [f"{scope}: {n} pictures of {k} scenes" for scope, (n, k) in of.items()]
        blocks += [f"### {RESULTS[table].capitalize()} (`{table}`)", f"{'; '.join(sizes)}."]
        blocks.append(agreement_table(results.agreement[table]))
    blocks += ["### Each aspect of FuScore and the viewers' rating of the same name"]
    blocks += [aspect_table(results), *leaderboard_blocks(results.leaderboard)]
    blocks += ["### What is kept (`colour_and_targets`, validation)", KEPT]
    blocks += [kept_table(results.kept)]
    return "\n\n".join(blocks) + "\n"


def summary(results: ViewerResults) -> str:
    """FuScore and the ten measures of papers: validation scenes, or all where there is none."""
    scopes = {t: "validation" if of["validation"][0] else "all" for t, of in results.sizes.items()}
    heads = [f"{t}, {s} ({results.sizes[t][s][0]})" for t, s in scopes.items()]
    tables = [results.agreement[t][s] for t, s in scopes.items()]
    lines = []
    for name in (VIEWERS, "FuScore", *PAPER):
        lines.append([name, *(_values(table[name], COEFFICIENTS) for table in tables)])
        if name == "FuScore":
            lines.append(["its 95 % interval", *(_ends(table[name]) for table in tables)])
    return markdown_table(["SRCC pooled / within scenes / by method", *heads], lines)


def _values(row: Row, columns: Sequence[str]) -> str:
    return " / ".join(_cell(row, column).split(" (")[0] for column in columns)


def _ends(row: Row) -> str:
    cells = [_cell(row, column).partition(" (")[2].rstrip(")") for column in COEFFICIENTS]
    return " / ".join(cell or "-" for cell in cells)


def agreement_table(table: dict[str, dict[str, Row]]) -> str:
    """One line a measure, the coefficients of every scope that has pictures beside each other."""
    scopes = [scope for scope, rows in table.items() if any(rows.values())]
    columns = [(scope, coefficient) for scope in scopes for coefficient in COEFFICIENTS]
    names = (VIEWERS, *MEASURES)
    lines = [[name, *(_cell(table[s][name], c) for s, c in columns)] for name in names]
    return markdown_table(["SRCC", *(f"{scope}: {c}" for scope, c in columns)], lines)


def aspect_table(results: ViewerResults) -> str:
    """One line an aspect of a table."""
    columns = [(scope, who) for scope in results.scopes for who in ("FuScore", VIEWERS)]
    heads = [f"{scope}: {who}" for scope, who in columns]
    lines = []
    for table, of in results.aspects.items():
        for aspect in (aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT):
            rows = [of[scope][f"{who} {aspect}"] for scope, who in columns]
            lines.append([f"{table}: {aspect}", *(_values(row, COEFFICIENTS[:2]) for row in rows)])
    return markdown_table(["SRCC pooled / within scenes", *heads], lines)


def leaderboard_blocks(board: Leaderboard) -> list[str]:
    """Orders of the methods, and how alike they are."""
    taus = board.taus["all"]
    classics = sorted(set(MEASURES) - {"FuScore"}, key=lambda name: -taus[name].value)
    shown = ["FuScore", *classics[:SHOWN_CLASSICS], PUBLISHED]
    ranks = board.means.rank(ascending=False, method="min").astype(int)
    lines = [
        [str(place), str(method), f"{means[DEFAULT_ASPECT]:.1f}", f"{means['FuScore']:.2f}"]
        + [str(ranks.loc[str(method), name]) for name in shown]
        for place, (method, means) in enumerate(board.means.iterrows(), start=1)
    ]
    heads = ["viewers' order", "method", "viewers, 0-100", "FuScore, 1-5"]
    scopes = [f"{scope} ({board.scenes[scope]} scenes)" for scope in SCOPES]
    tau_lines = [[n, *(_cell(board.taus[s], n) for s in SCOPES)] for n in (*MEASURES, PUBLISHED)]
    everything, validation = board.scenes["all"], board.scenes["validation"]
    return [
        "### VIFB's methods by eyes",
        f"The orders are over all {everything} scenes. Weights that learned from viewers have seen "
        f"the ratings of {everything - validation} of them, all but the {validation} validation "
        "scenes, so that only the validation column of the second table is a test of them.",
        markdown_table([*heads, *(f"order by {name}" for name in shown)], lines),
        markdown_table(["Kendall's tau with the viewers' order", *scopes], tau_lines),
    ]


def kept_table(kept: pd.DataFrame) -> str:
    """One line a kind of damage."""
    lines = [
        [str(kind), str(int(row["pictures"])), *(f"{value:.2f}" for value in row.drop("pictures"))]
        for kind, row in kept.iterrows()
    ]
    return markdown_table(["kind", "pictures", *kept.columns.drop("pictures")], lines)


def _cell(row: Row, column: str) -> str:
    number = row.get(column)
    if number is None or math.isnan(number.value):
        return "-"
    ends = "" if math.isnan(number.low) else f" ({number.low:.2f} to {number.high:.2f})"
    return f"{number.value:.2f}{ends}"
