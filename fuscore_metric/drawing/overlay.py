"""A score's map (H, W) over the fused image -> the picture that `fuscore explain` writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

Pixels: TypeAlias = NDArray[np.uint8]
Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont

_ANCHORS = ((255, 245, 150), (254, 178, 76), (240, 80, 40), (180, 0, 50), (90, 0, 70))
"""From none to most: lightness falls steadily, so that the order survives print and colour
blindness; hues that grey pictures do not have."""
_OPACITY = 0.8
FULL_SCALE = 0.04
"""Points of score lost per 1 % of the area that get the last colour, in every picture. Good fusions
reach 0.007 at their peaks, plainly damaged parts 0.06 to 0.12, and 0.03 on average."""
SCALE_END = f"{FULL_SCALE:g} or more points per 1 % of the area"
"""What stands at the end of a scale of colours."""

_GAP, _MARGIN, _FONT_SIZE, _BAR = 8, 8, 14, (160, 12)
_LEAST_WIDTH = 480
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Caption:
    """The words under the picture.

    Attributes:
        headline: The score and what it is of.
        notes: Further lines; wrapped to the picture's width.
    """

    headline: str
    notes: tuple[str, ...]


def draw(fused: Pixels, attribution: NDArray[np.float32], caption: Caption) -> PILImage.Image:
    """Put the untouched image, the image under its map, a colour scale and the words together.

    Args:
        fused: (H, W, 3) 8 bits.
        attribution: (H, W) >= 0, points of score lost per pixel.
        caption: The words.

    Returns:
        RGB picture: both images side by side, everything else below.
    """
    height, width = fused.shape[:2]
    font = ImageFont.load_default(_FONT_SIZE)
    page = max(2 * width + _GAP, _LEAST_WIDTH)
    lines = [
        caption.headline,
        "Left: as given. Right: where the score was lost",
        *caption.notes,
    ]
    lines = [part for line in lines for part in _wrapped(line, font, page - 2 * _MARGIN)]
    pitch = _FONT_SIZE + 4
    footer = 3 * _MARGIN + _BAR[1] + pitch * (len(lines) + 1)
    picture = PILImage.new("RGB", (page, height + footer), _PAPER)
    picture.paste(PILImage.fromarray(fused), (0, 0))
    picture.paste(PILImage.fromarray(painted(fused, attribution)), (width + _GAP, 0))
    top = height + _MARGIN
    _draw_scale(picture, (_MARGIN, top), font)
    for number, line in enumerate(lines):
        place = (_MARGIN, top + _BAR[1] + _MARGIN + pitch * number)
        ImageDraw.Draw(picture).text(place, line, fill=_INK, font=font)
    return picture


def painted(fused: Pixels, attribution: NDArray[np.float32]) -> Pixels:
    """Lay a map over its image, in colours that mean the same in every picture.

    Args:
        fused: (H, W, 3) 8 bits.
        attribution: (H, W) >= 0, points of score lost per pixel.

    Returns:
        (H, W, 3) 8 bits.
    """
    return overlay(fused, attribution * np.float32(attribution.size / 100 / FULL_SCALE))


def overlay(image: Pixels, strength: NDArray[np.float32]) -> Pixels:
    """Lay the colours over an image (H, W, 3), more opaque where strength (H, W) in [0, 1] is."""
    strength = strength.clip(0, 1)
    opacity = _OPACITY * strength[..., None]
    mixed = (1 - opacity) * image + opacity * colours(strength)
    return np.rint(mixed).astype(np.uint8)


def colours(strength: NDArray[np.float32]) -> NDArray[np.float64]:
    """Strength (...) in [0, 1] -> (..., 3) colour in [0, 255]."""
    places = np.linspace(0, 1, len(_ANCHORS))
    channels = np.array(_ANCHORS, dtype=np.float64).T
    return np.stack([np.interp(strength, places, channel) for channel in channels], axis=-1)


def _draw_scale(picture: PILImage.Image, place: tuple[int, int], font: Font) -> None:
    width, height = _BAR
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    white = np.full((height, width, 3), 255, dtype=np.uint8)
    pen = ImageDraw.Draw(picture)
    left, top = place
    zero_width = round(pen.textlength("0", font=font)) + 6
    pen.text((left, top - 3), "0", fill=_INK, font=font)
    picture.paste(PILImage.fromarray(overlay(white, ramp)), (left + zero_width, top))
    pen.text((left + zero_width + width + 6, top - 3), SCALE_END, fill=_INK, font=font)


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break a line between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
