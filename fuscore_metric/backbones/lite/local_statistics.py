"""Feature maps -> tokens: local statistics of each image, and how far fused agrees with a source.

Quality is a matter of statistics: noise, blur and contrast show in the spread of early features,
and what was kept of a source shows in their correlation. The idea of comparing means and
covariances of network features is that of DISTS (Ding et al., TPAMI 2020); the grid, the layers
and the use as tokens are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE_FLOOR = 1e-4
"""Added to every variance: well above that of rounding to 8 bits, so flat areas do not count."""


Views = tuple[Tensor, ...]
"""Maps of one kind, each (N, C, h, w): of the image, perhaps of its mirror image too."""


class CellMoments(torch.autograd.Function):
    """Mean of a map, of its square, and of its products with other maps, over a grid of cells.

    A backward pass keeps no product.
    """

    @staticmethod
    def forward(ctx: Any, map_: Tensor, grid: int, *others: Tensor) -> tuple[Tensor, ...]:
        """(N, C, h, w) and others, of N or one -> (N, C, grid, grid), 2 + len(others) times."""
        ctx.save_for_backward(map_, *others)
        means = _means_by_window if map_.device.type == "cpu" else _means_at_once
        return tuple(means(map_, others, grid))  # K times (N, C, grid, grid)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiable itself."""
        map_, *others = ctx.saved_tensors
        needed, _, *needed_others = ctx.needs_input_grad
        spread = _spread_in_order if map_.device.type == "cpu" else _spread_by_weights
        mean, square, *products = (spread(slope.to(map_.dtype), map_) for slope in slopes)
        own = None
        if needed:
            own = mean + 2 * square * map_
            for product, other in zip(products, others, strict=True):
                own = own + product * other
        beside = [
            (product * map_).sum_to_size(other.shape) if wanted else None
            for product, other, wanted in zip(products, others, needed_others, strict=True)
        ]
        return own, None, *beside


def _spread_in_order(slope: Tensor, map_: Tensor) -> Tensor:
    """Slopes of the means of cells (N, C, grid, grid) -> of what they are means of (N, C, h, w).

    For CPUs: in the order that the map has in memory, which is faster.
    """
    spread: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(slope.contiguous(), map_)
    return spread


def _spread_by_weights(slope: Tensor, map_: Tensor) -> Tensor:
    """The same for GPUs, where the other would add in any order, and so never twice alike."""
    grid = slope.shape[-1]
    rows, columns = (
        _cell_weights(map_.shape[axis], grid, map_.device).to(map_.dtype) for axis in (2, 3)
    )
    return rows @ slope @ columns.T


def _means_by_window(map_: Tensor, others: Sequence[Tensor], grid: int) -> Tensor:
    """Means over the cells of K = 2 + len(others) products: (K, N, C, grid, grid) float64.

    For CPUs, a row of cells at a time: these maps are larger than the cache, and reading them once
    for each mean took longer than the convolutions.
    """
    sums, windows = [], _windows(map_.shape[2], grid)
    for place in windows:
        part = map_[:, :, place]
        sums.append(_sum_of_rows(part))
        sums += [_sum_of_rows(part * factor[:, :, place]) for factor in (map_, *others)]
    # In float64 from here on: a variance is a small difference of these means.
    means = torch.stack(sums).double() @ _cell_weights(map_.shape[3], grid, map_.device)
    means = means.view(grid, -1, *means.shape[1:])  # (grid, K, N, C, grid)
    heights = means.new_tensor([place.stop - place.start for place in windows])
    return (means / heights.view(-1, 1, 1, 1, 1)).movedim(0, 3)


def _means_at_once(map_: Tensor, others: Sequence[Tensor], grid: int) -> Tensor:
    """The same for GPUs, where each further operation costs time and memory is fast."""
    # First the axis that cells cut evenly: there a large map becomes small without a copy.
    first, second = (3, 2) if map_.shape[3] % grid == 0 else (2, 3)
    products = [map_, *(map_ * factor for factor in (map_, *others))]
    halfway = torch.stack([_means_along(product, first, grid) for product in products])
    return _means_along(halfway.to(_wide(map_.device)), second + 1, grid)


