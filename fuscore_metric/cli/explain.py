"""`fuscore explain`: a picture of where a fusion lost its score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console

from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg")
COLOURS = ((0.0, (0, 0, 0)), (0.35, (110, 20, 110)), (0.7, (230, 90, 30)), (1.0, (255, 235, 120)))
"""Share of the map's greatest value -> colour: dark to bright, told apart without colour too."""
LEGEND_HEIGHT = 40
STRONGEST = 0.75
"""Opacity at the map's greatest value."""


def explain(
    ir: Annotated[Path, typer.Option(help="Infrared image.")],
    vis: Annotated[Path, typer.Option(help="Visible image of the same scene and size.")],
    fused: Annotated[Path, typer.Option(help="Fusion of the two.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png or .jpg.")],
    weights: Annotated[
        str, typer.Option(help='"embedded", a checkpoint directory, or a hub id.')
    ] = "embedded",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the weights.")] = None,
    aspect: Annotated[str, typer.Option(help=f"What to judge: {', '.join(ASPECTS)}.")] = (
        DEFAULT_ASPECT
    ),
    device: Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(min=1, help="More is smoother and slower.")] = 8,
) -> None:
    """Show where a fusion lost its score.

    Example: fuscore explain --ir ir.png --vis vis.png --fused fused.png --out where.png
    """
    if aspect not in ASPECTS:
        raise typer.BadParameter(f"expected one of {', '.join(ASPECTS)}", param_hint="--aspect")
    if out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"expected one of {', '.join(SUFFIXES)}", param_hint="--out")
    if not out.absolute().parent.is_dir():
        raise typer.BadParameter(f"no such folder {str(out.parent)!r}", param_hint="--out")
    from fuscore_metric.images import as_images, check_triples, to_batch
    from fuscore_metric.model import FuScore, check_device

    try:
        check_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    triples = as_images(ir, "ir"), as_images(vis, "vis"), as_images(fused, "fused")
    check_triples(*triples)
    model = FuScore.from_pretrained(weights, revision=revision, device=device)
    first, second, third = (to_batch(images).to(model.device) for images in triples)
    score = model(first, second, third, aspect=aspect).score[0].item()
    found = model.attribution(first, second, third, aspect, steps=steps)[0]
    text = f"{aspect} {score:.2f} of 5"
    overlay(third[0], found, text).save(out)
    console = Console(highlight=False)
    console.print(f"{text}; {str(out)!r} shows what cost most", markup=False, soft_wrap=True)
    console.print(
        f"weights {model.spec.name}, {model.spec.label_statement()}", markup=False, soft_wrap=True
    )


def overlay(fused: Tensor, found: Tensor, text: str) -> Image.Image:
    """The fused image, beside it the same under the map, and a legend below.

    Args:
        fused: (3, H, W) in [0, 1].
        found: (H, W) >= 0, as `FuScore.attribution` gives it.
        text: Says what was judged, for the legend.
    """
    pixels = fused.detach().cpu().permute(1, 2, 0).numpy() * 255.0  # (H, W, 3)
    greatest = max(float(found.max()), 1e-12)
    share = found.detach().cpu().numpy() / greatest  # (H, W)
    opacity = STRONGEST * share[..., None]
    marked = (1 - opacity) * pixels + opacity * colours(share)
    height, width = share.shape
    picture = Image.new("RGB", (2 * width, height + LEGEND_HEIGHT), "white")
    for place, image in enumerate((pixels, marked)):
        picture.paste(Image.fromarray(np.rint(image).astype(np.uint8)), (place * width, 0))
    _legend(picture, width, height, text)
    return picture


def colours(share: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colour (..., 3) in [0, 255] of values (...) in [0, 1]."""
    at = [place for place, _ in COLOURS]
    channels = [np.interp(share, at, [colour[n] for _, colour in COLOURS]) for n in range(3)]
    return np.stack(channels, axis=-1)


def _legend(picture: Image.Image, width: int, height: int, text: str) -> None:
    draw = ImageDraw.Draw(picture)
    draw.text((6, height + 6), text, fill="black")
    draw.text((width + 6, height + 20), "cost nothing", fill="black")
    end = "cost most"
    draw.text((2 * width - 6 - draw.textlength(end), height + 20), end, fill="black")
    bar = colours(np.broadcast_to(np.linspace(0, 1, max(width - 12, 1)), (10, max(width - 12, 1))))
    picture.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (width + 6, height + 6))
