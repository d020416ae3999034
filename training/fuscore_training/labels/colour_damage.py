"""Damage that luma does not show, and damage to the hot targets: see `degradations`.

Casts, blotches and hue are changed in Cb and Cr, in 8-bit steps, so that luma stays. Strengths are
those of the pictures that viewers rated (`training/ratings/colour.csv`).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fuscore_training.fusions.classic import Image, luma
from fuscore_training.labels.degradations import Degradation, Sources, _spatial
from fuscore_training.labels.label_measures import thermal_targets

Rng = np.random.Generator
STEP = 1 / 255
BLOTCH = 0.06
"""Deviation of the blur that makes blotches, of the longer side."""
HOT = 0.5
"""Weight from which a pixel belongs to a target."""
LEAST, MOST = 3e-4, 0.08
"""Share of the picture that a single target covers."""


def green_cast(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Cb and Cr lower by `strength`."""
    return _shifted(image, -strength * STEP, -strength * STEP)


def red_cast(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Cr higher by `strength`."""
    return _shifted(image, 0.0, strength * STEP)


def colour_cast(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """Cb and Cr moved by `strength` in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return _shifted(image, strength * STEP * np.cos(angle), strength * STEP * np.sin(angle))


def colour_blotches(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """Large soft patches of colour, deviation 0.75 `strength` in Cb and in Cr."""
    height, width = image.shape[:2]
    fields = []
    for _name in ("Cb", "Cr"):
        field = ndimage.gaussian_filter(
            rng.normal(size=(height, width)), BLOTCH * max(height, width)
        )
        fields.append(0.75 * strength * STEP * (field - field.mean()) / field.std())
    return _shifted(image, *fields)


def hue_turn(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """All hues turned by `strength` degrees."""
    y, cb, cr = _split(image)
    angle = np.deg2rad(strength)
    turned = cb * np.cos(angle) - cr * np.sin(angle), cb * np.sin(angle) + cr * np.cos(angle)
    return _join(y, *turned)


def red_blue_swap(image: Image, _: float, __: Sources, ___: Rng) -> Image:
    """Red and blue in each other's place, as when BGR is read as RGB."""
    return image[..., ::-1] if image.ndim == 3 else image


def oversaturation(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Chroma times `strength`."""
    y, cb, cr = _split(image)
    return _join(y, strength * cb, strength * cr)


def grey(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """A share `strength` of the chroma taken away."""
    y, cb, cr = _split(image)
    return _join(y, (1 - strength) * cb, (1 - strength) * cr)


def targets_faded(image: Image, strength: float, sources: Sources, rng: Rng) -> Image:
    """A hot target fades into its surround by `strength` in [0, 1]."""
    mask = strength * _a_target(sources.ir, rng)
    return image + _like(mask, image) * (_surround(image, mask) - image)


def targets_painted(image: Image, strength: float, sources: Sources, rng: Rng) -> Image:
    """A flat patch as bright as the surround's mean over a hot target, by `strength`."""
    mask = _a_target(sources.ir, rng)
    rows, columns = np.flatnonzero(mask.max(1) > HOT), np.flatnonzero(mask.max(0) > HOT)
    patch = np.zeros_like(mask)
    if len(rows) and len(columns):
        patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = strength
    patch = ndimage.gaussian_filter(patch, 1.0)
    around = _surround(image, patch).mean((0, 1))
    return np.asarray(image + _like(patch, image) * (around - image))


def targets_glared(image: Image, strength: float, sources: Sources, rng: Rng) -> Image:
    """Glare around a hot target: the picture goes to white there, by `strength`."""
    mask = _a_target(sources.ir, rng)
    wide = ndimage.gaussian_filter(mask, 0.02 * max(mask.shape))
    glare = strength * np.clip(2.5 * wide / max(float(wide.max()), 1e-6), 0, 1)
    return image + _like(glare, image) * (1 - image)


def _a_target(ir: Image, rng: Rng) -> Image:
    """Soft mask (H, W) of one to all of the hot targets; all zeros where nothing is hot."""
    hot = thermal_targets(ir).hot
    labels, count = ndimage.label(ndimage.binary_closing(hot > HOT, iterations=2))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:] / hot.size
    fit = 1 + np.flatnonzero((sizes > LEAST) & (sizes < MOST))
    if not len(fit):
        return np.zeros_like(hot)
    # The larger a target is, the more it matters; so larger ones are drawn sooner.
    weights = sizes[fit - 1] / sizes[fit - 1].sum()
    drawn = rng.choice(fit, int(rng.integers(1, len(fit) + 1)), replace=False, p=weights)
    mask = ndimage.binary_dilation(np.isin(labels, drawn), iterations=3)
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float64), 1.5))


def _surround(image: Image, mask: Image) -> Image:
    """The picture without what is under the mask, filled in from around."""
    sigma = 0.03 * max(image.shape[:2])
    weight = _spatial(1 - np.minimum(mask, 1), sigma) + 1e-6
    return _spatial(image * _like(1 - np.minimum(mask, 1), image), sigma) / _like(weight, image)


def _like(mask: Image, image: Image) -> Image:
    return mask[..., None] if image.ndim == 3 else mask


def _split(image: Image) -> tuple[Image, Image, Image]:
    """Y, Cb and Cr, the latter two around 0."""
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    y = luma(colours)
    return y, 0.564 * (colours[..., 2] - y), 0.713 * (colours[..., 0] - y)


def _join(y: Image, cb: Image, cr: Image) -> Image:
    red, blue = y + cr / 0.713, y + cb / 0.564
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], axis=2)


def _shifted(image: Image, cb: Image | float, cr: Image | float) -> Image:
    y, own_cb, own_cr = _split(image)
    return _join(y, own_cb + cb, own_cr + cr)


COLOUR_DAMAGE: dict[str, tuple[Degradation, float, float]] = {
    "colour_cast": (colour_cast, 12.0, 80.0),
    "green_cast": (green_cast, 12.0, 70.0),
    "red_cast": (red_cast, 12.0, 80.0),
    "colour_blotches": (colour_blotches, 7.0, 50.0),
    "hue_turn": (hue_turn, 30.0, 180.0),
    "red_blue_swap": (red_blue_swap, 1.0, 1.0),
    "oversaturation": (oversaturation, 1.5, 4.0),
    "grey": (grey, 0.5, 1.0),
}
TARGET_DAMAGE: dict[str, tuple[Degradation, float, float]] = {
    "targets_faded": (targets_faded, 0.5, 1.0),
    "targets_painted": (targets_painted, 0.8, 1.0),
    "targets_glared": (targets_glared, 0.6, 1.0),
}
"""Kind -> (function, least and greatest strength drawn), as in `degradations.DEGRADATIONS`."""
