"""Measures of how far `fused`, or what it adds, varies as the sources do."""

from __future__ import annotations

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.windows import root
from fuscore_metric.measures.grey import Grey
from fuscore_metric.measures.kinds import Compute, Measure


def centred(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, H, W) less their mean, and their variance (N,)."""
    apart = pixels - pixels.mean((1, 2), keepdim=True)
    return apart, (apart**2).mean((1, 2))


def _pearson(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Pearson's correlation (N,) of what `centred` gives; 0 with a constant."""
    spread = root(one[1] * other[1])
    return (one[0] * other[0]).mean((1, 2)) / torch.where(spread > 0, spread, 1)


def correlation_coefficient(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """CC: mean of Pearson's correlations of `fused` with both sources.

    Equals the evaluators of Tang and CDDFuse.

    Source: M. Deshmukh and U. Bhosale, "Image fusion and image quality assessment of fused images",
    International Journal of Image Processing 4(5), 2010, whom fusion papers cite for it.

    Returns:
        (N,) in [-1, 1]. A correlation is 0 where one of its two images has one grey level
        everywhere. Higher is better. Differentiable.
    """
    own = fused.once(centred)
    return (_pearson(ir.once(centred), own) + _pearson(vis.once(centred), own)) / 2


def sum_of_correlations_of_differences(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """SCD: r(f - vis, ir) + r(f - ir, vis), with Pearson's correlation r.

    What `fused` has beyond one source should be the other. Equals the evaluators of Tang and
    CDDFuse.

    Source: V. Aslantas and E. Bendes, "A new image quality metric for image fusion: The sum of the
    correlations of differences", AEU - International Journal of Electronics and Communications
    69(12), 2015.

    Returns:
        (N,) in [-2, 2]. A correlation is 0 where its source or its difference has one value
        everywhere. Higher is better. Differentiable.
    """
    beyond_vis = centred(fused.pixels - vis.pixels)
    beyond_ir = centred(fused.pixels - ir.pixels)
    return _pearson(beyond_vis, ir.once(centred)) + _pearson(beyond_ir, vis.once(centred))


MEASURES = (
    Measure(
        "CC",
        "correlation coefficient",
        correlation_coefficient,
        "Deshmukh, Bhosale 2010",
        low=-1,
        high=1,
    ),
    Measure(
        "SCD",
        "sum of the correlations of differences",
        sum_of_correlations_of_differences,
        "Aslantas, Bendes 2015",
        low=-2,
        high=2,
    ),
)

PUBLISHED: dict[str, dict[str, Compute]] = {}
"""By evaluator and measure: formulas that differ from the definitions above."""
