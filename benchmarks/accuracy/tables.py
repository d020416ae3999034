"""Numbers of the protocol -> results.json and results.md, with what they stand on above them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from fuscore_training.split import Split

from benchmarks.accuracy.results import (
    CHANGES,
    Number,
    Results,
    Row,
    Values,
    by_measure,
    read_values,
    summarise,
)

MAIN_COLUMNS = (
    "ladders seen",
    "ladders held-out",
    "controls",
    "proxy SRCC",
    "within scenes",
    "held-out methods",
    *CHANGES,
)


def write_results(out: Path, split: Split) -> str:
    """Write results.json and results.md into `out`; return the latter's text."""
    values = read_values(out)
    results = summarise(values, split)
    notes = [*warnings(out, values, split), *coverage(values)]
    content = {name: jsonable(table) for name, table in vars(results).items()}
    text = json.dumps({"notes": notes, **content}, indent=2, allow_nan=False)
    (out / "results.json").write_text(text + "\n")
    markdown = as_markdown(results, notes)
    (out / "results.md").write_text(markdown)
    return markdown


def warnings(out: Path, values: Values, split: Split) -> list[str]:
    """Say so if the weights may have seen what they are tested on."""
    path = out / "weights.json"
    if not path.is_file():
        return ["No FuScore values: the measures stand alone."]
    weights = json.loads(path.read_text())
    notes = [
        f"FuScore weights: {weights['name']}, {weights['labels']}, sha256 {weights['sha256']}."
    ]
    scenes = {scene for frame in values.values() for scene in frame["scene"]}
    for what, tested in (("scenes", scenes), ("methods", set(split.held_out_methods))):
        if seen := sorted(tested - set(weights[f"held_out_{what}"])):
            notes.append(f"WARNING: the weights do not list these {what} as held out: {seen}.")
    return notes


def coverage(values: Values) -> list[str]:
    """How many scenes and images each part has, by measure family."""
    notes = []
    for part, frames in ((part, by_measure(frame)) for part, frame in values.items()):
        sizes: dict[tuple[int, int], list[str]] = {}
        for name, frame in frames.items():
            sizes.setdefault((frame["scene"].nunique(), len(frame)), []).append(name)
        texts = [f"{s} scenes, {n} images ({', '.join(of)})" for (s, n), of in sizes.items()]
        notes.append(f"{part}: {'; '.join(texts)}.")
    return notes


def as_markdown(results: Results, notes: list[str]) -> str:
    """Lay out the tables; intervals are shown for FuScore only, results.json has all."""
    blocks = [
        "\n".join(f"- {note}" for note in notes),
        "Higher is better up to `held-out methods` (Nabf and PIQE are turned round for it); the "
        "changes after it are in units of the spread between a scene's fusions: lower is better.",
        _table(results.main, MAIN_COLUMNS),
    ]
    for title, table in (
        ("Ladders by kind (tau-b)", _turned(results.ladders)),
        ("Controls (pairwise accuracy)", _turned(results.controls)),
        ("Agreement with the proxy ratings", results.agreement),
    ):
        columns = list(next(iter(table.values()), {}))
        blocks += [f"## {title}", _table(table, columns)] if columns else []
    return "\n\n".join(blocks) + "\n"


def _turned(table: dict[str, Row]) -> dict[str, Row]:
    """Columns become rows, as there are many."""
    names = dict.fromkeys(column for row in table.values() for column in row)
    return {name: {row: cells[name] for row, cells in table.items()} for name in names}


def _table(rows: dict[str, Row], columns: Sequence[str]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [_cell(name, column, row.get(column)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: str, column: str, number: Number | None) -> str:
    if number is None:
        return "-"
    if column == "rows":
        return f"{number.value:.0f}"
    return number.text(interval="FuScore" in row or "FuScore" in column)


def jsonable(table: dict[str, Row]) -> dict[str, dict[str, dict[str, float | None]]]:
    """NaN becomes null."""
    return {
        name: {
            column: {key: None if math.isnan(x) else x for key, x in number._asdict().items()}
            for column, number in row.items()
        }
        for name, row in table.items()
    }
