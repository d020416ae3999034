"""Good and bad fusions of the example pair: 8-bit (ir, vis) -> 8-bit fused images.

Pure functions of the shipped pixels. Each image keeps only every `step`-th level, which halves the
size of the PNGs and stays below what its own noise, blur or texture hides.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from fuscore_metric.assets.example.shapes import SEED, Array

Pixels = npt.NDArray[np.uint8]

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)  # pixels
SIGMA_NOISE, SIGMA_BLUR = 0.08, 2.5  # of full range, pixels


def to_bytes(image: Array, step: int = 1) -> Pixels:
    """Round an image of 0..1 to the multiples of `step` in 0..255."""
    return ((image * (255 / step)).round() * step).clip(0, 255 // step * step).astype(np.uint8)


def fuse(ir: Pixels, vis: Pixels) -> Pixels:
    """Fuse well: the stronger detail at every scale, the brighter base, the visible's colours.

    Args:
        ir: (H, W).
        vis: (H, W, 3).

    Returns:
        The fused image, (H, W, 3).
    """
    y, cb, cr = Image.fromarray(vis).convert("YCbCr").split()
    a, b = ir / 255, np.asarray(y) / 255
    out = np.zeros_like(a)
    for sigma in SCALES:
        coarse = [gaussian_filter(x, sigma) for x in (a, b)]
        fine = [a - coarse[0], b - coarse[1]]
        power = [gaussian_filter(x**2, sigma) ** 2 + 1e-12 for x in fine]
        share = power[0] / (power[0] + power[1])
        out += share * fine[0] + (1 - share) * fine[1]
        a, b = coarse
    share = a**2 / (a**2 + b**2)
    luma = Image.fromarray(to_bytes(out + share * a + (1 - share) * b))
    fused = np.asarray(Image.merge("YCbCr", (luma, cb, cr)).convert("RGB"))
    return to_bytes(fused / 255, step=2)


def degrade(ir: Pixels, vis: Pixels, good: Pixels) -> dict[str, Pixels]:
    """Make the bad fusions: noisy and blurred copies of the good one, and the plain average.

    Args:
        ir: (H, W).
        vis: (H, W, 3).
        good: A fused image, (H, W, 3).

    Returns:
        Images (H, W, 3) by name: "noisy", "blurred", "average".
    """
    grain = np.random.default_rng(SEED).normal(0, SIGMA_NOISE, ir.shape)
    return {
        "noisy": to_bytes(good / 255 + grain[..., None], step=16),
        "blurred": to_bytes(gaussian_filter(good / 255, (SIGMA_BLUR, SIGMA_BLUR, 0)), step=3),
        "average": to_bytes((ir[..., None] / 255 + vis / 255) / 2, step=4),
    }
