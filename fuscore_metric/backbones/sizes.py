"""The size in which a backbone takes images, and how they are brought to it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize with antialiased bicubic interpolation: the one resize of all backbones.

    Differentiable; where the interpolation overshoots [0, 1] the value is clamped and the gradient
    is 0. An image that has the size already is returned as it is.

    Args:
        images: (N, 3, H, W), floating point, in [0, 1].
        size: (height, width) in pixels.

    Returns:
        (N, 3, height, width) float32 in [0, 1].
    """
    images = images.to(torch.float32)
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1)


def fit_pixels(
    height: int, width: int, *, min_pixels: int, max_pixels: int, multiple: int
) -> tuple[int, int]:
    """Choose a size near (height, width) for a model that cuts images into patches.

    The rule of Qwen2-VL ("smart resize"): round both sides to the multiple; if that is too many
    pixels, scale the original down and round down; if too few, scale it up and round up. So the
    aspect ratio is kept up to rounding. A side never falls below one multiple, and the two budgets
    may be a few patches apart only: in such corners a budget gives way.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        min_pixels: Least area of the result, in pixels.
        max_pixels: Greatest area of the result, in pixels.
        multiple: Both sides are multiples of this (patch size x merge size); 1 for any size.

    Returns:
        (height, width) in pixels.

    Raises:
        ValueError: If an argument is not positive, or `min_pixels` exceeds `max_pixels`.
    """
    if min(height, width, min_pixels, multiple) < 1 or min_pixels > max_pixels:
        raise ValueError(
            "Expected positive `height`, `width`, `multiple` and 0 < `min_pixels` <= `max_pixels`, "
            f"got {height}, {width}, {multiple}, {min_pixels} and {max_pixels}"
        )
    rounded = round(height / multiple) * multiple, round(width / multiple) * multiple
    area = rounded[0] * rounded[1]
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = (max(1, math.floor(side / shrink / multiple)) for side in (height, width))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        sides = (math.ceil(side * grow / multiple) for side in (height, width))
    else:
        return rounded
    rows, columns = sides
    return rows * multiple, columns * multiple
