"""Similarity to whichever source has more contrast: the measures of Piella and of Yang.

Their similarity is SSIM without its constants, the universal image quality index: under a window
with means m, variances s^2 and covariance sxy, q is 2 mx my / (mx^2 + my^2) times
2 sxy / (sx^2 + sy^2). Here a quotient of two zeros is 1: two black places are equally bright, two
flat ones equally flat.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.local import FLAT, Local, covariance, local, ratio
from fuscore_metric.measures.formulas.windows import gaussian_taps, length, weighted
from fuscore_metric.measures.grey import Grey
from fuscore_metric.measures.kinds import Compute, Measure

SAME = 0.75
"""From this similarity of the sources on, Qy mixes both; below it takes the better kept one."""


def quality(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qs: mean over all places of t q(ir, fused) + (1 - t) q(vis, fused).

    t = var ir / (var ir + var vis), 1/2 where both are flat. Windows are of 8 x 8 pixels, which
    count alike.

    Liu's toolbox has SSIM in place of q: its constants, its Gaussian window.

    Source: G. Piella and H. Heijmans, "A new quality metric for image fusion", ICIP 2003.

    Returns:
        (N,) in [-1, 1]; 1 for three equal images. Higher is better. Differentiable.
    """
    return _mixed(ir, vis, fused, _uniform, _alike)[0].mean((1, 2))


def weighted_quality(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qw: as `quality`, each place weighted by the larger variance of both sources.

    Source: Piella and Heijmans 2003, as for `quality`.

    Returns:
        (N,) in [-1, 1]; 1 for three equal images. Places count alike where both sources are flat
        everywhere. Higher is better. Differentiable.
    """
    similar, contrast = _mixed(ir, vis, fused, _uniform, _alike)
    return _weighted_mean(similar, contrast)


def edge_quality(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qe: `weighted_quality` of the images times that of their edges.

    The edges are lengths of Prewitt's gradients, where these have all of their 3 x 3 pixels. The
    exponent alpha of the second factor is 1.

    Liu's toolbox fails here, as it never computes the first factor; the copy that is in use squares
    the second. It also takes what is beyond the border for black, so that the frame counts most.

    Source: Piella and Heijmans 2003, as for `quality`.

    Returns:
        (N,) in [-1, 1]; 1 for three equal images. Higher is better. Differentiable.
    """
    return weighted_quality(ir, vis, fused) * _weighted_mean(
        *_mixed(ir, vis, fused, _edges, _alike_edges)
    )


def similarity(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qy: as `quality` where q(ir, vis) >= 0.75, else the larger of q(ir, fused), q(vis, fused).

    Windows are Gaussian, 7 x 7 pixels with sigma 1.5.

    Equals Liu's toolbox, which adds 2e-16 to dividend and divisor, so that rounding errors decide
    where two images are flat.

    Source: C. Yang et al., "A novel similarity based quality metric for image fusion", Information
    Fusion 9(2), 2008.

    Returns:
        (N,) in [-1, 1]; 1 for three equal images. Higher is better. Differentiable.
    """
    first, second = (_alike_gaussian(fused, one) for one in (ir, vis))
    mixed = _mix(_share(ir.once(_gaussian), vis.once(_gaussian)), first, second)
    same = ir.once_with(vis, _alike_gaussian) >= SAME
    return torch.where(same, mixed, torch.maximum(first, second)).mean((1, 2))


def _uniform(pixels: Tensor) -> Local:
    return local(pixels, (1 / 8,) * 8)


def _alike(fused: Grey, source: Grey) -> Tensor:
    return _index(fused.once(_uniform), source.once(_uniform))


def _edges(pixels: Tensor) -> Local:
    step, same = (-1.0, 0.0, 1.0), (1.0, 1.0, 1.0)
    across = weighted(weighted(pixels, step, -1), same, -2)
    down = weighted(weighted(pixels, same, -1), step, -2)
    return _uniform(length(across, down))


def _alike_edges(fused: Grey, source: Grey) -> Tensor:
    return _index(fused.once(_edges), source.once(_edges))


def _gaussian(pixels: Tensor) -> Local:
    return local(pixels, gaussian_taps(7, 1.5))


def _alike_gaussian(one: Grey, other: Grey) -> Tensor:
    return _index(one.once(_gaussian), other.once(_gaussian))


def _index(one: Local, other: Local) -> Tensor:
    """The map of q, see above."""
    bright = ratio(2 * one.mean * other.mean, one.mean**2 + other.mean**2, 0, 1)
    spread = one.variance + other.variance
    return bright * ratio(2 * covariance(one, other), spread, FLAT, 1)


def _share(ir: Local, vis: Local) -> Tensor:
    """The part of `ir` in the contrast of both."""
    return ratio(ir.variance, ir.variance + vis.variance, FLAT, 0.5)


def _mix(share: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return second + share * (first - second)


def _mixed(
    ir: Grey,
    vis: Grey,
    fused: Grey,
    statistics: Callable[[Tensor], Local],
    alike: Callable[[Grey, Grey], Tensor],
) -> tuple[Tensor, Tensor]:
    """Piella's similarity at each place, and the larger variance of both sources."""
    a, b = ir.once(statistics), vis.once(statistics)
    similar = _mix(_share(a, b), *(fused.once_with(one, alike) for one in (ir, vis)))
    return similar, torch.maximum(a.variance, b.variance)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum((1, 2), keepdim=True)
    count = weights[0].numel()
    return (values * ratio(weights, total, FLAT * count, 1 / count)).sum((1, 2))


MEASURES = (
    Measure("Qs", "Piella's quality", quality, "Piella, Heijmans 2003", low=-1, high=1),
    Measure(
        "Qw", "Piella's weighted quality", weighted_quality, "Piella, Heijmans 2003", low=-1, high=1
    ),
    Measure("Qe", "Piella's edge quality", edge_quality, "Piella, Heijmans 2003", low=-1, high=1),
    Measure("Qy", "Yang's similarity", similarity, "Yang et al. 2008", low=-1, high=1),
)

PUBLISHED: dict[str, dict[str, Compute]] = {}
"""By evaluator and measure: formulas that differ from the definitions above."""
