"""Structural similarity of `fused` to both sources.

Both measures compare local means, variances and covariances of grey levels under a Gaussian window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fuscore_metric.measures.formulas.local import Local, covariance, local
from fuscore_metric.measures.formulas.windows import gaussian_taps, pad
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure

WINDOW = gaussian_taps(11, 1.5)
C1, C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""How much each scale counts in MS-SSIM, the finest first."""


def ssim(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """SSIM: mean of SSIM(ir, fused) and SSIM(vis, fused).

    SSIM(x, y) is the mean over all places of l c with l = (2 mx my + C1) / (mx^2 + my^2 + C1) and
    c = (2 sxy + C2) / (sx^2 + sy^2 + C2): means m, variances s^2 and covariance sxy of the
    population under a Gaussian window of 11 x 11 pixels, sigma 1.5, where the window fits;
    C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.

    VIFB prints the sum over both sources. Tang's and CDDFuse's evaluators pass grey levels with
    constants for images in [0, 1] and in [-1, 1], which are more than 10,000 times too small: in
    smooth places they compare noise.

    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, whose code makes all of these choices.

    Returns:
        (N,) in [-1, 1]; 1 where all three images are equal, flat ones too. Higher is better.
        Differentiable.
    """
    return _ssim_vifb(ir, vis, fused) / 2


def ms_ssim(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """MS-SSIM: mean of MS-SSIM(ir, fused) and MS-SSIM(vis, fused).

    MS-SSIM(x, y) is a product over five scales: of the mean of c to the power of the scale's
    weight, at the coarsest scale of the mean of l c (l and c as in `ssim`). Each scale has the
    means of 2 x 2 pixels of the finer one. A mean below 0 counts as 0.

    Images with a side of 160 pixels or less have fewer scales: those with room for the window. The
    weights of these are raised so that their sum stays the same.

    Tang's evaluator prints another measure under this name: the structural similarity for pictures
    of several exposures by Ma et al. (2015), which this package does not have.

    Source: Z. Wang, E. P. Simoncelli and A. C. Bovik, "Multiscale structural similarity for image
    quality assessment", Asilomar Conference on Signals, Systems and Computers, 2003.

    Returns:
        (N,) in [0, 1]; 1 where all three images are equal. Higher is better. Differentiable.
    """
    found = []
    for source in (ir, vis):
        levels = list(zip(scales(source), scales(fused), covariances(fused, source), strict=True))
        alike = [_structure(*level) for level in levels]
        alike[-1] = alike[-1] * _luminance(*levels[-1][:2])
        found.append(product_of_powers([one.mean((1, 2)) for one in alike], SCALE_WEIGHTS))
    return (found[0] + found[1]) / 2


def gaussian(pixels: Tensor) -> Local:
    """Statistics under the window of SSIM."""
    return local(pixels, WINDOW)


def gaussian_covariance(one: Grey, other: Grey) -> Tensor:
    """Covariance under the window of SSIM."""
    return covariance(one.once(gaussian), other.once(gaussian))


def scales(grey: Grey) -> tuple[Local, ...]:
    """Statistics under the window of SSIM at up to five scales, the finest first."""
    return (grey.once(gaussian), *grey.once(_coarser))


def _coarser(pixels: Tensor) -> tuple[Local, ...]:
    found: list[Local] = []
    for _ in SCALE_WEIGHTS[1:]:
        # An odd last row or column is doubled, as in Wang's code.
        pixels = functional.avg_pool2d(pixels, 2, ceil_mode=True)
        if min(pixels.shape[-2:]) < len(WINDOW):
            break
        found.append(gaussian(pixels))
    return tuple(found)


def covariances(one: Grey, other: Grey) -> list[Tensor]:
    """Covariances under the window of SSIM at up to five scales, the finest first."""
    coarser = zip(scales(one)[1:], scales(other)[1:], strict=True)
    return [one.once_with(other, gaussian_covariance), *(covariance(*pair) for pair in coarser)]


def product_of_powers(means: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Multiply the means of scales to the power of their weights.

    Args:
        means: (N,) for each scale, the finest first. What is below 0 counts as 0.
        weights: One for each scale, or more. The first are then raised to the sum of all.

    Returns:
        (N,).
    """
    raised = sum(weights) / sum(weights[: len(means)])
    found = torch.ones_like(means[0])
    for mean, weight in zip(means, weights, strict=False):
        above = mean > 0
        # The slope of a power below 1 is infinite at 0.
        power = torch.where(above, mean, 1) ** (weight * raised)
        found = found * torch.where(above, power, 0)
    return found


def _luminance(one: Local, other: Local, c1: float = C1) -> Tensor:
    """The map of l, see `ssim`."""
    return (2 * one.mean * other.mean + c1) / (one.mean**2 + other.mean**2 + c1)


def _structure(one: Local, other: Local, shared: Tensor, c2: float = C2) -> Tensor:
    """The map of c, see `ssim`, where `shared` is the covariance."""
    return (2 * shared + c2) / (one.variance + other.variance + c2)


def _index(one: Local, other: Local, shared: Tensor, c1: float = C1, c2: float = C2) -> Tensor:
    """SSIM of two images, (N,)."""
    return (_luminance(one, other, c1) * _structure(one, other, shared, c2)).mean((1, 2))


def _ssim_vifb(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """The sum over both sources."""
    found = [
        _index(one.once(gaussian), fused.once(gaussian), fused.once_with(one, gaussian_covariance))
        for one in (ir, vis)
    ]
    return found[0] + found[1]


def _ssim_tang(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """MATLAB's `ssim` of numbers of type double: constants for [0, 1], a border of 5 pixels."""
    f = fused.once(_bordered)
    found = [
        _index(one, f, covariance(one, f), C1 / WHITE**2, C2 / WHITE**2)
        for one in (ir.once(_bordered), vis.once(_bordered))
    ]
    return (found[0] + found[1]) / 2


def _bordered(pixels: Tensor) -> Local:
    return gaussian(pad(pixels, len(WINDOW) // 2, "replicate"))


def _ssim_cddfuse(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """The sum over both sources of scikit-image's, as it was up to 0.20.

    By default it has a uniform window, sample covariances, and constants for [-1, 1] where an image
    is of type float. CDDFuse computes in float32, which changes up to 0.0002.
    """
    f = fused.once(_uniform)
    smaller, sample = (2 / WHITE) ** 2, 49 / 48
    found = [
        _index(one, f, covariance(one, f), C1 * smaller, C2 * smaller / sample)
        for one in (ir.once(_uniform), vis.once(_uniform))
    ]
    return found[0] + found[1]


def _uniform(pixels: Tensor) -> Local:
    return local(pixels, (1 / 7,) * 7)


MEASURES = (
    Measure("SSIM", "structural similarity", ssim, "Wang et al. 2004", low=-1, high=1),
    Measure("MS-SSIM", "multi-scale structural similarity", ms_ssim, "Wang et al. 2003", high=1),
)

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"SSIM": _ssim_vifb},
    "tang": {"SSIM": _ssim_tang},
    "cddfuse": {"SSIM": _ssim_cddfuse},
}
"""By evaluator and measure: formulas that differ from the definitions above."""
