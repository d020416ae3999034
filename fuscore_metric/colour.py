"""Luma and colour of (N, 3, H, W): what one-channel fusion networks leave to the visible image."""

from __future__ import annotations

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """Brightness by ITU-R BT.601, the Y of full-range YCbCr (JPEG).

    Args:
        images: (N, 3, H, W) RGB, floating point.

    Returns:
        (N, 1, H, W), differentiable.
    """
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", images, weights).unsqueeze(1)


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
