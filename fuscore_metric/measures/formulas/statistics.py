"""Measures that look at `fused` alone: how much its grey levels vary.

None of them asks whether the variation comes from the sources: noise raises all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.windows import length, root, sobel
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure


def standard_deviation(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """SD: sqrt(mean((f - mean f)^2)), in grey levels.

    Equals the evaluators of Tang, of CDDFuse and (named Variance) of VIFB. That of Tang's survey of
    2022 squared numbers of 8 bits, so that f - mean f below 0 counted as 0 and squares above 255
    as 255.

    Source: Y.-J. Rao, "In-fibre Bragg grating sensors", Measurement Science and Technology 8(4),
    1997, whom fusion papers cite for it.

    Returns:
        (N,) in [0, 127.5]; 0 for one grey level everywhere. Higher is better. Differentiable.
    """
    del ir, vis
    return root(fused.pixels.flatten(1).var(1, correction=0))


def spatial_frequency(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """SF: sqrt(mean of squared differences across + mean of those down), in grey levels.

    Equals the evaluators of Tang and CDDFuse. That of Tang's survey of 2022 had pixels in [0, 1]:
    this divided by 255. VIFB divides by all pixels, not by the number of differences, and lays the
    three channels side by side in one image, whose seams count.

    Source: A. M. Eskicioglu and P. S. Fisher, "Image quality measures and their performance", IEEE
    Transactions on Communications 43(12), 1995.

    Returns:
        (N,) in [0, 255 sqrt(2)]. Higher is better. Differentiable.
    """
    del ir, vis
    across, down = fused.pixels.diff(dim=-1), fused.pixels.diff(dim=-2)
    return root((across**2).mean((1, 2)) + (down**2).mean((1, 2)))


def average_gradient(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """AG: mean of sqrt((dx^2 + dy^2) / 2) with central differences, in grey levels per pixel.

    Equals the evaluator of CDDFuse. Tang's and VIFB's divide the sum over all H W pixels by
    (H - 1)(W - 1), which makes it larger by a share of about 1/H + 1/W.

    Source: G. Cui et al., "Detail preserved fusion of visible and infrared images using regional
    saliency extraction and multi-scale image decomposition", Optics Communications 341, 2015.

    Returns:
        (N,) in [0, 255]. Higher is better. Differentiable.
    """
    del ir, vis
    return gradient_length(fused.pixels).mean((1, 2)) / 2**0.5


def gradient_length(pixels: Tensor) -> Tensor:
    """Length of the central differences, one-sided at the border, as MATLAB's `gradient`.

    Args:
        pixels: (N, H, W).

    Returns:
        (N, H, W).
    """
    halves = pixels / 2
    return length(_central(halves, -1), _central(halves, -2))


def _central(halves: Tensor, dim: int) -> Tensor:
    """Next less previous; at the border twice the difference of the two that there are."""
    inner = halves.shape[dim] - 2
    first, last = (
        2 * (halves.narrow(dim, at + 1, 1) - halves.narrow(dim, at, 1)) for at in (0, inner)
    )
    between = halves.narrow(dim, 2, inner) - halves.narrow(dim, 0, inner)
    return torch.cat((first, between, last), dim)


def edge_intensity(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """EI: mean length of Sobel's differences (weights 1, 2, 1), in grey levels.

    Beyond the border lies the nearest pixel. Equals VIFB's evaluator.

    Source: B. Rajalingam and R. Priya, "Hybrid multimodality medical image fusion technique for
    feature enhancement in medical diagnosis", International Journal of Engineering Science
    Invention, 2018.

    Returns:
        (N,) in [0, 255 sqrt(20)]. Higher is better. Differentiable.
    """
    del ir, vis
    return length(*sobel(fused.pixels, "replicate")).mean((1, 2))


def _saturating_deviation(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """SD of numbers of 8 bits, which MATLAB rounds and keeps in [0, 255]."""
    del ir, vis
    above = (fused.pixels - fused.pixels.mean((1, 2), keepdim=True)).round().clamp_min(0)
    return root((above**2).clamp_max(WHITE).mean((1, 2)))


def _spatial_frequency_of_unit_range(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    return spatial_frequency(ir, vis, fused) / WHITE


def _spatial_frequency_by_pixels(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Means over all pixels."""
    del ir, vis
    across, down = fused.pixels.diff(dim=-1), fused.pixels.diff(dim=-2)
    both = (across**2).sum((1, 2)) + (down**2).sum((1, 2))
    return root(both / fused.pixels[0].numel())


def _average_gradient_by_intervals(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Divided by (H - 1)(W - 1)."""
    height, width = fused.pixels.shape[1:]
    more = height * width / ((height - 1) * (width - 1))
    return average_gradient(ir, vis, fused) * more


MEASURES = (
    Measure("SD", "standard deviation", standard_deviation, "Rao 1997", high=WHITE / 2),
    Measure(
        "SF", "spatial frequency", spatial_frequency, "Eskicioglu, Fisher 1995", high=WHITE * 2**0.5
    ),
    Measure("AG", "average gradient", average_gradient, "Cui et al. 2015", high=WHITE),
    Measure("EI", "edge intensity", edge_intensity, "Rajalingam, Priya 2018", high=WHITE * 20**0.5),
)

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"SF": _spatial_frequency_by_pixels, "AG": _average_gradient_by_intervals},
    "tang": {"AG": _average_gradient_by_intervals},
    "tang2022": {
        "SD": _saturating_deviation,
        "SF": _spatial_frequency_of_unit_range,
        "AG": _average_gradient_by_intervals,
    },
}
"""By evaluator and measure: formulas that differ from the definitions above."""
