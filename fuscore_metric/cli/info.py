"""`fuscore info`: which weights these are, what they were trained on, and what runs them."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def info(
    weights: Annotated[
        str, typer.Option(help='"embedded", a checkpoint directory, or a hub id.')
    ] = "embedded",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the weights.")] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare a download's files with the hub's hashes; slow."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show where the weights come from, what kind of labels they learned, and all versions."""
    from fuscore_metric.checkpoint import read_spec
    from fuscore_metric.locate import locate

    directory = locate(weights, revision=revision)
    spec = read_spec(directory)
    facts = {"directory": str(directory), **asdict(spec), "versions": _versions()}
    if verify:
        from fuscore_metric.integrity import verify_content

        facts["verified"] = verify_content(directory) or "no hashes are known of these files"
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("labels", f"{spec.label_kind}: {spec.label_statement()}")
    for name, value in facts.items():
        if name != "label_kind":
            table.add_row(name, _text(value))
    Console(highlight=False).print(table, markup=False)


def _versions() -> dict[str, str]:
    packages = ("fuscore-metric", "torch", "transformers", "safetensors", "pillow", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_text(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
