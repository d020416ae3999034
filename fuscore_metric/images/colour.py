"""Luma and colour of images: what one-channel fusion networks leave to the visible image."""

from __future__ import annotations

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)

COLOURED = 0.01
"""Saturation above which an image has colours. The 278 infrared images of six data sets, VIFB and
TNO among them, have none at all; the palest of their 266 visible images in colour has 0.014."""


def luma(images: Tensor) -> Tensor:
    """Brightness by ITU-R BT.601, the Y of full-range YCbCr (JPEG).

    Args:
        images: (N, 3, H, W) RGB, floating point.

    Returns:
        (N, 1, H, W), differentiable.
    """
    # No matrix product: autocast would narrow it, in a backward pass too.
    red, green, blue = (weight * images[:, n : n + 1] for n, weight in enumerate(_LUMA))
    return red + green + blue


def recolour(fused: Tensor, vis: Tensor) -> Tensor:
    """Put the visible image's chroma around a fused luma, as most methods of the field do.

    The same as converting `vis` to YCbCr (BT.601, full range), replacing Y and converting back:
    Y adds equally to red, green and blue, so only the difference of the lumas is needed. Colours
    that leave the range are clipped, where the gradient is 0.

    Args:
        fused: (N, 1, H, W) luma in [0, 1].
        vis: (N, 3, H, W) RGB in [0, 1].

    Returns:
        (N, 3, H, W) RGB in [0, 1], differentiable.
    """
    return (vis + (fused - luma(vis))).clamp(0, 1)


def saturation(pixels: Tensor) -> float:
    """How far the channels of an image (C, H, W) differ, relative to the brightest; in [0, 1]."""
    some = pixels[:3, ::8, ::8].detach().to(torch.float32)
    high, low = some.amax(0), some.amin(0)
    return float((high - low).mean() / high.mean())  # NaN, which is not above anything, of black
