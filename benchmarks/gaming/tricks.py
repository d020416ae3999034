"""A finished fusion -> the same fusion after a cheap trick that may raise its score.

Every trick maps a fusion (H, W) or (H, W, 3), float64 in [0, 1], to one of the same shape. Strength
0 leaves it as it is. What is done to brightness is done to all channels alike, so that grey stays
grey. Randomness comes only from `rng`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from fuscore_training.fusions.classic import Image, luma
from fuscore_training.labels.degradations import Sources
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from scipy import ndimage
from skimage.exposure import equalize_adapthist

Rng = np.random.Generator
Trick = Callable[[Image, float, Sources, Rng], Image]

TEXT = "excellent quality"
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 15 - 0.5


def stretch(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Spread brightness over the whole range, a share `strength` clipped at either end."""
    if strength == 0:
        return image
    low, high = np.quantile(luma(image), [strength, 1 - strength])
    stretched: Image = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return stretched


def gain(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Contrast 1 + `strength` around the mean."""
    mean = float(luma(image).mean())
    return np.clip(mean + (1 + strength) * (image - mean), 0, 1)


def equalise(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Local histogram equalisation (CLAHE) with clip limit `strength`."""
    if strength == 0:
        return image
    grey = np.clip(luma(image), 0, 1)
    return _with_luma(image, equalize_adapthist(grey, clip_limit=strength))


def gamma(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Tone curve with exponent 2 ** `strength`: below 0 brighter, above 0 darker."""
    return np.asarray(np.clip(image, 0, 1) ** 2.0**strength)


def brightness(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Add `strength` everywhere."""
    return np.clip(image + strength, 0, 1)


def sharpen(
    image: Image, strength: float, _: Sources, __: Rng, *, radius: float, relative: bool = False
) -> Image:
    """Unsharp mask of amount `strength`; `radius` in pixels, or relative to the longer side."""
    grey = luma(image)
    sigma = radius * max(grey.shape) if relative else radius
    detail = grey - ndimage.gaussian_filter(grey, sigma, mode="nearest")
    return _with_luma(image, grey + strength * detail)


def smooth(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Blur of `strength` pixels, so slight that it mostly takes noise away."""
    return np.asarray(ndimage.gaussian_filter(image, strength, axes=(0, 1), mode="nearest"))


def noise(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """White noise of standard deviation `strength` grey levels of 255."""
    grey = luma(image)
    return _with_luma(image, grey + rng.normal(0, strength / 255, grey.shape))


def dither(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """A fixed 4 x 4 pattern, `strength` grey levels of 255 from its darkest to its brightest."""
    grey = luma(image)
    height, width = grey.shape
    pattern = np.tile(BAYER, (-(-height // 4), -(-width // 4)))[:height, :width]
    return _with_luma(image, grey + strength / 255 * pattern)


def saturation(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Colours 1 + `strength` times as strong, -1 for none; a grey image stays as it is."""
    if image.ndim == 2:
        return image
    grey = luma(image)[..., None]
    return np.clip(grey + (1 + strength) * (image - grey), 0, 1)


def vignette(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Corners darkened by `strength`, the middle left alone."""
    rows, columns = (np.linspace(-1, 1, side) ** 2 for side in image.shape[:2])
    factor = 1 - strength * (rows[:, None] + columns) / 2
    return image * (factor[..., None] if image.ndim == 3 else factor)


def frame(image: Image, strength: float, _: Sources, __: Rng, *, value: float) -> Image:
    """A frame of one brightness, as wide as a share `strength` of the shorter side."""
    width = round(strength * min(image.shape[:2]))
    if width == 0:
        return image
    framed = np.full_like(image, value)
    inside = slice(width, -width), slice(width, -width)
    framed[inside] = image[inside]
    return framed


def text(
    image: Image,
    strength: float,
    _: Sources,
    __: Rng,
    *,
    value: float = 1.0,
    box: float | None = None,
    across: bool = False,
) -> Image:
    """Write "excellent quality", as wide as a share `strength` of the picture.

    Args:
        image: The fusion.
        strength: Share of the width, in [0, 1].
        value: Brightness of the letters.
        box: Brightness of a box behind them; None for no box.
        across: Through the middle instead of in the lower left corner.
    """
    if strength == 0:
        return image
    height, width = image.shape[:2]
    size = 100 * strength * width / ImageFont.load_default(100).getlength(TEXT)
    font = ImageFont.load_default(max(size, 4))
    left, top, right, bottom = font.getbbox(TEXT)
    margin = max(2, height // 60)
    x = (width - (right - left)) / 2 if across else margin
    y = (height - (bottom - top)) / 2 if across else height - margin - (bottom - top)
    letters, plate = (PILImage.new("L", (width, height)) for _ in range(2))
    ImageDraw.Draw(letters).text((x - left, y - top), TEXT, fill=255, font=font)
    edges = (x - margin, y - margin, x + right - left + margin, y + bottom - top + margin)
    ImageDraw.Draw(plate).rectangle(edges, fill=255)
    if box is not None:
        image = _over(image, np.asarray(plate) / 255, np.array(box))
    return _over(image, np.asarray(letters) / 255, np.array(value))


def patch(image: Image, strength: float, sources: Sources, _: Rng, *, source: str) -> Image:
    """Copy one source's luma into a rectangle in the middle, a share `strength` of the area."""
    height, width = image.shape[:2]
    rows, columns = (round(np.sqrt(strength) * side) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    mask = np.zeros((height, width))
    mask[top : top + rows, left : left + columns] = 1
    return _over(image, mask, getattr(sources, source))


def _over(image: Image, mask: Image, value: Image) -> Image:
    """`value` where the mask (H, W) is 1, the image where it is 0."""
    if image.ndim == 3:
        mask, value = mask[..., None], value[..., None]
    return image + mask * (value - image)


def _with_luma(image: Image, wanted: Image) -> Image:
    """The image with luma (H, W), up to clipping; all channels move alike."""
    change = wanted - luma(image)
    return np.clip(image + (change[..., None] if image.ndim == 3 else change), 0, 1)


TRICKS: dict[str, dict[str, tuple[Trick, float]]] = {
    "contrast stretch": {f"clip {s:g}": (stretch, s) for s in (0.001, 0.005, 0.02, 0.05)},
    "contrast gain": {f"{1 + s:g}": (gain, s) for s in (0.1, 0.2, 0.4, 0.8)},
    "local equalisation": {f"limit {s:g}": (equalise, s) for s in (0.002, 0.005, 0.01, 0.03)},
    "gamma": {f"{2**s:.2f}": (gamma, s) for s in (-0.6, -0.3, 0.3, 0.6)},
    "brightness": {f"{s:+g}": (brightness, s) for s in (-0.1, -0.04, 0.04, 0.1)},
    "sharpen": {
        f"radius {r}, {s:g}": (partial(sharpen, radius=r), s)
        for r, s in ((1, 0.3), (1, 0.7), (1, 1.5), (2, 0.3), (2, 0.7), (3, 0.3), (3, 0.7))
    },
    "sharpening halo": {
        f"amount {s:g}": (partial(sharpen, radius=0.02, relative=True), s)
        for s in (0.2, 0.4, 0.8, 1.6)
    },
    "slight blur": {f"{s:g} px": (smooth, s) for s in (0.3, 0.4, 0.5, 0.7)},
    "noise": {f"std {s:g}/255": (noise, s) for s in (0.5, 1, 2, 4, 8)},
    "dither": {f"{s:g}/255": (dither, s) for s in (2, 4, 8)},
    "saturation": {f"{1 + s:g}": (saturation, s) for s in (-1, 0.3, 0.6, 1.0)},
    "text": {
        "small, white": (text, 0.25),
        "small, black": (partial(text, value=0.0), 0.25),
        "small, in a box": (partial(text, box=0.0), 0.25),
        "large, white": (partial(text, across=True), 0.9),
        "large, black": (partial(text, value=0.0, across=True), 0.9),
        "large, in a box": (partial(text, box=0.0, across=True), 0.9),
    },
    "vignette": {f"{s:g}": (vignette, s) for s in (0.2, 0.4, 0.7)},
    "frame": {
        f"{name}, {s:.0%}": (partial(frame, value=value), s)
        for name, value in (("black", 0.0), ("white", 1.0))
        for s in (0.01, 0.04)
    },
    "source in a rectangle": {
        f"{source}, {s:.0%}": (partial(patch, source=source), s)
        for source in ("ir", "vis")
        for s in (0.05, 0.15, 0.3)
    },
}
"""Trick -> strengths to choose from -> function and its strength."""
