"""Feature maps -> tokens: local statistics of each image, and how far fused agrees with a source.

Quality is a matter of statistics: noise, blur and contrast show in the spread of early features,
and what was kept of a source shows in their correlation. The idea of comparing means and
covariances of network features is that of DISTS (Ding et al., TPAMI 2020); the grid, the layers
and the use as tokens are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4
"""Added to every variance: well above that of rounding to 8 bits, so flat areas say nothing."""


def cell_means(maps: list[Tensor], grid: int) -> Tensor:
    """Mean of each channel over a grid of cells.

    Args:
        maps: Feature maps (N, C_i, h_i, w_i).
        grid: Cells along each side.

    Returns:
        (N, grid * grid, sum of C_i) float32.
    """
    pooled = [F.adaptive_avg_pool2d(m.float(), grid).flatten(2) for m in maps]  # (N, C_i, cells)
    return torch.cat(pooled, dim=1).transpose(1, 2)


class LocalStatistics:
    """First and second moments of one batch of images' feature maps over a grid of cells.

    Args:
        maps: Feature maps (N, C_i, h_i, w_i).
        grid: Cells along each side.
    """

    def __init__(self, maps: list[Tensor], grid: int) -> None:
        self.maps, self.grid = maps, grid
        self.mean = cell_means(maps, grid)  # (N, cells, C)
        square = cell_means([m.float().square() for m in maps], grid)
        # Rounding can push a difference of equal numbers below zero.
        self.variance = (square - self.mean.square()).clamp_min(0) + VARIANCE_FLOOR

    def tokens(self) -> Tensor:
        """(N, cells, 2 C): means and logarithmic standard deviations."""
        return torch.cat([self.mean, 0.5 * self.variance.log()], dim=-1)

    def correlation(self, other: LocalStatistics) -> Tensor:
        """(N, cells, C): correlation of each channel with another image's, about [-1, 1]."""
        product = [a.float() * b.float() for a, b in zip(self.maps, other.maps, strict=True)]
        covariance = cell_means(product, self.grid) - self.mean * other.mean
        return covariance / (self.variance * other.variance).sqrt()
