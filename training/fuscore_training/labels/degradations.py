"""Controlled degradations of a fused image, each with one strength that grows with the damage.

Every function maps a fused image (H, W) or (H, W, 3), float64 in [0, 1], to one of the same shape.
The sources are there for the kinds that need them. Randomness comes only from `rng`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageFilter
from scipy import ndimage

from fuscore_training.fusions.classic import Image, luma, to_bytes
from fuscore_training.labels.label_measures import thermal_targets


@dataclass(frozen=True)
class Sources:
    """Luma (H, W) of the source pair that the fused image was made from."""

    ir: Image
    vis: Image


Degradation = Callable[[Image, float, Sources, np.random.Generator], Image]


def _spatial(image: Image, sigma: float) -> Image:
    axes = (0, 1)
    return ndimage.gaussian_filter(image, sigma, axes=axes, mode="nearest")


def _to_all_channels(change: Image, image: Image) -> Image:
    """Add a change of luma to every channel alike."""
    return image + (change[..., None] if image.ndim == 3 else change)


def noise(image: Image, strength: float, _: Sources, rng: np.random.Generator) -> Image:
    """White Gaussian noise of standard deviation `strength` in [0, 1] units, on luma."""
    return _to_all_channels(rng.normal(0, strength, image.shape[:2]), image)


def stripes(image: Image, strength: float, _: Sources, rng: np.random.Generator) -> Image:
    """Fixed-pattern noise of a thermal sensor: offsets of columns, deviation `strength`."""
    columns = rng.normal(0, strength, (1, image.shape[1]))
    return _to_all_channels(np.broadcast_to(columns, image.shape[:2]), image)


def blur(image: Image, strength: float, _: Sources, __: np.random.Generator) -> Image:
    """Gaussian blur of standard deviation `strength` pixels."""
    return _spatial(image, strength)


def jpeg(image: Image, strength: float, _: Sources, __: np.random.Generator) -> Image:
    """JPEG at quality 100 - `strength`."""
    buffer = io.BytesIO()
    PILImage.fromarray(to_bytes(image)).save(buffer, "JPEG", quality=max(1, round(100 - strength)))
    return np.asarray(PILImage.open(buffer), dtype=np.float64) / 255.0


def contrast(image: Image, strength: float, _: Sources, __: np.random.Generator) -> Image:
    """Contrast reduced to 1 - `strength` around the mean."""
    mean = float(image.mean())
    return mean + (1 - strength) * (image - mean)


def exposure(image: Image, strength: float, _: Sources, rng: np.random.Generator) -> Image:
    """Too dark or too bright: a gain of (1 -+ `strength`) with clipping, the sign at random."""
    if rng.random() < 0.5:
        return image * (1 - strength)
    return image * (1 + 1.5 * strength) + 0.25 * strength


def ghost(image: Image, strength: float, sources: Sources, rng: np.random.Generator) -> Image:
    """Misregistration: the infrared detail appears again, `strength` pixels away."""
    angle = rng.uniform(0, 2 * np.pi)
    offset = (strength * np.sin(angle), strength * np.cos(angle))
    detail = sources.ir - _spatial(sources.ir, 0.02 * max(image.shape))
    moved = ndimage.shift(detail, offset, order=1, mode="nearest")
    return _to_all_channels(0.6 * (moved - 0.5 * detail), image)


def halo(image: Image, strength: float, _: Sources, __: np.random.Generator) -> Image:
    """Overshoot around edges: unsharp masking by `strength`, radius about 1 % of the side."""
    grey = luma(image)
    return _to_all_channels(strength * (grey - _spatial(grey, 0.01 * max(grey.shape))), image)


def thermal_suppression(
    image: Image, strength: float, sources: Sources, _: np.random.Generator
) -> Image:
    """Hot targets fade towards the visible image by `strength` in [0, 1]."""
    hot = np.maximum(thermal_targets(sources.ir).hot, 1e-9)
    hot = ndimage.maximum_filter(hot, 5)
    return _to_all_channels(strength * hot * (sources.vis - luma(image)), image)


def texture_suppression(
    image: Image, strength: float, _: Sources, __: np.random.Generator
) -> Image:
    """Fine texture is smoothed away while strong edges stay: a blend towards a 7-pixel median."""
    smooth = PILImage.fromarray(to_bytes(image)).filter(ImageFilter.MedianFilter(7))
    return (1 - strength) * image + strength * np.asarray(smooth, dtype=np.float64) / 255.0


DEGRADATIONS: dict[str, tuple[Degradation, float, float]] = {
    "noise": (noise, 0.008, 0.12),
    "stripes": (stripes, 0.008, 0.12),
    "blur": (blur, 0.5, 4.0),
    "jpeg": (jpeg, 40.0, 97.0),
    "contrast": (contrast, 0.15, 0.85),
    "exposure": (exposure, 0.15, 0.8),
    "ghost": (ghost, 1.0, 16.0),
    "halo": (halo, 0.4, 3.0),
    "thermal_suppression": (thermal_suppression, 0.2, 1.0),
    "texture_suppression": (texture_suppression, 0.2, 1.0),
}
"""Kind -> (function, least and greatest strength drawn for the proxy ratings)."""


def degrade(
    image: Image,
    kind: str,
    strength: float,
    sources: Sources,
    rng: np.random.Generator,
    *,
    where: Image | None = None,
) -> NDArray[np.uint8]:
    """Apply one degradation and round to 8 bits, as a saved file would be.

    Args:
        image: Fused image, (H, W) or (H, W, 3) in [0, 1].
        kind: A key of `DEGRADATIONS`.
        strength: In the kind's own unit.
        sources: The source pair.
        rng: For the kinds that draw.
        where: (H, W) weight in [0, 1] of the damage at each pixel; everywhere by default.
    """
    if kind not in DEGRADATIONS:
        raise ValueError(f"Expected `kind` to be one of {', '.join(DEGRADATIONS)}, got {kind!r}")
    function, _, _ = DEGRADATIONS[kind]
    damaged = function(image, strength, sources, rng)
    if where is not None:
        weight = where[..., None] if image.ndim == 3 else where
        damaged = image + weight * (damaged - image)
    return to_bytes(damaged)


def draw_region(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Draw a rectangle of 10 to 50 % of the area as a (H, W) mask with edges 4 pixels soft."""
    share = rng.uniform(0.1, 0.5)
    aspect = np.exp(rng.uniform(-0.7, 0.7))
    sides = [min(1.0, np.sqrt(share * aspect)), min(1.0, np.sqrt(share / aspect))]
    mask = np.ones(shape)
    for axis, (length, side) in enumerate(zip(shape, sides, strict=True)):
        size = max(1, round(length * side))
        start = int(rng.integers(0, length - size + 1))
        profile = np.zeros(length)
        profile[start : start + size] = 1
        mask = mask * np.expand_dims(ndimage.gaussian_filter1d(profile, 2.0), 1 - axis)
    return mask


def draw_strength(kind: str, rng: np.random.Generator) -> float:
    """Draw a strength, evenly on a logarithmic scale between the kind's bounds.

    JPEG's scale is the damage 100 - quality, evenly drawn: its logarithm would crowd at one end.
    """
    _, low, high = DEGRADATIONS[kind]
    if kind == "jpeg":
        return float(rng.uniform(low, high))
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
