"""What proxy ratings are defined from, beyond the classic measures of `fuscore_metric.measures`.

These are ours: they resemble measures that papers print, with other constants or weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from fuscore_metric.measures.formulas.edges import EdgePreservation, edges
from fuscore_metric.measures.formulas.perception import filtered, frequencies, mannos_sakrison
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_training.fusions.classic import Image

BLOCK = 16
"""Side in pixels of the blocks of `perceptual_difference`."""


def as_grey(image: Image) -> Grey:
    """Luma (H, W) in [0, 1] as the classic measures read it, but without rounding to levels."""
    return Grey(torch.from_numpy(image * WHITE)[None])


def invented_edges(ir: EdgePreservation, vis: EdgePreservation) -> float:
    """Gradients of the fused image that neither source has, in [0, 1]; lower is better.

    Nabf with Sobel's gradients and the edge preservation of Qabf in place of Kumar's. It ignores
    places where neither source has a gradient.
    """
    weights = ir.strength + vis.strength
    lost = (1 - ir.preserved) * ir.strength + (1 - vis.preserved) * vis.strength
    invented = ir.exceeded & vis.exceeded
    return float((lost * invented).sum() / weights.sum().clamp(min=1e-12))


def perceptual_difference(ir: Grey, vis: Grey, fused: Grey) -> float:
    """Locally weighted, contrast-sensitivity-filtered difference from the sources; lower is better.

    In each block the fused image is compared with both sources, each weighted by its share of the
    block's squared gradients: salient places should be as the more salient source has them. It is
    Qcv with our own viewing distance, weights and border.

    Returns:
        Weighted mean squared difference in grey levels squared, >= 0.
    """
    weights = [_block_means(one.once(edges).strength ** 2) for one in (ir, vis)]
    errors = [_block_means((fused.once(_visible) - one.once(_visible)) ** 2) for one in (ir, vis)]
    total = (weights[0] + weights[1]).sum().clamp(min=1e-12)
    return float((weights[0] * errors[0] + weights[1] * errors[1]).sum() / total)


def _visible(pixels: Tensor) -> Tensor:
    """What eyes see, the highest frequency of the image taken as 30 cycles per degree."""
    down, across = frequencies(pixels)
    return filtered(pixels, mannos_sakrison(0.114 * 60 * torch.hypot(down, across)))


def _block_means(images: Tensor) -> Tensor:
    """Means over whole blocks; what is left over at the right and below does not count."""
    height, width = images.shape[-2:]
    return functional.avg_pool2d(images, (min(BLOCK, height), min(BLOCK, width)))


class ThermalTargets(NamedTuple):
    """Where the infrared image shows hot targets, and what surrounds them."""

    hot: Image
    """(H, W) weight in [0, 1] of hot pixels."""
    surround: Image
    """(H, W) weight in [0, 1] of the pixels around them."""


def thermal_targets(ir: Image) -> ThermalTargets:
    """Weigh how far each pixel stands above its surround and the image mean.

    The weight is 0 below half a standard deviation above, 1 from two standard deviations on.

    Args:
        ir: (H, W) infrared luma in [0, 1].
    """
    side = max(ir.shape)
    surround = ndimage.gaussian_filter(ir, 0.08 * side, truncate=2)
    spread = max(float(ir.std()), 1e-3)
    above = (ir - np.maximum(ir.mean(), np.minimum(surround, ir.mean() + spread))) / spread
    hot = np.clip((above - 0.5) / 1.5, 0, 1)
    return ThermalTargets(hot, ndimage.gaussian_filter(hot, 0.03 * side, truncate=2) * (1 - hot))


def thermal_contrast_retention(targets: ThermalTargets, ir: Image, fused: Image) -> float:
    """How much of the hot targets' contrast against their surround the fused image keeps.

    Returns:
        Ratio of fused to infrared contrast; 1 when all is kept, 0 or less when it is lost or
        inverted, above 1 when enhanced.
    """
    hot, surround = targets
    if hot.sum() < 1e-3 * hot.size:
        return 1.0  # nothing hot to keep

    def contrast(image: Image) -> float:
        inside = float((image * hot).sum() / hot.sum())
        return inside - float((image * surround).sum() / max(float(surround.sum()), 1e-12))

    return contrast(fused) / max(contrast(ir), 0.02)
