"""Classic full-reference fusion measures that the proxy ratings are defined from.

All take luma images (H, W) float64 in [0, 1] in the order ir, vis, fused. Agreement with the
values that benchmark authors published is tested where this says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.float64]


class EdgePreservation(NamedTuple):
    """Gradient strength and per-pixel edge preservation of one source in the fused image."""

    strength: Image
    """(H, W) Sobel gradient magnitude of the source, in grey levels of 255."""
    preserved: Image
    """(H, W) how much of the source's edge is kept in the fused image, in [0, 1]."""
    exceeded: NDArray[np.bool_]
    """(H, W) True where the fused gradient is stronger than the source's."""


def _sobel(image: Image) -> tuple[Image, Image]:
    """Gradient magnitude and orientation, borders padded with zeros as in the reference."""
    across = ndimage.sobel(image * 255.0, axis=1, mode="constant")
    down = ndimage.sobel(image * 255.0, axis=0, mode="constant")
    safe = np.where(across == 0, 1e-12, across)
    orientation = np.where(across == 0, np.pi / 2, np.arctan(down / safe))
    return np.hypot(across, down), orientation


def edge_preservation(source: Image, fused: Image) -> EdgePreservation:
    """Edge strength and orientation preservation of Xydeas and Petrovic.

    Source: C. S. Xydeas and V. Petrovic, "Objective image fusion performance measure",
    Electronics Letters 36(4), 2000; their sigmoid constants.

    Args:
        source: (H, W) luma of `ir` or `vis` in [0, 1].
        fused: (H, W) luma of `fused` in [0, 1].
    """
    strength, orientation = _sobel(source)
    fused_strength, fused_orientation = _sobel(fused)
    low = np.minimum(strength, fused_strength)
    high = np.maximum(strength, fused_strength)
    ratio = np.where(high > 0, low / np.maximum(high, 1e-12), 0.0)
    aligned = np.abs(np.abs(orientation - fused_orientation) - np.pi / 2) * 2 / np.pi
    kept_strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
    kept_orientation = 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))
    return EdgePreservation(strength, kept_strength * kept_orientation, fused_strength > strength)


def qabf(ir: EdgePreservation, vis: EdgePreservation) -> float:
    """Qabf: edge preservation of both sources, weighted by their gradients, in [0, 1].

    Higher than the values that toolboxes publish by 0.04-0.05: those do not wrap orientation
    differences at pi, as the paper does. With their two slips put back it gives VIFB's numbers to
    every printed digit (`tests/test_classic_measures.py`).
    """
    weights = ir.strength + vis.strength
    kept = ir.preserved * ir.strength + vis.preserved * vis.strength
    return float(kept.sum() / max(weights.sum(), 1e-12))


def nabf(ir: EdgePreservation, vis: EdgePreservation) -> float:
    """Nabf: gradients of the fused image that neither source has, in [0, 1]; lower is better.

    After B. K. Shreyamsha Kumar, "Multifocus and multispectral image fusion based on pixel
    significance using discrete cosine harmonic wavelet transform", SIViP 2013, with the edge
    preservation and weights of `qabf` in place of his: not comparable with published values. Blind
    where neither source has a gradient.
    """
    weights = ir.strength + vis.strength
    lost = (1 - ir.preserved) * ir.strength + (1 - vis.preserved) * vis.strength
    invented = ir.exceeded & vis.exceeded
    return float((lost * invented).sum() / max(weights.sum(), 1e-12))


def vif(reference: Image, image: Image) -> float:
    """Pixel-domain visual information fidelity of `image` given `reference`.

    Source: H. R. Sheikh and A. C. Bovik, "Image information and visual quality", IEEE TIP 2006
    (four scales, noise variance 2 grey levels squared). 1 for a perfect copy; above 1 when the
    contrast is enhanced. The published values for TNO come from 8-bit arithmetic that saturates;
    with that put back this gives them to 1e-8 (`tests/test_classic_measures.py`).
    """
    reference, image = reference * 255.0, image * 255.0
    gained = total = 0.0
    for scale in range(1, 5):
        width = 2 ** (5 - scale) + 1
        if scale > 1:
            reference = _window(reference, width)[::2, ::2]
            image = _window(image, width)[::2, ::2]
        if min(reference.shape) <= width:
            break
        scale_gained, scale_total = _information(reference, image, width)
        gained += scale_gained
        total += scale_total
    return gained / max(total, 1e-12)


def _window(image: Image, width: int) -> Image:
    """Mean under a Gaussian of `width` pixels (sigma width / 5), valid part only."""
    radius = (width - 1) // 2
    smooth = ndimage.gaussian_filter(image, width / 5, radius=radius, mode="nearest")
    return smooth[radius:-radius, radius:-radius] if radius else smooth


def _information(reference: Image, image: Image, width: int) -> tuple[float, float]:
    noise = 2.0
    mean_r, mean_i = _window(reference, width), _window(image, width)
    var_r = np.maximum(_window(reference**2, width) - mean_r**2, 0)
    var_i = np.maximum(_window(image**2, width) - mean_i**2, 0)
    cov = _window(reference * image, width) - mean_r * mean_i
    gain = cov / (var_r + 1e-10)
    rest = var_i - gain * cov
    rest = np.where(gain < 0, var_i, rest)
    gain = np.where((gain < 0) | (var_r < 1e-10) | (var_i < 1e-10), 0, gain)
    rest = np.maximum(rest, 1e-10)
    gained = np.log10(1 + gain**2 * var_r / (rest + noise)).sum()
    return float(gained), float(np.log10(1 + var_r / noise).sum())


def perceptual_difference(ir: Image, vis: Image, fused: Image, *, block: int = 16) -> float:
    """Locally weighted, contrast-sensitivity-filtered difference from the sources; lower is better.

    In each block the fused image is compared with both sources, each weighted by its share of the
    block's squared gradients: what a viewer looks at should be as the more salient source has it.
    After H. Chen and P. K. Varshney, "A human perception inspired quality metric for image fusion
    based on regional information", Information Fusion 2007 (Qcv), with our own viewing frequency
    and squared-gradient weights: not comparable with published values.

    Returns:
        Weighted mean squared difference in grey levels of 255 squared, >= 0.
    """
    weights, errors = [], []
    for source in (ir, vis):
        strength, _ = _sobel(source)
        weights.append(_block_mean(strength**2, block))
        errors.append(_block_mean(_contrast_sensitivity((fused - source) * 255.0) ** 2, block))
    total = sum(w.sum() for w in weights)
    weighted = sum((w * e).sum() for w, e in zip(weights, errors, strict=True))
    return float(weighted / max(total, 1e-12))


def _contrast_sensitivity(image: Image) -> Image:
    """Mannos-Sakrison filter, the highest frequency of the image taken as 30 cycles a degree."""
    rows = fft.fftfreq(image.shape[0])[:, None] * 60
    columns = fft.rfftfreq(image.shape[1])[None, :] * 60
    cycles = np.hypot(rows, columns)
    gain = 2.6 * (0.0192 + 0.114 * cycles) * np.exp(-((0.114 * cycles) ** 1.1))
    return np.asarray(fft.irfft2(fft.rfft2(image) * gain, s=image.shape))


def _block_mean(image: Image, block: int) -> Image:
    rows, columns = max(image.shape[0] // block, 1), max(image.shape[1] // block, 1)
    size = (min(block, image.shape[0]), min(block, image.shape[1]))
    cut = image[: rows * size[0], : columns * size[1]]
    means: Image = cut.reshape(rows, size[0], columns, size[1]).mean((1, 3))
    return means


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
