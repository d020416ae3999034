"""Triples, outputs and rankings as figures, for notebooks and papers. Needs matplotlib.

Figures are made without pyplot: no window, no display, no backend of the caller's is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.attribution import attribute
from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.drawing.notebook import COLOURS
from fuscore_metric.drawing.overlay import Pixels, painted
from fuscore_metric.images.convert import ImagesLike
from fuscore_metric.images.lazy import Picture, open_triples
from fuscore_metric.images.thermal_range import ThermalRange, check_thermal_range
from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.model import ModelLike
from fuscore_metric.optional import require
from fuscore_metric.outputs import FuScoreOutput
from fuscore_metric.prompts import DEFAULT_ASPECT, LEVEL_WORDS, Asked, build_prompt
from fuscore_metric.scoring import choose_model, score_triples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 2.6
"""Width of an image, in inches."""
_LONGEST_NAME = 40


def show(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: ModelLike = EMBEDDED,
    aspect: str = DEFAULT_ASPECT,
    device: str | int | torch.device | None = None,
    thermal_range: ThermalRange | None = None,
) -> Figure:
    """Draw triples: images, where the score was lost, and how probable each level is.

    One row for each fused image. A notebook shows what this returns; elsewhere use
    `figure.savefig("scores.png")`.

    Args:
        ir: Infrared image(s), as `score` takes them.
        vis: Visible image(s) of the same scene(s).
        fused: Fusion(s) of the two.
        model: As in `score`.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        device: As in `score`.
        thermal_range: As in `score`.

    Returns:
        A matplotlib `Figure`, which pyplot does not know of.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
        CheckpointError: No such weights, or weights that this version cannot use.
        ValueError: An unknown aspect or a bad thermal range.
        MissingPackageError: matplotlib is not installed.
    """
    build_prompt(aspect)
    check_thermal_range(thermal_range)
    opened = open_triples(ir, vis, fused, thermal_range=thermal_range)
    figure = _figure(5 * _SIDE, len(opened) * _SIDE * _height(opened))
    loaded = {one: one.detached().loaded() for one in dict.fromkeys(chain.from_iterable(opened))}
    triples = [(loaded[one], loaded[two], loaded[three]) for one, two, three in opened]
    chosen = choose_model(model, triples, device)
    output = score_triples(triples, chosen, Asked.of(aspect))
    rows = figure.subplots(len(triples), 5, squeeze=False)
    for number, (triple, axes) in enumerate(zip(triples, rows, strict=True)):
        pixels = [one.pixels(one.decode()) for one in triple]  # (3, H, W) each
        batches = [one.unsqueeze(0).to(chosen.device) for one in pixels]
        lost = attribute(chosen, *batches, aspect=aspect)[0].cpu().numpy()
        shown = [_bytes(one) for one in pixels]
        titles = ["infrared", "visible", _name(triple[2]), "where the score was lost"]
        pictures = [*shown, painted(shown[2], lost)]
        for place, picture, title in zip(axes[:4], pictures, titles, strict=True):
            place.imshow(picture)
            place.set_axis_off()
            place.set_title(title, fontsize="small", parse_math=False)
        _draw_answer(axes[-1], output[number], aspect)
    return figure


def plot(output: FuScoreOutput, names: Sequence[str]) -> Figure:
    """Draw scores with their standard deviations, and the level probabilities beside them.

    Args:
        output: Of N triples; of several aspects, each is a row of its own.
        names: N names, in their order.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if output.aspects:
        names = [f"{name}, {aspect}" for name in names for aspect in output.aspects]
    score, std = (values.detach().flatten().tolist() for values in (output.score, output.std))
    levels = output.probabilities.detach().reshape(-1, len(LEVEL_WORDS)).cpu().numpy()
    figure = _figure(8, 1.2 + 0.3 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(names))
    left.errorbar(score, places, xerr=std, fmt="o", color="black", capsize=3)
    left.set_xlim(*SCORE_RANGE)
    left.set_xlabel("score +- std")
    left.set_yticks(places, [_short(name) for name in names], parse_math=False)
    left.invert_yaxis()
    starts = np.cumsum(levels, axis=1) - levels
    for n, (word, colour) in enumerate(zip(LEVEL_WORDS, COLOURS, strict=True)):
        right.barh(places, levels[:, n], left=starts[:, n], color=colour, label=word)
    right.set_xlim(0, 1)
    right.set_xlabel("probability of each level")
    figure.legend(loc="outside upper right", ncols=len(LEVEL_WORDS), fontsize="small")
    return figure


def _figure(width: float, height: float) -> Figure:
    require("A figure", "matplotlib", install="fuscore-metric[report]")
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook shows though pyplot does not know of it."""

        def _repr_png_(self) -> bytes:
            content = BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return Shown(figsize=(width, height), layout="constrained")


def _height(triples: Sequence[tuple[Picture, Picture, Picture]]) -> float:
    """Of the highest image, in widths; with room for a title."""
    return 0.2 + max(fused.shape[-2] / fused.shape[-1] for _, _, fused in triples)


def _draw_answer(axes: Axes, output: FuScoreOutput, aspect: str) -> None:
    axes.barh(LEVEL_WORDS, output.probabilities[0].tolist(), color=COLOURS)
    axes.set_xlim(0, 1)
    title = f"{aspect} {output.score.item():.2f} +- {output.std.item():.2f}"
    axes.set_title(title, fontsize="small")


def _bytes(image: Tensor) -> Pixels:
    """(3, H, W) in [0, 1] -> (H, W, 3) for the screen."""
    pixels: Pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels


def _name(picture: Picture) -> str:
    """Of the file, or of the argument."""
    given = picture.given
    return _short(Path(given).name) if isinstance(given, str) else picture.name


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"
