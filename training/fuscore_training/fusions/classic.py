"""Plain fusions of a source pair, for scenes that no published method's output exists for.

Luma is fused; the visible image's colour is kept (YCbCr), as most methods of the field do. Images
are (H, W) or (H, W, 3) float64 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from scipy import ndimage

Image = NDArray[np.float64]

Fusion = Callable[[Image, Image], Image]


def luma(image: Image) -> Image:
    """ITU-R BT.601 luma (H, W) of an RGB (H, W, 3) image; a grey image is returned as it is."""
    return image @ np.array([0.299, 0.587, 0.114]) if image.ndim == 3 else image


def recolour(fused_luma: Image, vis: Image) -> Image:
    """Put the visible image's chroma (Cb, Cr) around a fused luma: (H, W, 3) in [0, 1]."""
    ycbcr = np.asarray(PILImage.fromarray(to_bytes(vis)).convert("YCbCr")).copy()
    ycbcr[..., 0] = to_bytes(fused_luma)
    rgb = PILImage.fromarray(ycbcr, mode="YCbCr").convert("RGB")
    return np.asarray(rgb, dtype=np.float64) / 255.0


def to_bytes(image: Image) -> NDArray[np.uint8]:
    """Round a [0, 1] image to 8 bits."""
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)


def average(ir: Image, vis: Image) -> Image:
    """Mean of the two lumas."""
    return (ir + vis) / 2


def maximum(ir: Image, vis: Image) -> Image:
    """Pixelwise maximum of the two lumas."""
    return np.maximum(ir, vis)


def laplacian_pyramid(ir: Image, vis: Image, *, levels: int = 4) -> Image:
    """Burt-Adelson fusion: strongest Laplacian coefficient at each level, mean of the base."""
    fused_details = []
    for _ in range(levels):
        small_ir, small_vis = _reduce(ir), _reduce(vis)
        detail_ir = ir - _expand(small_ir, ir.shape)
        detail_vis = vis - _expand(small_vis, vis.shape)
        fused_details.append(
            np.where(np.abs(detail_ir) > np.abs(detail_vis), detail_ir, detail_vis)
        )
        ir, vis = small_ir, small_vis
    fused = (ir + vis) / 2
    for detail in reversed(fused_details):
        fused = _expand(fused, detail.shape) + detail
    return np.clip(fused, 0, 1)


def two_scale(ir: Image, vis: Image) -> Image:
    """Bright thermal base added to the visible base, strongest detail: vivid targets."""
    sigma = 0.02 * max(ir.shape)
    base_ir, base_vis = ndimage.gaussian_filter(ir, sigma), ndimage.gaussian_filter(vis, sigma)
    hot = np.clip((base_ir - base_ir.mean()) / max(float(base_ir.std()), 1e-3) / 2, 0, 1)
    base = base_vis + hot * np.maximum(base_ir - base_vis, 0)
    detail_ir, detail_vis = ir - base_ir, vis - base_vis
    detail = np.where(np.abs(detail_ir) > np.abs(detail_vis), detail_ir, detail_vis)
    return np.asarray(np.clip(base + detail, 0, 1))


def _reduce(image: Image) -> Image:
    return ndimage.gaussian_filter(image, 1.0, mode="nearest", truncate=2)[::2, ::2]


def _expand(image: Image, shape: tuple[int, ...]) -> Image:
    rows, columns = np.arange(shape[0]) / 2, np.arange(shape[1]) / 2
    grid = np.meshgrid(rows, columns, indexing="ij")
    expanded = ndimage.map_coordinates(image, grid, order=1, mode="nearest")
    return np.asarray(expanded, dtype=np.float64)


CLASSIC_FUSIONS: dict[str, Fusion] = {
    "average": average,
    "maximum": maximum,
    "laplacian_pyramid": laplacian_pyramid,
    "two_scale": two_scale,
}
