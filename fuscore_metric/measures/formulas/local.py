"""Local statistics: means, variances and covariances under a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.windows import local_mean

FLAT = 1e-6
"""Smaller variances are rounding errors: one differing pixel in a window makes more than 1e-4."""


class Local(NamedTuple):
    """What an image has under the window at each place where the window fits.

    Attributes:
        image: (N, H, W).
        taps: K weights of the window, down and across.
        mean: (N, H - K + 1, W - K + 1).
        variance: As `mean`, of the population, not negative.
    """

    image: Tensor
    taps: Sequence[float]
    mean: Tensor
    variance: Tensor


def local(image: Tensor, taps: Sequence[float]) -> Local:
    """Mean and variance of an image under a window.

    Args:
        image: (N, H, W).
        taps: K weights whose sum is 1.
    """
    mean = local_mean(image, taps)
    return Local(image, taps, mean, (local_mean(image**2, taps) - mean**2).clamp(min=0))


def covariance(one: Local, other: Local) -> Tensor:
    """Covariance of two images under the same window, in the shape of `Local.mean`."""
    return local_mean(one.image * other.image, one.taps) - one.mean * other.mean


def ratio(top: Tensor, bottom: Tensor, least: float, otherwise: float) -> Tensor:
    """`top / bottom`, or `otherwise` without a gradient where `bottom` is not above `least`."""
    enough = bottom > least
    return torch.where(enough, top / torch.where(enough, bottom, 1), otherwise)
