"""Warnings of sources that can be scored, but are probably wrong."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fuscore_metric.images.colour import COLOURED, saturation

if TYPE_CHECKING:
    from fuscore_metric.checkpoints.learned import LearnedPairs
    from fuscore_metric.images.lazy import Picture


class Doubts:
    """Warns of odd triples, once for each kind of oddity, however many there are.

    Args:
        learned: What the weights learned from, if that is known.

    Attributes:
        in_training: Whether the weights learned from a source pair, by its pictures' `given`, of
            all pairs that `note_training` was given.
    """

    def __init__(self, learned: LearnedPairs | None = None) -> None:
        self._warned: set[str] = set()
        self._checked = False
        self._learned = learned
        self.in_training: dict[tuple[Hashable, Hashable], bool] = {}

    def turned(self, triples: Sequence[tuple[Picture, Picture, Picture]]) -> None:
        """Warn if of three images that should be registered only some are turned by EXIF."""
        for triple in triples:
            if len({picture.orientation for picture in triple}) > 1:
                picture = next(one for one in triple if one.orientation != 1)
                self._warn(
                    "turned",
                    f"{turned_by_exif(picture)}; the two others of its triple are not both "
                    "turned so: are the three registered?",
                )
                return

    def cropped(self, triples: Sequence[tuple[Picture, Picture, Picture]]) -> None:
        """Warn of sources that were cropped to the size of their fusion."""
        for ir, _, fused in triples:
            if (crop := ir.crop) is not None:
                size = "x".join(map(str, fused.shape[-2:]))
                self._warn(
                    "cropped",
                    f"`{fused.name}` is {size}, its sources {crop.height}x{crop.width}: they were "
                    f"cropped where it fits them best ({crop}), and so are others like it",
                )
                return

    def swapped(self, ir: str, vis: str, ir_pixels: Tensor, vis_pixels: Tensor) -> None:
        """Warn if the infrared image has colours and the visible one has none.

        Reading a tensor on a GPU makes it wait: only those of the first pair are checked.

        Args:
            ir: What the infrared image is called.
            vis: Likewise.
            ir_pixels: (C, H, W) of any scale.
            vis_pixels: Likewise.
        """
        quick = ir_pixels.device.type == vis_pixels.device.type == "cpu"
        if self._checked and not quick:
            return
        self._checked = True
        if "swapped" not in self._warned and are_swapped(ir_pixels, vis_pixels):
            self._warn("swapped", f"`{ir}` has colours and `{vis}` is grey: are they swapped?")

    def note_training(
        self, ir: Picture, vis: Picture, ir_pixels: Tensor, vis_pixels: Tensor
    ) -> None:
        """Note whether the weights learned from a source pair.

        Args:
            ir: The infrared image.
            vis: The visible image.
            ir_pixels: What `Picture.decode` returned.
            vis_pixels: Likewise.
        """
        key = ir.given, vis.given
        if self._learned is not None and key not in self.in_training:
            both = (
                one.pixels(pixels) if one.crop is None else one.whole_pixels()
                for one, pixels in ((ir, ir_pixels), (vis, vis_pixels))
            )
            self.in_training[key] = self._learned.has(*both)

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, UserWarning, stacklevel=1)


def are_swapped(ir: Tensor, vis: Tensor) -> bool:
    """Whether the infrared image (C, H, W) has colours and the visible one has none."""
    return saturation(ir) > COLOURED >= saturation(vis)


def turned_by_exif(picture: Picture) -> str:
    """Which image is turned, in words."""
    path = f" ({picture.given!r})" if isinstance(picture.given, str) else ""
    return f"`{picture.name}`{path} is turned by its EXIF orientation {picture.orientation}"
