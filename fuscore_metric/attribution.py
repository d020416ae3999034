"""(ir, vis, fused) -> score -> where in `fused` it was lost: a map (N, H, W), for tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.colour import luma
from fuscore_metric.images import check_batches
from fuscore_metric.own_terms import on_own_terms
from fuscore_metric.prompts import DEFAULT_ASPECT, build_prompt

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore

DEFAULT_STEPS = 8
DEFAULT_SMOOTH = 0.08
MAX_CONTRAST_GAIN = 4.0
"""Beyond it, flat sources would become noise."""


@on_own_terms
def attribute(
    model: FuScore,
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    *,
    aspect: str = DEFAULT_ASPECT,
    steps: int = DEFAULT_STEPS,
    baseline: Tensor | None = None,
    smooth: float = DEFAULT_SMOOTH,
) -> Tensor:
    """Show what in the fused image pulled its score down.

    "Down" needs something to compare with. That is `baseline`: by default an undamaged plain fusion
    of the same sources (`plain_fusion`), which anybody could have had instead. The difference of
    the two scores is shared out over the pixels by `integrated_gradients`, smoothed, and its
    positive part returned: where moving towards the baseline would raise the score.

    Smoothing comes before the positive part is taken, not after: gradients of neighbouring pixels
    have opposite signs, and only their sum says what an area contributes. The model knows an image
    by statistics of cells (a quarter of each side in the embedded family), so nothing finer than a
    few per cent of the side should be read into the map.

    Args:
        model: What judges; any family.
        ir: (N, 3, H, W) float in [0, 1], on the model's device.
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        steps: Points on the way from `fused` to the baseline; each costs a forward and a backward
            pass, and the memory of one.
        baseline: (N, 3, H, W) in [0, 1], what to compare with.
        smooth: Standard deviation of the Gaussian, as a share of the shorter side; 0 for none.

    Returns:
        (N, H, W) float32 >= 0 on the model's device, without a graph: points of score lost per
        pixel. The same under the caller's `no_grad`, `inference_mode` and autocast.

    Raises:
        InputError: A shape or dtype is wrong, or the images differ in shape.
        ValueError: An unknown aspect, `steps` below 1, or a negative or infinite `smooth`.
    """
    _check_options(aspect, steps, smooth)
    given = {} if baseline is None else {"baseline": baseline}
    check_batches(ir=ir, vis=vis, **given, fused=fused)
    if baseline is None:
        with torch.no_grad():
            baseline = plain_fusion(ir, vis, fused)
    raw = integrated_gradients(model, ir, vis, fused, baseline, aspect=aspect, steps=steps)
    return _smoothed(raw, smooth * min(raw.shape[-2:])).clamp_min(0)


@on_own_terms
def integrated_gradients(
    model: FuScore,
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    baseline: Tensor,
    *,
    aspect: str = DEFAULT_ASPECT,
    steps: int = DEFAULT_STEPS,
) -> Tensor:
    """Share out score(baseline) - score(fused) over the pixels of `fused`.

    Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks",
    ICML 2017) along the straight line from `fused` to `baseline`, by the midpoint rule. Complete:
    the sum over the pixels tends to the difference of the scores as `steps` grows.

    Written out because Captum (0.9), the usual library, requires matplotlib and tqdm, and knows of
    triples only as extra arguments that it repeats for every step: too much for a loop of five
    lines.

    Args:
        model: What judges.
        ir: (N, 3, H, W) float in [0, 1].
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise.
        baseline: (N, 3, H, W), likewise.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        steps: Points on the line.

    Returns:
        (N, H, W) float32 of either sign, summed over channels, in points of score.
    """
    # Tensors made under the caller's inference mode cannot enter a graph; clones made outside can.
    with torch.enable_grad():
        ir, vis, start, end = (
            images.detach().clone().to(torch.float32) for images in (ir, vis, fused, baseline)
        )
        sources = model.read(ir, vis)
        total = torch.zeros_like(start)
        for step in range(steps):
            point = torch.lerp(start, end, (step + 0.5) / steps).requires_grad_()
            # Triples do not depend on each other: the sum's gradient is that of each score.
            score = model.judge(sources, point, aspect).score.sum()
            (gradient,) = torch.autograd.grad(score, point)
            total += gradient
        return ((end - start) * total / steps).sum(1)  # (N, H, W)


def plain_fusion(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """Fuse two sources plainly: what `fused` might have been without its damage.

    The mean of the lumas, brought as a whole to the brightness of `fused` and at least to its
    contrast, in its colour differences. So taste in brightness and colour, the same all over the
    picture, does not fill the map; what is peculiar to a place remains. Contrast is never lowered:
    a fusion that is flat everywhere is compared with one that is not.

    Args:
        ir: (N, 3, H, W) float in [0, 1].
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise; only its colour and its luma's mean and spread are used.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    ir, vis, fused = (images.to(torch.float32) for images in (ir, vis, fused))
    wanted, mixed = luma(fused), (luma(ir) + luma(vis)) / 2
    places = (-2, -1)
    contrast = wanted.std(places, keepdim=True) / mixed.std(places, keepdim=True).clamp_min(1e-3)
    mixed = mixed - mixed.mean(places, keepdim=True)
    mixed = wanted.mean(places, keepdim=True) + contrast.clamp(1, MAX_CONTRAST_GAIN) * mixed
    return (fused - wanted + mixed).clamp(0, 1)


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian mean of (N, H, W) over what lies inside the picture; sigma in pixels."""
    if sigma == 0:
        return maps
    for axis in (1, 2):
        places = torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device)
        weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
        weights = weights / weights.sum(1, keepdim=True)  # rows: at the border fewer, not darker
        maps = (maps.transpose(axis, 2) @ weights.T).transpose(axis, 2)
    return maps


def _check_options(aspect: str, steps: int, smooth: float) -> None:
    build_prompt(aspect)
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"Expected `steps` to be a positive integer, got {steps!r}")
    if not (math.isfinite(smooth) and smooth >= 0):
        raise ValueError(f"Expected `smooth` to be finite and not negative, got {smooth!r}")
