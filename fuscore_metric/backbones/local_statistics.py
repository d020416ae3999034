"""Feature maps -> tokens: local statistics of each image, and how far fused agrees with a source.

Quality is a matter of statistics: noise, blur and contrast show in the spread of early features,
and what was kept of a source shows in their correlation. The idea of comparing means and
covariances of network features is that of DISTS (Ding et al., TPAMI 2020); the grid, the layers
and the use as tokens are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4
"""Added to every variance: well above that of rounding to 8 bits, so flat areas say nothing."""


Looks = tuple[Tensor, ...]
"""Maps of one kind, each (N, C, h, w) and upright: of the image, perhaps of its mirror too."""


def cell_means(maps: Sequence[Looks], grid: int) -> Tensor:
    """Mean of each channel over a grid of cells, all looks counting alike.

    Args:
        maps: Feature maps (N, C_i, h_i, w_i) by kind and look.
        grid: Cells along each side.

    Returns:
        (N, grid * grid, sum of C_i) float32.
    """
    pooled = [
        torch.stack([F.adaptive_avg_pool2d(m.float(), grid) for m in looks]).mean(0)
        for looks in maps
    ]
    return torch.cat([m.flatten(2) for m in pooled], dim=1).transpose(1, 2)


def with_edges(pixels: Tensor) -> Tensor:
    """Pixels and two maps of their edges, which neither mirroring nor a shift changes.

    Args:
        pixels: (N, C, H, W), normalised.

    Returns:
        (N, C + 2, H, W): the pixels, then the gradient magnitude (Sobel) and the absolute Laplacian
        of their mean over channels.
    """
    grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    down = grey.new_tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 4
    ring = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 2
    edges = F.conv2d(grey, torch.stack([down, down.T, ring])[:, None])
    # The root's slope is infinite at 0, where the picture is flat.
    gradient = (edges[:, :2].square().sum(1, keepdim=True) + 1e-6).sqrt()
    return torch.cat([pixels, gradient, edges[:, 2:].abs()], dim=1)


def edge_pyramid(pixels: Tensor, octaves: int) -> list[Tensor]:
    """Grey pixels and their edges at the image's own scale, then at halves of it.

    Args:
        pixels: (N, 3, H, W), normalised.
        octaves: Scales below the image's own.

    Returns:
        (N, 5, H, W) with colours, then `octaves` maps (N, 3, H / 2^i, W / 2^i) of grey.
    """
    maps, grey = [with_edges(pixels)], pixels.mean(1, keepdim=True)
    for _ in range(octaves):
        grey = F.avg_pool2d(grey, 2, ceil_mode=True, count_include_pad=False)
        maps.append(with_edges(grey))
    return maps


@dataclass(frozen=True)
class Maps:
    """What is seen of a batch of images.

    Attributes:
        pixels: Pixels and edges at several scales, each one look; larger is brighter or sharper.
        features: Feature maps, each in one or more looks; larger magnitude is a stronger feature.
    """

    pixels: Sequence[Tensor]
    features: Sequence[Looks]

    def all(self) -> list[Looks]:
        """Pixels, then features, by kind and look."""
        return [*((m,) for m in self.pixels), *self.features]


def stronger(one: Maps, other: Maps) -> Maps:
    """What a fusion that loses nothing would show: at each place the stronger of two sources."""
    pixels = [torch.maximum(a, b) for a, b in zip(one.pixels, other.pixels, strict=True)]
    features = [
        tuple(torch.where(a.abs() >= b.abs(), a, b) for a, b in zip(first, second, strict=True))
        for first, second in zip(one.features, other.features, strict=True)
    ]
    return Maps(pixels, features)


class LocalStatistics:
    """First and second moments of what is seen of one batch of images, over a grid of cells.

    Args:
        maps: Maps (N, C_i, h_i, w_i).
        grid: Cells along each side.
    """

    def __init__(self, maps: Maps, grid: int) -> None:
        self.maps, self.grid = maps, grid
        self.mean = cell_means(maps.all(), grid)  # (N, cells, C)
        square = self._mean_products(maps)
        # Rounding can push a difference of equal numbers below zero.
        self.variance = (square - self.mean.square()).clamp_min(0) + VARIANCE_FLOOR

    def tokens(self) -> Tensor:
        """(N, cells, C_0 + C): means of the pixels, logarithmic standard deviations of all.

        The means of the feature maps say more of the content than of its quality, and change most
        when the picture is mirrored.
        """
        pixels = self.mean[..., : self.maps.pixels[0].shape[1]]
        return torch.cat([pixels, 0.5 * self.variance.log()], dim=-1)

    def correlation(self, other: LocalStatistics) -> Tensor:
        """(N, cells, C): correlation of each channel with another image's, about [-1, 1]."""
        covariance = self._mean_products(other.maps) - self.mean * other.mean
        return covariance / (self.variance * other.variance).sqrt()

    def _mean_products(self, other: Maps) -> Tensor:
        """(N, cells, C): means of the products with another image's maps, or with the own."""
        products = [
            tuple(a.float() * b.float() for a, b in zip(looks, others, strict=True))
            for looks, others in zip(self.maps.all(), other.all(), strict=True)
        ]
        return cell_means(products, self.grid)
