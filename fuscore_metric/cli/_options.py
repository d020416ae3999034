"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuscore_metric.placement import DTYPES, check_device

Ir = Annotated[Path, typer.Option(help="Infrared image.")]
Vis = Annotated[Path, typer.Option(help="Visible image of the same scene and size.")]
Weights = Annotated[str, typer.Option(help='"embedded", a checkpoint directory, or a hub id.')]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the weights.")]
Device = Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16; by default float32, for big models on a GPU bfloat16."
    ),
]


def check_options(aspect: str, device: str, dtype: str | None, *, aspects: tuple[str, ...]) -> None:
    """Refuse an unknown aspect or dtype, or an unusable device, as typer refuses a bad option."""
    if aspect not in aspects:
        raise typer.BadParameter(f"expected one of {', '.join(aspects)}", param_hint="--aspect")
    if dtype not in (None, *DTYPES):
        raise typer.BadParameter(f"expected one of {', '.join(DTYPES)}", param_hint="--dtype")
    try:
        check_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
