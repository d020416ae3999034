"""`fuscore score`: one source pair, one or more fusions of it -> scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT, LEVEL_WORDS

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore, FuScoreOutput


def score(
    ir: Annotated[Path, typer.Option(help="Infrared image.")],
    vis: Annotated[Path, typer.Option(help="Visible image of the same scene and size.")],
    fused: Annotated[
        list[Path], typer.Option(help="Fusion of the two; repeat the option to compare several.")
    ],
    weights: Annotated[
        str, typer.Option(help='"embedded", a checkpoint directory, or a hub id.')
    ] = "embedded",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the weights.")] = None,
    aspect: Annotated[str, typer.Option(help=f"What to judge: {', '.join(ASPECTS)}.")] = (
        DEFAULT_ASPECT
    ),
    device: Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score fusions of one source pair.

    Example: fuscore score --ir ir.png --vis vis.png --fused fused.png
    """
    if aspect not in ASPECTS:
        raise typer.BadParameter(f"expected one of {', '.join(ASPECTS)}", param_hint="--aspect")
    from fuscore_metric.images import as_images, check_triples
    from fuscore_metric.model import FuScore, check_device
    from fuscore_metric.scoring import predict

    try:
        check_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    # Files are checked before the weights are loaded: the usual mistake should answer at once.
    images = as_images(fused if len(fused) > 1 else fused[0], "fused")
    triples = as_images(ir, "ir") * len(images), as_images(vis, "vis") * len(images), images
    check_triples(*triples)
    model = FuScore.from_pretrained(weights, revision=revision, device=device)
    output = predict(*triples, model=model, aspect=aspect)
    if as_json:
        typer.echo(json.dumps(_report(fused, output, model, aspect), indent=2))
    else:
        _show(fused, output, model, aspect)


def _report(
    fused: list[Path], output: FuScoreOutput, model: FuScore, aspect: str
) -> dict[str, Any]:
    results = [
        {
            "fused": str(path),
            "score": output.score[n].item(),
            "std": output.std[n].item(),
            "probabilities": dict(zip(LEVEL_WORDS, output.probabilities[n].tolist(), strict=True)),
        }
        for n, path in enumerate(fused)
    ]
    spec = model.spec
    return {
        "weights": spec.name,
        "label_kind": spec.label_kind,
        "labels": spec.label_statement(),
        "aspect": aspect,
        "results": results,
    }


def _show(fused: list[Path], output: FuScoreOutput, model: FuScore, aspect: str) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("fused", overflow="fold")
    for heading in ("score", "std", *LEVEL_WORDS):
        table.add_column(heading, justify="right", no_wrap=True)
    for n, path in enumerate(fused):
        levels = [f"{p:.3f}" for p in output.probabilities[n].tolist()]
        table.add_row(str(path), f"{output.score[n]:.3f}", f"{output.std[n]:.3f}", *levels)
    console = Console(highlight=False)
    console.print(table, markup=False)
    console.print(
        f"{aspect}, 1 (bad) to 5 (excellent); weights {model.spec.name}, "
        f"{model.spec.label_statement()}",
        markup=False,
        soft_wrap=True,
    )
