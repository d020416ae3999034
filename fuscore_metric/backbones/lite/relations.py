"""Pictures -> what statistics of single images miss: how fused follows its sources, place by place.

Correlations over a whole cell do not show that a target was lost, or that structure was invented
in one part of it. So structure is compared in small windows, as SSIM does (Wang et al., TIP 2004),
and once more on the hot targets of the infrared image alone; then means over cells are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 7
"""Pixels along each side of the windows."""
STRUCTURE_FLOOR = 9e-4
"""SSIM's constant (0.03 of the range, squared): flat windows agree with each other."""
BRIGHTNESS = (0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
"""Where the share of brighter pixels is taken."""
STEEPNESS = 40.0
"""Of the soft step there."""
SURROUND = 0.1
"""Half the side of a target's surround, of the image's longer side."""
SCALES = 3
RELATIONS = 12 * SCALES + len(BRIGHTNESS) + 13 + 8
"""Numbers of a cell."""
_FEW = 0.01  # of a cell's pixels, added where something is divided by how many are hot


@dataclass(frozen=True)
class Relief:
    """A source pair as the comparison needs it, made once for all its fused images.

    Attributes:
        ir: Grey maps (U, 1, h, w) in [0, 1], at 1/2, 1/4 and 1/8 of the image's scale.
        vis: Likewise.
        ir_moments: Mean and variance of each map in the windows.
        vis_moments: Likewise.
        hot: (U, 1, h, w) in [0, 1] at the first and the last scale: how much of a hot target.
        contrast: Contrast of the last maps of ir and of vis against their surround.
    """

    ir: tuple[Tensor, ...]
    vis: tuple[Tensor, ...]
    ir_moments: tuple[tuple[Tensor, Tensor], ...]
    vis_moments: tuple[tuple[Tensor, Tensor], ...]
    hot: tuple[Tensor, Tensor]
    contrast: tuple[Tensor, Tensor]

    def rows(self, numbers: Tensor) -> Relief:
        """The relief of some source pairs, by number in the batch."""
        return Relief(
            tuple(m[numbers] for m in self.ir),
            tuple(m[numbers] for m in self.vis),
            tuple((m[numbers], v[numbers]) for m, v in self.ir_moments),
            tuple((m[numbers], v[numbers]) for m, v in self.vis_moments),
            (self.hot[0][numbers], self.hot[1][numbers]),
            (self.contrast[0][numbers], self.contrast[1][numbers]),
        )


def make_relief(ir: Sequence[Tensor], vis: Sequence[Tensor]) -> Relief:
    """Prepare source pairs.

    Args:
        ir: Grey maps (U, 1, h, w) in [0, 1] at `SCALES` scales, each half the one before.
        vis: Likewise.
    """
    hot = _hot_targets(ir[0], _surround(ir[-1]))
    small = F.interpolate(hot, ir[-1].shape[-2:], mode="area")
    return Relief(
        tuple(ir),
        tuple(vis),
        tuple(map(_moments, ir)),
        tuple(map(_moments, vis)),
        (hot, small),
        (ir[-1] - _surround(ir[-1]), vis[-1] - _surround(vis[-1])),
    )


def relations(fused: Sequence[Tensor], relief: Relief, grid: int) -> Tensor:
    """Compare fused images with their sources.

    Args:
        fused: Grey maps (N, 1, h, w) in [0, 1] at the scales of the relief.
        relief: Of N source pairs, or of one for all.
        grid: Cells along each side.

    Returns:
        (N, grid * grid, `RELATIONS`) float32.
    """
    found, structures = [], []
    for number, image in enumerate(fused):
        maps, structure = _structure(image, relief, number)
        structures.append(structure)
        found += [maps, maps.square()]
    cells = [F.adaptive_avg_pool2d(maps, grid) for maps in found]
    brighter = [torch.sigmoid(STEEPNESS * (fused[0] - step)) for step in BRIGHTNESS]
    cells.append(F.adaptive_avg_pool2d(torch.cat(brighter, dim=1), grid))
    cells.append(_on_targets(fused[0], relief, structures[0], grid))
    cells.append(_contrast_of_targets(fused[-1], relief, structures[-1], grid))
    return torch.cat(cells, dim=1).flatten(2).transpose(1, 2).float()


def _box(image: Tensor, width: int = WINDOW) -> Tensor:
    # Along one side, then along the other: 2 x width numbers per pixel instead of width^2.
    rows = F.avg_pool2d(image, (width, 1), 1, (width // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, width), 1, (0, width // 2), count_include_pad=False)


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    mean = _box(image)
    return mean, (_box(image.square()) - mean.square()).clamp_min(0)


def _structure(fused: Tensor, relief: Relief, number: int) -> tuple[Tensor, Tensor]:
    """Six maps of one scale (N, 6, h, w), and the first two: structure kept of ir and of vis."""
    mean, variance = _moments(fused)
    kept, sources = [], []
    for image, (mean_of, variance_of) in (
        (relief.ir[number], relief.ir_moments[number]),
        (relief.vis[number], relief.vis_moments[number]),
    ):
        shared = _box(fused * image) - mean * mean_of
        kept.append((2 * shared + STRUCTURE_FLOOR) / (variance + variance_of + STRUCTURE_FLOOR))
        sources.append(variance_of.expand_as(variance))
    ir, vis = kept
    stronger = torch.where(sources[0] > sources[1], ir, vis)
    # The root's slope is infinite at 0, where the picture is flat.
    deviation = (variance + 1e-6).sqrt()
    most = (torch.maximum(*sources) + 1e-6).sqrt()
    excess, loss = 10 * F.relu(deviation - most), 10 * F.relu(most - deviation)
    both = torch.cat(kept, dim=1)
    return torch.cat([both, stronger, torch.maximum(ir, vis), excess, loss], dim=1), both


def _surround(image: Tensor) -> Tensor:
    width = 2 * max(1, round(SURROUND * max(image.shape[-2:]))) + 1
    # A side shorter than the window's half takes no padding of that half.
    width = min(width, 2 * (min(image.shape[-2:]) // 2) + 1)
    return _box(_box(image, width), width)


def _hot_targets(ir: Tensor, surround: Tensor) -> Tensor:
    """How far each pixel stands above its surround and the image's mean, as 0 to 1.

    0 up to half a standard deviation above, 1 from two on.
    """
    mean = ir.mean((-2, -1), keepdim=True)
    spread = (ir.var((-2, -1), keepdim=True, correction=0) + 1e-6).sqrt()
    near = F.interpolate(surround, ir.shape[-2:], mode="bilinear", align_corners=False)
    above = (ir - torch.maximum(mean, torch.minimum(near, mean + spread))) / spread
    return ((above - 0.5) / 1.5).clamp(0, 1)


def _on_targets(fused: Tensor, relief: Relief, structure: Tensor, grid: int) -> Tensor:
    """Thirteen numbers of a cell, from the first scale: (N, 13, grid, grid)."""
    hot, ir, vis = relief.hot[0], relief.ir[0], relief.vis[0]
    ir, vis, hot = (image.expand_as(fused) for image in (ir, vis, hot))
    maps = torch.cat([structure, fused, ir, vis, (fused - vis).abs(), (fused - ir).abs()], dim=1)
    weighted = F.adaptive_avg_pool2d(hot * maps, grid)  # (N, 7, grid, grid)
    share = F.adaptive_avg_pool2d(hot, grid)
    return torch.cat([share, weighted, weighted[:, :5] / (share + _FEW)], dim=1)


def _contrast_of_targets(fused: Tensor, relief: Relief, structure: Tensor, grid: int) -> Tensor:
    """Eight numbers of a cell, from the last scale: (N, 8, grid, grid)."""
    hot, (ir, vis) = relief.hot[1].expand_as(fused), relief.contrast
    ir, vis = ir.expand_as(fused), vis.expand_as(fused)
    own = fused - _surround(fused)
    lost = hot * F.relu(ir - own)
    means = F.adaptive_avg_pool2d(
        torch.cat([hot * own, hot * ir, hot * vis, lost, hot * F.relu(ir)], dim=1), grid
    )
    worst = F.adaptive_max_pool2d(torch.cat([lost, hot * (1 - structure[:, :1])], dim=1), grid)
    share = means[:, 3:4] / (means[:, 4:5] + 0.1 * _FEW)
    return torch.cat([means, worst, share], dim=1)