def _means_along(values: Tensor, axis: int, grid: int) -> Tensor:
    """Means over the cells along one of the last two axes, whose length becomes `grid`."""
    length, shape = values.shape[axis], values.shape
    if length % grid == 0:
        return values.view(*shape[:axis], grid, length // grid, *shape[axis + 1 :]).mean(axis + 1)
    weights = _cell_weights(length, grid, values.device)
    values = values.to(weights.dtype)
    return values @ weights if axis == values.ndim - 1 else weights.T @ values


def _windows(length: int, grid: int) -> list[slice]:
    """Where the cells of adaptive pooling lie; they overlap where the length is no multiple."""
    return [slice(n * length // grid, -(-(n + 1) * length // grid)) for n in range(grid)]


def _cell_weights(length: int, grid: int, device: torch.device) -> Tensor:
    """(length, grid): a product with it takes means over the cells of `_windows`.

    float64, float32 on Apple's GPUs. Made on the device: a copy from the CPU would make a GPU wait.
    """
    place, cell = torch.arange(length, device=device)[:, None], torch.arange(grid, device=device)
    inside = (place >= cell * length // grid) & (place < -(-(cell + 1) * length // grid))
    inside = inside.to(_wide(device))
    return inside / inside.sum(0)


def _wide(device: torch.device) -> torch.dtype:
    """The dtype in which small differences of large means are taken."""
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no other


def _sum_of_rows(map_: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, w); pairwise, so exact to some 1e-7 where pooling errs by 1e-5.

    Variances are small differences of these sums: what is lost here moves scores.
    """
    if map_.stride(1) == 1:  # channels last: torch sums that slowly unless it views plain
        return map_.permute(0, 2, 3, 1).sum(1).transpose(1, 2)
    return map_.sum(2)


def cell_moments(maps: Maps, others: Sequence[Maps], grid: int) -> list[Tensor]:
    """Mean of each channel, of its square, and of its products, over a grid of cells.

    All views count alike.

    Args:
        maps: Maps of one batch of images, by view.
        others: Maps of other images, in the same views.
        grid: Cells along each side.

    Returns:
        (N, grid * grid, C) float64, float32 on Apple's GPUs: the mean, that of the square, and that
        of each product.
    """
    moments_of: Any = CellMoments.apply
    pooled: list[list[Tensor]] = [[] for _ in range(2 + len(others))]
    for views, *against in zip(maps.all(), *(other.all() for other in others), strict=True):
        partners = zip(*against, strict=True) if against else ((),) * len(views)
        moments = [
            moments_of(view.float(), grid, *(partner.float() for partner in beside))
            for view, beside in zip(views, partners, strict=True)
        ]
        for found, of_views in zip(pooled, zip(*moments, strict=True), strict=True):
            found.append(maps.mean_of_views(of_views))
    # (N, C_i, grid, grid) each -> (N, grid * grid, sum of C_i)
    return [torch.cat([m.flatten(2) for m in found], dim=1).transpose(1, 2) for found in pooled]


def with_edges(pixels: Tensor) -> Tensor:
    """Pixels and two maps of their edges, which neither mirroring nor a shift changes.

    Args:
        pixels: (N, C, H, W), normalised.

    Returns:
        (N, C + 2, H, W): the pixels, then the gradient magnitude (Sobel) and the absolute Laplacian
        of their mean over channels.
    """
    grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    edges = F.conv2d(grey, _edge_kernels(grey))
    # The root's slope is infinite at 0, where the picture is flat.
    gradient = (edges[:, :2].square().sum(1, keepdim=True) + 1e-6).sqrt()
    return torch.cat([pixels, gradient, edges[:, 2:].abs()], dim=1)


def _edge_kernels(like: Tensor) -> Tensor:
    """(3, 1, 3, 3): Sobel's two kernels, and the sum of second differences along both axes.

    Computed on the device: a copy of numbers from the CPU would make a GPU wait.
    """
    place = torch.arange(3, device=like.device, dtype=like.dtype)
    slope = 1 - place  # 1, 0, -1
    middle = 1 - slope.abs()  # 0, 1, 0
    smooth, curve = 1 + middle, 1 - 3 * middle  # 1, 2, 1 and 1, -2, 1
    down = torch.outer(slope, smooth) / 4
    ring = (torch.outer(middle, curve) + torch.outer(curve, middle)) / 2
    return torch.stack([down, down.T, ring])[:, None]


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
    """The maps of a batch of images.

    Attributes:
        pixels: Pixels and edges at several scales, in one view; larger is brighter or sharper.
        features: Feature maps, each in one or more views; larger magnitude is a stronger feature.
        mirrored: Whether the views after the first are at the mirror image, and lie so: turning
            a few cells back is cheaper than turning maps.
    """

    pixels: Sequence[Tensor]
    features: Sequence[Views]
    mirrored: bool = False

    def all(self) -> list[Views]:
        """Pixels, then features, by kind and view."""
        return [*((m,) for m in self.pixels), *self.features]

    def mean_of_views(self, cells: Sequence[Tensor]) -> Tensor:
        """(N, C, grid, grid) of each view -> their mean, upright."""
        if len(cells) == 1:
            return cells[0]
        # Cells lie alike from left and right, also where the width is no multiple of the grid.
        upright = [m.flip(-1) if self.mirrored and n else m for n, m in enumerate(cells)]
        return torch.stack(upright).mean(0)

    def rows(self, numbers: Tensor) -> Maps:
        """The maps of some images, by number in the batch."""
        features = [tuple(view[numbers] for view in views) for views in self.features]
        return Maps([m[numbers] for m in self.pixels], features, self.mirrored)


def stronger(one: Maps, other: Maps) -> Maps:
    """The maps of a fusion that loses nothing: at each place the stronger of two sources."""
    pixels = [torch.maximum(a, b) for a, b in zip(one.pixels, other.pixels, strict=True)]
    features = [
        tuple(_larger(a, b) for a, b in zip(first, second, strict=True))
        for first, second in zip(one.features, other.features, strict=True)
    ]
    return Maps(pixels, features, one.mirrored)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """By magnitude; a if they are alike."""
    # On CPUs `where` takes five times as long. Weights of exactly 0 and 1 give exactly b and a.
    return torch.lerp(b, a, (a.abs() >= b.abs()).to(a.dtype))


class LocalStatistics:
    """First and second moments of the maps of one batch of images, over a grid of cells.

    Args:
        maps: Maps (N, C_i, h_i, w_i).
        grid: Cells along each side.
        references: Those of other images, N or one for all, to be compared with.
    """

    def __init__(self, maps: Maps, grid: int, references: Sequence[LocalStatistics] = ()) -> None:
        self.maps, self.grid, self.references = maps, grid, references
        mean, square, *products = cell_moments(maps, [r.maps for r in references], grid)
        self.mean, self._products = mean, products  # (N, cells, C)
        # Rounding can push a difference of equal numbers below zero.
        self.variance = (square - mean.square()).clamp_min(0) + VARIANCE_FLOOR

    def tokens(self) -> Tensor:
        """(N, cells, C_0 + C): means of the pixels, logarithmic standard deviations of all.

        The means of the feature maps depend more on the content than on its quality, and change
        most when the picture is mirrored.
        """
        pixels = self.mean[..., : self.maps.pixels[0].shape[1]]
        return torch.cat([pixels, 0.5 * self.variance.log()], dim=-1).float()

    def correlations(self) -> list[Tensor]:
        """(N, cells, C) each: correlation of each channel with each reference's, in [-1, 1]."""
        return [
            ((product - self.mean * other.mean) / (self.variance * other.variance).sqrt()).float()
            for product, other in zip(self._products, self.references, strict=True)
        ]

    def rows(self, numbers: Tensor) -> LocalStatistics:
        """The statistics of some images, by number in the batch; nothing is computed again."""
        chosen = copy(self)
        chosen.maps = self.maps.rows(numbers)
        chosen.mean, chosen.variance = self.mean[numbers], self.variance[numbers]
        chosen.references, chosen._products = (), []
        return chosen
