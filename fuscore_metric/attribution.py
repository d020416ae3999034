"""Where a score was lost: integrated gradients from a fused image to a plain fusion of its sources.

"What pulled the score down" only means something against what the viewer could have had. That is a
plain fusion of the same two sources, made here: every detail of the stronger source, undamaged.
Source of the method: M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep
networks", ICML 2017. captum has it too, but would bring matplotlib into the base install for the
dozen lines below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_metric.prompts import DEFAULT_ASPECT

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore

LUMA = (0.299, 0.587, 0.114)
LEVELS = 4
"""Octaves of detail in the plain fusion."""
SMOOTHING = 0.03
"""Deviation of the map's blur, as a share of the shorter side: single pixels carry no meaning."""
POINTS_AT_ONCE = 4
"""Points of the path held in memory with their graphs."""


def integrated_gradients(
    model: FuScore,
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    baseline: Tensor,
    *,
    aspect: str = DEFAULT_ASPECT,
    steps: int = 8,
) -> Tensor:
    """What each pixel would add to the score on the straight way from `fused` to `baseline`.

    Complete: a map sums to s(baseline) - s(fused), up to the error of the midpoint rule.

    Args:
        model: The metric.
        ir: (N, 3, H, W) in [0, 1].
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise.
        baseline: (N, 3, H, W), likewise.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        steps: Points of the path.

    Returns:
        (N, H, W) float32 signed, in score units; positive where `fused` costs score.
    """
    if steps < 1:
        raise ValueError(f"Expected `steps` to be at least 1, got {steps}")
    places = (torch.arange(steps, device=fused.device) + 0.5) / steps
    maps = []
    for n in range(len(fused)):
        start, change = fused[n], baseline[n] - fused[n]
        gradient = torch.zeros_like(start)
        for some in torch.split(places, POINTS_AT_ONCE):
            points = start + some.view(-1, 1, 1, 1) * change  # (P, 3, H, W)
            gradient += _gradient(model, ir[n : n + 1], vis[n : n + 1], points, aspect)
        maps.append((change * gradient / steps).sum(0))
    return torch.stack(maps).float()


def _gradient(model: FuScore, ir: Tensor, vis: Tensor, points: Tensor, aspect: str) -> Tensor:
    """Gradient of the score at each point, summed over the points: (3, H, W)."""
    # Also for callers in no_grad or inference mode: tensors from the latter cannot carry graphs.
    with torch.inference_mode(False), torch.enable_grad():
        ir, vis, points = (images.detach().clone() for images in (ir, vis, points))
        encoded = model.backbone.encode(ir, vis, points.requires_grad_())
        logits = model.backbone.level_logits(encoded, aspect)
        scores = expected_score(level_probabilities(logits))
        return torch.autograd.grad(scores.sum(), points)[0].sum(0)


def attribute(
    model: FuScore,
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    *,
    aspect: str = DEFAULT_ASPECT,
    steps: int = 8,
) -> Tensor:
    """What pulled the score of each fused image down, pixel by pixel.

    Args:
        model: The metric.
        ir: (N, 3, H, W) float in [0, 1].
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        steps: Points of the path; more is smoother and slower.

    Returns:
        (N, H, W) float32, >= 0: score units a pixel, smoothed; larger where more was lost. All 0
        where nothing is worse than in the plain fusion.
    """
    with torch.no_grad():
        baseline = plain_fusion(ir, vis, fused)
        raw = integrated_gradients(model, ir, vis, fused, baseline, aspect=aspect, steps=steps)
        # Before the cut at 0: neighbours of opposite sign are one edge, moved, not damage.
        return _smooth(raw).clamp_min(0)


def plain_fusion(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """Strongest detail of either source at each octave, mean of their bases, colours of `fused`.

    Args:
        ir: (N, 3, H, W) in [0, 1].
        vis: (N, 3, H, W), likewise.
        fused: (N, 3, H, W), likewise; only its chroma is used.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    a, b = _luma(ir), _luma(vis)
    details = torch.zeros_like(a)
    for level in range(LEVELS):
        smooth_a, smooth_b = _blur(a, 2.0**level), _blur(b, 2.0**level)
        detail_a, detail_b = a - smooth_a, b - smooth_b
        details += torch.where(detail_a.abs() >= detail_b.abs(), detail_a, detail_b)
        a, b = smooth_a, smooth_b
    return (fused + (a + b) / 2 + details - _luma(fused)).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _smooth(maps: Tensor) -> Tensor:
    """(N, H, W) blurred by `SMOOTHING` of the shorter side."""
    return _blur(maps[:, None], SMOOTHING * min(maps.shape[-2:]))[:, 0]


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, 1, H, W), borders repeated."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
