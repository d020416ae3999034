"""`fuscore score`: one source pair, one or more fusions of it -> scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fuscore_metric.cli._options import (
    Device,
    Dtype,
    Ir,
    Revision,
    Vis,
    Weights,
    check_options,
)
from fuscore_metric.cli._start_up import start_up
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT, LEVEL_WORDS

if TYPE_CHECKING:
    from torch import Tensor

    from fuscore_metric.model import FuScore, FuScoreOutput

CHOICES = (*ASPECTS, ALL_ASPECTS)


def score(
    ir: Ir,
    vis: Vis,
    fused: Annotated[
        list[Path], typer.Option(help="Fusion of the two; repeat the option to compare several.")
    ],
    weights: Weights = "embedded",
    revision: Revision = None,
    aspect: Annotated[str, typer.Option(help=f"What to judge: {', '.join(CHOICES)}.")] = (
        DEFAULT_ASPECT
    ),
    device: Device = "cpu",
    dtype: Dtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score fusions of one source pair.

    Example: fuscore score --ir ir.png --vis vis.png --fused fused.png
    """
    with start_up():
        check_options(aspect, device, dtype, aspects=CHOICES)
        # Files are checked before the model's code is even imported: the usual mistake should
        # answer at once.
        triples = _checked(ir, vis, fused)
        from fuscore_metric.model import FuScore
        from fuscore_metric.scoring import predict

        model = FuScore.from_pretrained(weights, revision=revision, device=device, dtype=dtype)
    output = predict(*triples, model=model, aspect=aspect)
    if as_json:
        typer.echo(json.dumps(_report(fused, output, model, aspect), indent=2))
    else:
        _show(fused, output, model, aspect)


def _checked(ir: Path, vis: Path, fused: list[Path]) -> tuple[list[Tensor], ...]:
    from fuscore_metric.images import as_images, check_triples

    images = as_images(fused if len(fused) > 1 else fused[0], "fused")
    triples = as_images(ir, "ir"), as_images(vis, "vis"), images
    check_triples(*triples)
    return triples


def _report(
    fused: list[Path], output: FuScoreOutput, model: FuScore, aspect: str
) -> dict[str, Any]:
    results = [{"fused": str(path)} | _judged(output, n, aspect) for n, path in enumerate(fused)]
    spec = model.spec
    return {
        "weights": spec.name,
        "label_kind": spec.label_kind,
        "labels": spec.label_statement(),
        "aspect": aspect,
        "results": results,
    }


def _judged(output: FuScoreOutput, number: int, aspect: str) -> dict[str, Any]:
    def one(score: Tensor, std: Tensor, probabilities: Tensor) -> dict[str, Any]:
        levels = dict(zip(LEVEL_WORDS, probabilities.tolist(), strict=True))
        return {"score": score.item(), "std": std.item(), "probabilities": levels}

    fields = output.score[number], output.std[number], output.probabilities[number]
    if aspect != ALL_ASPECTS:
        return one(*fields)
    return {"aspects": {name: one(*(f[n] for f in fields)) for n, name in enumerate(ASPECTS)}}


def _show(fused: list[Path], output: FuScoreOutput, model: FuScore, aspect: str) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("fused", overflow="fold")
    several = aspect == ALL_ASPECTS
    for heading in ASPECTS if several else ("score", "std", *LEVEL_WORDS):
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=not several)
    for n, path in enumerate(fused):
        numbers = output.score[n].tolist()
        if not several:
            numbers = [numbers, output.std[n].item(), *output.probabilities[n].tolist()]
        table.add_row(str(path), *(f"{number:.3f}" for number in numbers))
    console = Console(highlight=False)
    console.print(table, markup=False)
    asked = "every aspect" if several else aspect
    console.print(
        f"{asked}, 1 (bad) to 5 (excellent); weights {model.spec.name}, "
        f"{model.spec.label_statement()}",
        markup=False,
        soft_wrap=True,
    )
