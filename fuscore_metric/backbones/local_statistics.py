"""Feature maps -> tokens: local statistics of each image, and how far fused agrees with a source.

Quality is a matter of statistics: noise, blur and contrast show in the spread of early features,
and what was kept of a source shows in their correlation. The idea of comparing means and
covariances of network features is that of DISTS (Ding et al., TPAMI 2020); the grid, the layers
and the use as tokens are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def with_edges(pixels: Tensor) -> Tensor:
    """Pixels and two maps of their edges, which neither mirroring nor a shift changes.

    Args:
        pixels: (N, 3, H, W), normalised.

    Returns:
        (N, 5, H, W): the pixels, then the gradient magnitude (Sobel) and the absolute Laplacian of
        their mean.
    """
    grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    down = grey.new_tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 4
    ring = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 2
    edges = F.conv2d(grey, torch.stack([down, down.T, ring])[:, None])
    # The root's slope is infinite at 0, where the picture is flat.
    gradient = (edges[:, :2].square().sum(1, keepdim=True) + 1e-6).sqrt()
    return torch.cat([pixels, gradient, edges[:, 2:].abs()], dim=1)


def stronger(maps: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """What a fusion that loses nothing would show: at each place the stronger of two sources.

    Args:
        maps: Maps of one source: pixels with edges, then features.
        others: Those of the other.

    Returns:
        The brighter pixel and stronger edge; of features the one of larger magnitude.
    """
    features = zip(maps[1:], others[1:], strict=True)
    chosen = [torch.where(a.abs() >= b.abs(), a, b) for a, b in features]
    return [torch.maximum(maps[0], others[0]), *chosen]


class LocalStatistics:
    """First and second moments of one batch of images' feature maps over a grid of cells.

    Args:
        maps: Pixels with edges, then their feature maps: (N, C_i, h_i, w_i).
        grid: Cells along each side.
    """

    def __init__(self, maps: list[Tensor], grid: int) -> None:
        self.maps, self.grid = maps, grid
        self.mean = cell_means(maps, grid)  # (N, cells, C)
        square = cell_means([m.float().square() for m in maps], grid)
        # Rounding can push a difference of equal numbers below zero.
        self.variance = (square - self.mean.square()).clamp_min(0) + VARIANCE_FLOOR

    def tokens(self) -> Tensor:
        """(N, cells, C_0 + C): means of the pixels, logarithmic standard deviations of all.

        The means of the feature maps say more of the content than of its quality, and change most
        when the picture is mirrored.
        """
        pixels = self.mean[..., : self.maps[0].shape[1]]
        return torch.cat([pixels, 0.5 * self.variance.log()], dim=-1)

    def correlation(self, other: LocalStatistics) -> Tensor:
        """(N, cells, C): correlation of each channel with another image's, about [-1, 1]."""
        product = [a.float() * b.float() for a, b in zip(self.maps, other.maps, strict=True)]
        covariance = cell_means(product, self.grid) - self.mean * other.mean
        return covariance / (self.variance * other.variance).sqrt()
