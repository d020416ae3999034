"""`fuscore explain`: one triple -> its score and a picture of where the score was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fuscore_metric.cli.shared.options import (
    AUTO,
    Device,
    Dtype,
    Ir,
    Model,
    Revision,
    ThermalRange,
    Vis,
    check_options,
)
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.errors import InputError
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_metric.runs.scoring import Scoring

if TYPE_CHECKING:
    from torch import Tensor

    from fuscore_metric.model import FuScore
    from fuscore_metric.outputs import FuScoreOutput


def explain(
    ir: Ir,
    vis: Vis,
    fused: Annotated[Path, typer.Option(help="Fusion of the two.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    model: Model = "embedded",
    revision: Revision = None,
    aspect: Annotated[str, typer.Option(help=f"What is scored: {', '.join(ASPECTS)}.")] = (
        DEFAULT_ASPECT
    ),
    device: Device = AUTO,
    dtype: Dtype = None,
    thermal_range: ThermalRange = None,
) -> None:
    """Draw where a fusion lost its score, against a plain average of the same sources.

    Example: fuscore explain --ir ir.png --vis vis.png --fused fused.png --out map.png
    """
    with start_up():
        # As in `fuscore score`, whatever can fail without the model fails before its code is
        # imported.
        device = check_options(aspect, device, dtype, aspects=ASPECTS)
        scoring = Scoring(model, revision, aspect, device, dtype, 1, thermal_range)
        from fuscore_metric.images.lazy import load_triples

        _check_out(out, (ir, vis, fused))
        triple = load_triples(ir, vis, fused, thermal_range=thermal_range)
        loaded = scoring.load()
    _explain(loaded, *(images[0] for images in triple), aspect=aspect, out=out)


def _check_out(out: Path, inputs: tuple[Path, ...]) -> None:
    if out.suffix.lower() != ".png":
        raise InputError(f"Expected `out` with the suffix .png, got {str(out)!r}")
    if not out.parent.is_dir():
        raise InputError(f"Expected `out` in a folder that exists, got {str(out)!r}")
    if out.is_dir():
        raise InputError(f"Expected `out` as a file, got the directory {str(out)!r}")
    if out.resolve() in {path.resolve() for path in inputs}:
        raise InputError(f"Expected `out` to be none of the images given, got {str(out)!r}")


def _explain(
    model: FuScore, ir: Tensor, vis: Tensor, fused: Tensor, *, aspect: str, out: Path
) -> None:
    import torch

    from fuscore_metric.attribution import attribute
    from fuscore_metric.drawing.overlay import Caption, draw
    from fuscore_metric.results.tables import removed_on_failure

    # Each (1, 3, H, W).
    batch_ir, batch_vis, batch = (x.unsqueeze(0).to(model.device) for x in (ir, vis, fused))
    with torch.inference_mode():
        # Not model(...), which would check for swapped sources again: loading has done that.
        output = model.score_fused(model.encode_sources(batch_ir, batch_vis), batch, aspect=aspect)
    found = attribute(model, batch_ir, batch_vis, batch, aspect=aspect)[0].cpu().numpy()  # (H, W)
    headline, labels = _headline(output, aspect), _labels(model)
    shown = (fused * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, 3)
    notes = ("Compared with a plain average of the sources in the visible one's colours", labels)
    picture = draw(shown, found, Caption(headline, notes))
    new = out.with_name(f".{out.name}.new")
    try:
        with removed_on_failure(new):
            picture.save(new, format="PNG")
            new.replace(out)
    except OSError as error:
        raise InputError(f"Cannot write `out` {str(out)!r}: {error}") from error
    console = Console(highlight=False)
    for line in (headline, labels, str(out)):
        console.print(line, markup=False, soft_wrap=True)


def _headline(output: FuScoreOutput, aspect: str) -> str:
    score, std = output.score[0].item(), output.std[0].item()
    return f"{aspect} {score:.3f}, std {std:.3f}, 1 (bad) to 5 (excellent)"


def _labels(model: FuScore) -> str:
    return f"weights {model.spec.name}, {model.spec.label_statement()}"
