"""Sources that look wrong: a warning if they can be scored all the same, else an error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fuscore_metric._decode import InputError

if TYPE_CHECKING:
    from fuscore_metric.pictures import Picture

COLOURED = 0.01
"""Saturation above which an image has colours. The 278 infrared images of six data sets, VIFB and
TNO among them, have none at all; the palest of their 266 visible images in colour has 0.014."""

_FULL = {torch.uint8: 255, torch.uint16: 65535}
"""The value of what is opaque; of floats it is 1."""


class Doubts:
    """Warns of what is odd about triples, of each kind once, however many there are."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._looked = False

    def turned(self, triples: Sequence[tuple[Picture, Picture, Picture]]) -> None:
        """Warn if of three images that should be registered only some are turned by EXIF."""
        for triple in triples:
            if len({picture.orientation for picture in triple}) > 1:
                picture = next(one for one in triple if one.orientation != 1)
                self._say(
                    "turned",
                    f"{turned_by_exif(picture)}; the two others of its triple are not both "
                    "turned so: are the three registered?",
                )
                return

    def swapped(self, ir: Picture, vis: Picture, ir_pixels: Tensor, vis_pixels: Tensor) -> None:
        """Warn if the infrared image has colours and the visible one has none.

        A look at a tensor on a GPU makes it wait: only the first pair's are looked at.

        Args:
            ir: What the infrared image is called.
            vis: Likewise.
            ir_pixels: (C, H, W) of any scale.
            vis_pixels: Likewise.
        """
        quick = ir_pixels.device.type == vis_pixels.device.type == "cpu"
        if self._looked and not quick:
            return
        self._looked = True
        if saturation(ir_pixels) > COLOURED >= saturation(vis_pixels):
            self._say(
                "swapped", f"`{ir.name}` has colours and `{vis.name}` is grey: are they swapped?"
            )

    def _say(self, kind: str, message: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(message, UserWarning, stacklevel=1)


def turned_by_exif(picture: Picture) -> str:
    """Which image is turned, in words."""
    path = f" ({picture.given!r})" if isinstance(picture.given, str) else ""
    return f"`{picture.name}`{path} is turned as its EXIF orientation {picture.orientation} says"


def saturation(pixels: Tensor) -> float:
    """How far the channels of an image (C, H, W) differ, relative to the brightest; in [0, 1]."""
    some = pixels[:3, ::8, ::8].detach().to(torch.float32)
    high, low = some.amax(0), some.amin(0)
    return float((high - low).mean() / high.mean())  # NaN, which is not above anything, of black


def refuse_rgbt(raw: Tensor, name: str, argument: str) -> None:
    """Refuse a colour image with a thermal channel as the infrared image.

    An alpha channel is opaque or transparent nearly everywhere, a thermal one hardly anywhere.

    Args:
        raw: (C, H, W) as it came.
        name: How the error calls it.
        argument: `ir`, `vis` or `fused`.

    Raises:
        InputError: It is `ir`, with colours and a fourth channel that is no alpha.
    """
    if argument != "ir" or len(raw) != 4:
        return
    fourth = raw[3, ::8, ::8].detach().to(torch.float32)
    partial = (fourth > 0) & (fourth < _FULL.get(raw.dtype, 1))
    if partial.float().mean() > 0.5 and saturation(raw) > COLOURED:
        raise InputError(
            f"Expected `{name}` as an infrared image, got colours and a fourth channel that is no "
            "alpha: split it, and give the fourth channel as `ir` and the first three as `vis` "
            "(of a numpy array image[..., 3] and image[..., :3])"
        )
