"""(ir, vis, fused) -> score -> where in `fused` it was lost: a map (N, H, W), for tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.compute.own_terms import on_own_terms
from fuscore_metric.images.checks import check_batches, check_sources
from fuscore_metric.images.colour import luma, recolour
from fuscore_metric.prompts import DEFAULT_ASPECT, build_prompt

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore
    from fuscore_metric.outputs import SourcePairs

DEFAULT_STEPS = 2
"""The share of a map in a damaged quadrant is within 0.02 of that with 8 steps, for each kind of
damage, on five validation scenes; with a single step blur loses 0.1."""
SMOOTH = 0.08
"""Standard deviation of the Gaussian over a map, as a share of the shorter side."""
MAX_CONTRAST_GAIN = 4.0
"""A higher gain would turn flat sources into noise."""


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
) -> Tensor:
    """Show what in the fused image pulled its score down.

    "Down" needs something to compare with. That is `baseline`: by default an undamaged plain fusion
    of the same sources (`plain_fusion`), which anybody could have had instead. The difference of
    the two scores is shared out over the pixels by `integrated_gradients`, smoothed, and its
    positive part returned: where moving towards the baseline would raise the score.

    Smoothing comes before the positive part is taken, not after: gradients of neighbouring pixels
    have opposite signs, and only their sum is the contribution of an area. The model gets an image
    as statistics of cells (a quarter of each side in the embedded family), so nothing finer than a
    few per cent of the side should be read into the map.

    Args:
        model: A `FuScore` of any family.
        ir: (N, 3, H, W) float in [0, 1], on the model's device; or (1, 3, H, W): one for all.
        vis: As many as `ir`.
        fused: (N, 3, H, W), likewise.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        steps: Points on the way from `fused` to the baseline. Each costs a forward and a backward
            pass, and the memory of one; with one source pair for all, that of one image. Two find
            the place, but all of the map then adds up to the difference of the scores only within
            a sixth of it, on average; with 32 within 0.05 %.
        baseline: (N, 3, H, W) in [0, 1], what to compare with.

    Returns:
        (N, H, W) float32 >= 0 on the model's device, without a graph: points of score lost per
        pixel. The same under the caller's `no_grad`, `inference_mode` and autocast.

    Raises:
        InputError: A shape or dtype is wrong, or the images differ in shape.
        ValueError: An unknown aspect, or `steps` below 1.
    """
    _check_options(aspect, steps)
    check_sources(ir, vis, fused)
    if baseline is not None:
        check_batches(baseline=baseline, fused=fused)
    else:
        with torch.no_grad():
            baseline = plain_fusion(ir, vis, fused)
    raw = integrated_gradients(model, ir, vis, fused, baseline, aspect=aspect, steps=steps)
    return _smoothed(raw, SMOOTH * min(raw.shape[-2:])).clamp_min(0)


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
    ICML 2017) along the straight line from `fused` to `baseline`, by Gauss and Legendre's rule.
    Complete: the sum over the pixels tends to the difference of the scores as `steps` grows.

    Written out because Captum (0.9), the usual library, requires matplotlib and tqdm, and knows of
    triples only as extra arguments that it repeats for every step: too much for a loop of five
    lines.

    Args:
        model: A `FuScore`.
        ir: (N, 3, H, W) float in [0, 1]; or (1, 3, H, W): one for all.
        vis: As many as `ir`.
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
        sources = model.encode_sources(ir, vis)
        # Beside one source pair images are scored one at a time, which takes the memory of one.
        size = 1 if len(sources) == 1 else len(start)
        parts = zip(torch.split(start, size), torch.split(end, size), strict=True)
        return torch.cat([_integral(model, sources, *ends, aspect, steps) for ends in parts])


def _integral(
    model: FuScore, sources: SourcePairs, start: Tensor, end: Tensor, aspect: str, steps: int
) -> Tensor:
    """From `start` to `end`, each (N, 3, H, W): (N, H, W)."""
    total = torch.zeros_like(start)
    places, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    for place, weight in zip(places.tolist(), weights.tolist(), strict=True):
        point = torch.lerp(start, end, (1 + place) / 2).requires_grad_()
        # Triples do not depend on each other: the sum's gradient is that of each score.
        score = model.score_fused(sources, point, aspect=aspect).score.sum()
        (gradient,) = torch.autograd.grad(score, point)
        total += weight / 2 * gradient
    return ((end - start) * total).sum(1)


def plain_fusion(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """Fuse two sources plainly: what anybody could have had instead of `fused`.

    The mean of the lumas, in the colours of `vis`, with at least the contrast of `fused`. Nothing
    else is taken from `fused`: damage all over it, such as a colour cast, is not in what it is
    compared with, and so shows all over the map. Contrast is never lowered: a fusion that is flat
    everywhere is compared with one that is not.

    Args:
        ir: (N, 3, H, W) float in [0, 1]; or (1, 3, H, W): one for all.
        vis: As many as `ir`.
        fused: (N, 3, H, W), likewise; only the spread of its luma is used.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    ir, vis, fused = (images.to(torch.float32) for images in (ir, vis, fused))
    places = (-2, -1)
    mixed = (luma(ir) + luma(vis)) / 2
    mean, spread = (f(places, keepdim=True) for f in (mixed.mean, mixed.std))
    contrast = luma(fused).std(places, keepdim=True) / spread.clamp_min(1e-3)
    mixed = mean + contrast.clamp(1, MAX_CONTRAST_GAIN) * (mixed - mean)
    return recolour(mixed, vis)


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian mean of (N, H, W) over what lies inside the picture; sigma in pixels."""
    for axis in (1, 2):
        places = torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device)
        weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
        weights = weights / weights.sum(1, keepdim=True)  # rows: at the border fewer, not darker
        maps = (maps.transpose(axis, 2) @ weights.T).transpose(axis, 2)
    return maps


def _check_options(aspect: str, steps: int) -> None:
    build_prompt(aspect)
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"Expected `steps` to be a positive integer, got {steps!r}")
