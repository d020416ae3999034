"""Options that several commands share, and what the shell completes of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fuscore_metric.placement import DTYPES, check_device, default_device
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS
from fuscore_metric.thermal_range import check_thermal_range

AUTO = "auto"
"""The device if nobody names one."""
CHOICES = (*ASPECTS, ALL_ASPECTS)
"""What `--aspect` can be where all at once may be asked for."""


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Make what the shell asks for the values of an option: those that begin as typed."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def _checked_range(thermal_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Refuse a wrong thermal range as typer refuses a bad option."""
    try:
        check_thermal_range(thermal_range)
    except ValueError as error:
        raise typer.BadParameter("expected two numbers, the lower one first") from error
    return thermal_range


Ir = Annotated[Path, typer.Option(help="Infrared image.")]
Vis = Annotated[Path, typer.Option(help="Visible image of the same scene and size.")]
Weights = Annotated[
    str,
    typer.Option(
        help='"embedded", a checkpoint directory, or a hub id.', autocompletion=one_of("embedded")
    ),
]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the weights.")]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Searched in each name without extension; where it is found, its first group is the "
        r"scene's name. Of '0*(\d+)', 1.png, 001_fused.png and IR1.png belong together.",
    ),
]
Aspect = Annotated[
    str,
    typer.Option(
        help=f"What to judge: {', '.join(CHOICES)}.",
        autocompletion=one_of(*CHOICES),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: cpu, cuda, cuda:1, mps; auto is cuda where there is one, else cpu.",
        autocompletion=one_of(AUTO, "cpu", "cuda", "cuda:0", "mps"),
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16; by default float32, for big models on a GPU bfloat16.",
        autocompletion=one_of(*DTYPES),
    ),
]
ThermalRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        callback=_checked_range,
        help="What is black and what is white of infrared images in counts or degrees.",
    ),
]


def check_options(aspect: str, device: str, dtype: str | None, *, aspects: tuple[str, ...]) -> str:
    """Refuse an unknown aspect or dtype, or an unusable device, as typer refuses a bad option.

    Returns:
        The device; that which `AUTO` stands for here.
    """
    check_names(aspect, dtype, aspects=aspects)
    if device == AUTO:
        return str(default_device())
    try:
        check_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    return device


def check_names(aspect: str, dtype: str | None, *, aspects: tuple[str, ...]) -> None:
    """Refuse an unknown aspect or dtype."""
    if aspect not in aspects:
        raise typer.BadParameter(f"expected one of {', '.join(aspects)}", param_hint="--aspect")
    if dtype not in (None, *DTYPES):
        raise typer.BadParameter(f"expected one of {', '.join(DTYPES)}", param_hint="--dtype")
