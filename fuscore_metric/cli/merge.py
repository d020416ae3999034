"""`fuscore merge`: an adapter and its base model -> one checkpoint with all weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fuscore_metric.checkpoint import CheckpointError
from fuscore_metric.cli._options import Revision, Weights
from fuscore_metric.cli._start_up import start_up
from fuscore_metric.placement import choose_dtype

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore


def merge(
    weights: Weights,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    revision: Revision = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base model's directory or hub id, if it is not where it was."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the merged weights: float32 or bfloat16. Merging is in float32.")
    ] = "bfloat16",
) -> None:
    """Add an adapter to its base model's weights: one checkpoint that needs no peft.

    Example: fuscore merge --weights owner/adapter --out merged/
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"Expected `out` not to exist or to be empty, got {str(out)!r}")
    with start_up():
        model = _load(weights, revision, base)
    if model.backbone.adapter is None:
        raise CheckpointError(
            f"Expected an adapter's checkpoint to merge, got {model.spec.weights} weights"
        )
    model.merge().to(choose_dtype(dtype, type(model.backbone), on_cpu=True)).save_pretrained(out)
    Console(highlight=False).print(f"{out}: {model.spec.name}, merged", markup=False)


def _load(weights: str, revision: str | None, base: str | None) -> FuScore:
    from fuscore_metric.model import FuScore

    if base is None:
        return FuScore.from_pretrained(weights, revision=revision, dtype="float32")
    return FuScore.from_pretrained(
        base, adapter=weights, adapter_revision=revision, dtype="float32"
    )
