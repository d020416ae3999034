"""The content of `results.json` -> a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(content: Mapping[str, Any]) -> str:
    """Everything but facts that only a machine reads, as Markdown tables."""
    run, facts = content["run"], content["environment"]
    lines = ["# FuScore on a GPU: what was measured", ""]
    lines += [f"`{run['command']}`, {run['seconds']:.0f} s so far", ""]
    lines += ["| fact | |", "|---|---|"]
    lines += [f"| {name} | {_cell(_fact(value))} |" for name, value in facts.items()]
    for stage in content["stages"].values():
        lines += ["", *_stage(stage)]
    return "\n".join(lines) + "\n"


def _stage(stage: Mapping[str, Any]) -> list[str]:
    spent = f"{stage['seconds']:.1f} of {stage['budget']:.0f} s"
    lines = [f"## {stage['name']}: {stage['outcome']}, {spent}", ""]
    found = [m for m in stage["measurements"] if m["values"]]
    if found:
        lines += ["| measurement | what | value | unit | note |", "|---|---|---|---|---|"]
        for measurement in found:
            lines += [_row(measurement["name"], value) for value in measurement["values"]]
    quiet = [m["name"] for m in stage["measurements"] if m["outcome"] == "ok" and not m["values"]]
    if quiet:
        lines += ["", "Also ok: " + ", ".join(f"`{name}`" for name in quiet) + "."]
    lines += _outcomes(stage["measurements"], "skipped", "running")
    for one in (stage, *(m for m in stage["measurements"] if m["outcome"] == "failed")):
        if one["outcome"] == "failed" and one["traceback"]:
            lines += ["", f"### {one['name']} failed: {_cell(one['reason'])}", ""]
            lines += ["```text", one["traceback"].rstrip(), "```"]
    return lines


def _outcomes(measurements: Sequence[Mapping[str, Any]], *outcomes: str) -> list[str]:
    chosen = [m for m in measurements if m["outcome"] in outcomes]
    if not chosen:
        return []
    rows = [f"| {_cell(m['name'])} | {m['outcome']} | {_cell(m['reason'])} |" for m in chosen]
    return ["", "| without result | | why |", "|---|---|---|", *rows]


def _row(name: str, value: Mapping[str, Any]) -> str:
    cells = (name, value["name"], _figures(value["value"]), value["unit"], value["note"])
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _figures(value: object) -> str:
    """Four significant figures, without an exponent where there is room."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
