"""Local means and gradients of grey images, as sums of shifted copies or as matrix products.

In float64 on a CPU that is many times faster than torch's convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def weighted(images: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """Slide a window over one dimension, and sum what it weighs.

    Args:
        images: (..., H, W).
        taps: K weights, applied without turning them round (a correlation).
        dim: -1 for a row's pixels, -2 for a column's.

    Returns:
        The same, shorter by K - 1 in `dim`.
    """
    length = images.shape[dim] - len(taps) + 1
    found = images.narrow(dim, 0, length) * taps[0]
    for start, weight in enumerate(taps[1:], 1):
        if weight:
            found = found.add_(images.narrow(dim, start, length), alpha=weight)
    return found


LONG = 7
"""From so many weights on, matrix products are faster than sums of shifted copies."""

BLOCK = 16
"""Rows that one matrix product gives."""


@lru_cache
def gaussian_taps(width: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian window, as MATLAB's `fspecial('gaussian', width, sigma)` in one line.

    Args:
        width: Number of weights.
        sigma: Standard deviation, in pixels.

    Returns:
        `width` weights whose sum is 1.
    """
    middle = (width - 1) / 2
    raw = [math.exp(-((n - middle) ** 2) / (2 * sigma**2)) for n in range(width)]
    return tuple(weight / sum(raw) for weight in raw)


def local_mean(images: Tensor, taps: Sequence[float]) -> Tensor:
    """Mean under a window that is the product of `taps` down and across, where it fits.

    Args:
        images: (..., H, W).
        taps: K weights whose sum is 1.

    Returns:
        (..., H - K + 1, W - K + 1).
    """
    if len(taps) < LONG:
        return weighted(weighted(images, taps, -1), taps, -2)
    return _down(_down(images.mT, taps).mT, taps)


def _down(images: Tensor, taps: Sequence[float]) -> Tensor:
    """`weighted` over columns: (N, H, W) -> (N, H - K + 1, W)."""
    length = images.shape[-2] - len(taps) + 1
    block = min(BLOCK, length)
    bank = _bank(tuple(taps), block).to(images)
    blocks = bank @ images.unfold(-2, bank.shape[1], block).mT
    rest = length % block
    if not rest:
        return blocks.flatten(-3, -2)
    last = bank[-rest:] @ images[..., -bank.shape[1] :, :]
    return torch.cat((blocks.flatten(-3, -2), last), -2)


@lru_cache
def _bank(taps: tuple[float, ...], rows: int) -> Tensor:
    """(rows, rows + K - 1): the weights, shifted by one from row to row."""
    table = np.zeros((rows, rows + len(taps) - 1))
    for n, row in enumerate(table):
        row[n : n + len(taps)] = taps
    with torch.inference_mode(False):  # it is kept, also for those who need gradients
        return torch.from_numpy(table)


def pad(images: Tensor, border: int, mode: str) -> Tensor:
    """Add a border.

    Args:
        images: (N, H, W).
        border: Pixels on each side.
        mode: "constant" for zeros, "replicate" for the nearest pixel, "reflect" for the mirror
            image without the outermost pixel.

    Returns:
        (N, H + 2 border, W + 2 border).
    """
    return functional.pad(images[None], (border,) * 4, mode)[0]


def sobel(images: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Sobel's differences across and down, with weights 1, 2, 1.

    Args:
        images: (N, H, W).
        mode: What lies beyond the border, as in `pad`.

    Returns:
        Two tensors (N, H, W): right less left, and below less above.
    """
    wide = pad(images, 1, mode)
    across = weighted(weighted(wide, (-1.0, 0.0, 1.0), -1), (1.0, 2.0, 1.0), -2)
    down = weighted(weighted(wide, (1.0, 2.0, 1.0), -1), (-1.0, 0.0, 1.0), -2)
    return across, down


def length(across: Tensor, down: Tensor) -> Tensor:
    """The length of vectors; its gradient is 0, not NaN, where the length is."""
    return root(across**2 + down**2)


def root(squared: Tensor) -> Tensor:
    """The square root of what is not negative; its gradient is 0, not infinite, at 0."""
    positive = squared > 0
    return torch.where(positive, squared, 1).sqrt() * positive
