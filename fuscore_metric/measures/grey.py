"""What all measures read: luma in grey levels, and what was computed of it before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from fuscore_metric.images.colour import luma

T = TypeVar("T")

WHITE = 255.0
"""The highest grey level. All measures are defined for 8 bits."""


class Grey:
    """Images of one channel.

    Several measures need the same of an image: its gradient, its local means, its histogram. They
    ask for it by `once`, so that it is computed a single time, for a source pair a single time for
    all of its fusions.

    Attributes:
        pixels: (N, H, W) float64, whole numbers in [0, 255].

    Args:
        pixels: See above.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self._known: dict[Callable[[Tensor], object], object] = {}
        self._known_with: dict[tuple[Callable[[Grey, Grey], object], Grey], object] = {}

    def once(self, compute: Callable[[Tensor], T]) -> T:
        """`compute(pixels)`, computed at the first call.

        Args:
            compute: A function of a module, so that each call gives the same one.
        """
        if compute not in self._known:
            self._known[compute] = compute(self.pixels)
        return self._known[compute]  # type: ignore[return-value]

    def once_with(self, other: Grey, compute: Callable[[Grey, Grey], T]) -> T:
        """`compute(self, other)`, computed at the first call, such as a local covariance.

        Args:
            other: An image that lives as long as this one: `fused` asks with a source.
            compute: As for `once`.
        """
        if (compute, other) not in self._known_with:
            self._known_with[compute, other] = compute(self, other)
        return self._known_with[compute, other]  # type: ignore[return-value]


def luma_levels(images: Tensor) -> Tensor:
    """Luma of images, rounded to grey levels.

    It is that of each image's 8-bit file. MATLAB's `rgb2gray` has the same weights to three
    decimals; on 16 real images at most 0.03 % of its levels were one higher or lower.

    Args:
        images: (N, 3, H, W) in [0, 1].

    Returns:
        (1, N, H, W) float64, whole numbers in [0, 255]. The gradient is that without rounding.
    """
    return _rounded(luma(channel_levels(images).transpose(0, 1)).transpose(0, 1))


def channel_levels(images: Tensor) -> Tensor:
    """Each channel of images, rounded to grey levels.

    Args:
        images: (N, 3, H, W) in [0, 1].

    Returns:
        (3, N, H, W), otherwise as `luma_levels`.
    """
    return _rounded(images.double().transpose(0, 1) * WHITE)


def _rounded(pixels: Tensor) -> Tensor:
    """Whole numbers; what lies halfway, give or take a rounding error, is rounded up."""
    return pixels + (torch.floor(pixels + (0.5 + 1e-9)) - pixels).detach()
