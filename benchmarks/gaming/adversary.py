"""A finished fusion -> one that looks alike and was moved up the score's gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.triples import Pixels
from fuscore_metric import FuScore, TrustRegion

STEPS = 20


def as_batch(images: list[Pixels]) -> Tensor:
    """Images of one size, (H, W) or (H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1]."""
    rgb = [im if im.ndim == 3 else np.repeat(im[..., None], 3, axis=2) for im in images]
    return torch.from_numpy(np.stack(rgb)).movedim(-1, 1).float() / 255


def climb(
    model: FuScore,
    ir: Pixels,
    vis: Pixels,
    fused: Pixels,
    radius: int,
    *,
    steps: int = STEPS,
    guard: TrustRegion | None = None,
    with_reference: bool = False,
) -> Pixels:
    """Signed gradient ascent inside a ball, rounded to 8 bits as a saved file is.

    Projected gradient ascent after Madry et al., "Towards deep learning models resistant to
    adversarial attacks", ICLR 2018. The attacker knows the weights and the guard, if there is one.

    Args:
        model: What is fooled.
        ir: Infrared image, uint8.
        vis: Visible image.
        fused: The fusion; a grey one (H, W) stays grey.
        radius: No pixel moves by more than this many grey levels.
        steps: Steps of a quarter of the radius each.
        guard: Its charges are subtracted from what is climbed.
        with_reference: Whether the guard is told the untouched fusion.

    Returns:
        Like `fused`.
    """
    sources = as_batch([ir]), as_batch([vis])
    pair, start = model.encode_sources(*sources), as_batch([fused])
    grey = fused.ndim == 2
    moving = start[:, :1].clone() if grey else start.clone()
    low, high = ((moving + side * radius / 255).clamp(0, 1) for side in (-1, 1))
    for _ in range(steps):
        moving.requires_grad_()
        shown = moving.expand_as(start)
        value = model.score_fused(pair, shown).score
        if guard is not None:
            reference = start if with_reference else None
            value = value - guard.penalty(*sources, shown, reference=reference)
        (gradient,) = torch.autograd.grad(value.sum(), moving)
        with torch.no_grad():
            moving = (moving + radius / 4 / 255 * gradient.sign()).clamp(low, high)
    pixels = (moving[0] * 255).round().to(torch.uint8)
    return np.asarray((pixels[0] if grey else pixels.movedim(0, -1)).numpy())
