"""Where a fusion that is smaller than its sources lies in them: found by content."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuscore_metric.images.colour import luma

CROP = "crop"
"""The one value of `resize`."""


class Crop(NamedTuple):
    """What is left of an image.

    Attributes:
        top: Rows that are cut off above.
        left: Columns that are cut off on the left.
        height: Of the whole image.
        width: Likewise.
    """

    top: int
    left: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"top {self.top}, left {self.left}"


def check_resize(resize: str | None) -> None:
    """Check the option of that name.

    Raises:
        ValueError: It is neither None nor "crop".
    """
    if resize not in (None, CROP):
        raise ValueError(f"Expected `resize` to be None or {CROP!r}, got {resize!r}")


def find_crop(ir: Tensor, vis: Tensor, fused: Tensor) -> Crop | None:
    """Find the place at which a fusion fits its sources best, of all that there are.

    Methods cut to a multiple of 8, 16 or 32 pixels from the top left, or around the centre. Edges
    are compared, whose strength survives a fusion; of 125 real fusions by 45 methods, cut at the
    top left, in the centre and anywhere, every place was found to the pixel, and those that were
    resized to the same size were all told from them (`tests/images/test_pictures.py`).

    Args:
        ir: (3, H, W) in [0, 1].
        vis: (3, H, W).
        fused: (3, h, w), h <= H, w <= W.

    Returns:
        The place; None if the fusion fits the sources better after they are resized to its size.
    """
    height, width = fused.shape[-2:]
    wanted = _edges(fused)
    sources = torch.stack([ir, vis])
    fits = _fit(_edges(sources), wanted).sum(0)  # (H - h + 1, W - w + 1)
    small = F.interpolate(sources, (height, width), mode="bicubic", antialias=True)
    if _fit(_edges(small), wanted).sum() > fits.max():
        return None
    top, left = divmod(int(fits.argmax()), fits.shape[1])
    return Crop(top, left, *ir.shape[-2:])


def _edges(images: Tensor) -> Tensor:
    """Strength of the edges of (..., 3, H, W), without its mean."""
    grey = luma(images.reshape(-1, *images.shape[-3:]))[:, 0]
    down = F.pad((grey[:, 1:] - grey[:, :-1]).abs(), (0, 0, 0, 1))
    right = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1))
    strength = down + right
    return strength - strength.mean((-2, -1), keepdim=True)


def _fit(whole: Tensor, part: Tensor) -> Tensor:
    """Correlation of a part (1, h, w) with (N, H, W) at every place, (N, H - h + 1, W - w + 1)."""
    size, (height, width) = whole.shape[-2:], part.shape[-2:]
    rows, columns = size[0] - height + 1, size[1] - width + 1
    spectrum = torch.fft.rfft2(whole) * torch.fft.rfft2(part, s=size).conj()
    products: Tensor = torch.fft.irfft2(spectrum, s=size)[..., :rows, :columns]

    def sums(values: Tensor) -> Tensor:
        total: Tensor = F.pad(values.double().cumsum(-2).cumsum(-1), (1, 0, 1, 0))
        below, above = total[..., height:, :], total[..., :rows, :]
        return (below - above)[..., width:] - (below - above)[..., :columns]

    variance = sums(whole.square()) - sums(whole).square() / (height * width)
    scale: Tensor = part.norm().clamp_min(1e-6)
    return products / (variance.clamp_min(1e-12).sqrt() * scale)
