"""Options that several commands share, and what the shell completes of their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.compute.placement import DTYPES, check_device, default_device
from fuscore_metric.images.thermal_range import check_thermal_range
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS
from fuscore_metric.runs.measuring import Measuring
from fuscore_metric.runs.scoring import Scoring

AUTO = "auto"
"""The default device: the best one of this machine."""
CHOICES = (*ASPECTS, ALL_ASPECTS)
"""What `--aspect` can be where all at once may be asked for."""
EVALUATORS = ("vifb", "tang", "tang2022", "cddfuse")
"""Conventions of measures beside the definitions."""


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Make the completion of an option: the values that begin as typed."""

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
Model = Annotated[
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
        help=f"What is scored: {', '.join(CHOICES)}.",
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
Resize = Annotated[
    Literal["crop"] | None,
    typer.Option(
        help="crop: where a method cropped its output, crop the sources alike, by content."
    ),
]


BatchSize = Annotated[int, typer.Option(min=1, help="Triples computed at once; changes no score.")]


Measures = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Classic measures beside the scores: paper (the ten of a usual table), all, or names "
        "with commas between them, such as EN,SSIM.",
        autocompletion=one_of("all", "paper"),
    ),
]
MeasuresConvention = Annotated[
    str | None,
    typer.Option(
        help="Whose formulas: standard (the definitions, the default), or the evaluator whose "
        f"numbers are to be matched: {', '.join(EVALUATORS)}.",
        autocompletion=one_of("standard", *EVALUATORS),
    ),
]
MeasuresColour = Annotated[
    Literal["luma", "channels"] | None,
    typer.Option(
        help="Colour images are measured by their luma, or as the mean over red, green and blue; "
        "by default as the convention does."
    ),
]


def scoring_options(
    *, aspect: str, measures: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `Scoring`; it takes them as one argument, `scoring`.

    Args:
        aspect: The default of `--aspect`.
        measures: Whether it has the options of classic measures, too.
    """

    def options(
        *,
        model: Model = "embedded",
        revision: Revision = None,
        aspect: Aspect = aspect,
        device: Device = AUTO,
        dtype: Dtype = None,
        batch_size: BatchSize = 8,
        thermal_range: ThermalRange = None,
        resize: Resize = None,
        measures: Measures = None,
        measures_convention: MeasuresConvention = None,
        measures_colour: MeasuresColour = None,
    ) -> Scoring:
        return Scoring(
            *(model, revision, aspect, device, dtype, batch_size, thermal_range, resize, start_up),
            measuring=_checked_measures(measures, measures_convention, measures_colour),
        )

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        every = inspect.signature(options, eval_str=True).parameters
        kept = (name for name in every if measures or not name.startswith("measures"))
        declared = {name: every[name] for name in kept}
        own = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for one in own.parameters.values():
            parameters += declared.values() if one.name == "scoring" else [one]

        @wraps(command)
        def run(**given: Any) -> None:
            scoring = options(**{name: given.pop(name) for name in declared})
            command(**given, scoring=scoring)

        # typer reads a command's options off its signature.
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorated


def _checked_measures(names: str | None, convention: str | None, colour: str | None) -> Measuring:
    """Refuse unknown measures as typer refuses a bad option."""
    with start_up():
        try:
            return Measuring.of(names, convention, colour)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--measures") from error


def checked(scoring: Scoring) -> Scoring:
    """Refuse what `check_options` refuses, and replace `AUTO` by the device it stands for here."""
    device = check_options(scoring.aspect, scoring.device, scoring.dtype, aspects=CHOICES)
    return replace(scoring, device=device)


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
