"""Kinds of damage that training never uses, each at five strengths from just visible to gross.

The signature is that of `fuscore_training.labels.degradations`, so that damage is made in one way
everywhere.
"""

from __future__ import annotations

import numpy as np
from fuscore_training.fusions.classic import Image
from fuscore_training.labels.degradations import Degradation, Sources
from PIL import Image as PILImage
from scipy import fft, ndimage

Rng = np.random.Generator


def motion_blur(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """Camera shake: the mean along a straight line of `strength` pixels, in a random direction."""
    angle = rng.uniform(0, np.pi)
    length = round(strength)
    kernel = np.zeros((length, length))
    for t in np.linspace(-0.5, 0.5, 4 * length):
        place = (length - 1) * (0.5 + t * np.array([np.sin(angle), np.cos(angle)]))
        kernel[tuple(np.rint(place).astype(int))] += 1
    kernel /= kernel.sum()
    shaped = kernel[..., None] if image.ndim == 3 else kernel
    return np.asarray(ndimage.convolve(image, shaped, mode="nearest"))


def impulse_noise(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """Salt and pepper on a share `strength` of the pixels."""
    drawn = rng.random(image.shape[:2])
    hit, white = drawn < strength, drawn < strength / 2
    if image.ndim == 3:
        hit, white = hit[..., None], white[..., None]
    return np.where(hit, np.where(white, 1.0, 0.0), image)


def speckle(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """Multiplicative noise of relative deviation `strength`."""
    gain = 1 + rng.normal(0, strength, image.shape[:2])
    return image * (gain[..., None] if image.ndim == 3 else gain)


def posterise(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Banding: grey levels in steps of `strength`, in [0, 1] units."""
    return np.rint(image / strength) * strength


def pixelate(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """Blocks of `strength` pixels of one colour."""
    height, width = image.shape[:2]
    small = (max(1, round(width / strength)), max(1, round(height / strength)))
    picture = PILImage.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    reduced = picture.resize(small, PILImage.Resampling.BOX)
    enlarged = reduced.resize((width, height), PILImage.Resampling.NEAREST)
    return np.asarray(enlarged, dtype=np.float64) / 255


def ringing(image: Image, strength: float, _: Sources, __: Rng) -> Image:
    """A sharp cut of all frequencies above 0.5 / `strength` cycles a pixel: ripples along edges."""
    rows = fft.fftfreq(image.shape[0])[:, None]
    columns = fft.fftfreq(image.shape[1])[None, :]
    kept = np.hypot(rows, columns) <= 0.5 / strength
    spectrum = fft.fft2(image, axes=(0, 1))
    return np.real(
        fft.ifft2(spectrum * (kept[..., None] if image.ndim == 3 else kept), axes=(0, 1))
    )


def lost_blocks(image: Image, strength: float, _: Sources, rng: Rng) -> Image:
    """A share `strength` of all 16-pixel blocks lost in transmission, grey."""
    height, width = image.shape[:2]
    lost = rng.random((-(-height // 16), -(-width // 16))) < strength
    mask = np.kron(lost, np.ones((16, 16), dtype=bool))[:height, :width]
    return np.where(mask[..., None] if image.ndim == 3 else mask, 0.5, image)


HELD_OUT: dict[str, tuple[Degradation, tuple[float, ...]]] = {
    "motion_blur": (motion_blur, (3, 5, 9, 15, 25)),
    "impulse_noise": (impulse_noise, (0.005, 0.015, 0.04, 0.1, 0.2)),
    "speckle": (speckle, (0.05, 0.1, 0.2, 0.35, 0.6)),
    "posterise": (posterise, (0.05, 0.09, 0.14, 0.2, 0.3)),
    "pixelate": (pixelate, (2, 3, 4, 6, 9)),
    "ringing": (ringing, (1.5, 2.2, 3.2, 5, 8)),
    "lost_blocks": (lost_blocks, (0.01, 0.03, 0.07, 0.15, 0.3)),
}
"""Kind -> (function, strengths)."""
