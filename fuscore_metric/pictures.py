"""Images that may still be files: headers are checked at once, pixels are decoded when needed.

So a list of thousands of files is refused before anything is computed if one is missing or of the
wrong size, and is scored in the memory of a few.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuscore_metric._decode import InputError, file_size, raw_pixels
from fuscore_metric.images import (
    ImageLike,
    ImagesLike,
    ThermalRange,
    as_images,
    check_triples,
    one_image,
    unit_range,
)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image.

    Attributes:
        name: How errors of decoding call it, such as `fused[2]`.
        argument: `ir`, `vis` or `fused`.
        shape: (3, H, W).
        source: A file, or finished pixels.
        given: What tells it from others before its pixels are known: a path, the caller's object.
        thermal_range: As in `images.as_images`, for a file.
    """

    name: str
    argument: str
    shape: tuple[int, ...]
    source: str | Tensor
    given: Hashable
    thermal_range: ThermalRange | None = None

    @property
    def is_file(self) -> bool:
        """Whether the pixels are still in a file."""
        return isinstance(self.source, str)

    @property
    def bytes(self) -> int:
        """What the picture takes when decoded, about: a byte a channel."""
        return math.prod(self.shape)

    def decode(self) -> Tensor:
        """Read the file: raw pixels, without any arithmetic of torch's, so that threads can do it.

        Raises:
            InputError: The file is broken.
        """
        if isinstance(self.source, Tensor):
            return self.source
        raw = raw_pixels(self.source, self.name, self.argument)[0]  # (C, H, W)
        if tuple(raw.shape[-2:]) != self.shape[-2:]:
            raise InputError(f"Expected `{self.name}` as it was, got a file that changes meanwhile")
        return raw

    def pixels(self, decoded: Tensor) -> Tensor:
        """Bring what `decode` returned to (3, H, W) float32 in [0, 1].

        Raises:
            InputError: Values are out of range.
        """
        if isinstance(self.source, Tensor):
            return decoded
        return unit_range(decoded, self.name, self.argument, thermal_range=self.thermal_range)


def open_pictures(
    images: ImagesLike, argument: str, *, thermal_range: ThermalRange | None = None
) -> list[Picture]:
    """Look at images without decoding files; takes what `images.as_images` takes.

    Raises:
        InputError: An image cannot be used, as far as can be seen now.
    """
    if isinstance(images, (str, os.PathLike)):
        return [_open(images, argument, argument, thermal_range)]
    if isinstance(images, Sequence) and not isinstance(images, bytes) and images:
        return [
            _open(image, f"{argument}[{n}]", argument, thermal_range)
            for n, image in enumerate(images)
        ]
    whole = as_images(images, argument, thermal_range=thermal_range)
    return [_ready(pixels, argument, _place(pixels)) for pixels in whole]


def open_triples(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    thermal_range: ThermalRange | None = None,
) -> list[tuple[Picture, Picture, Picture]]:
    """Look at N triples; of sources there may be one pair for all.

    Raises:
        InputError: An image cannot be used, or the three do not belong together.
    """
    read_ir = open_pictures(ir, "ir", thermal_range=thermal_range)
    return join(read_ir, open_pictures(vis, "vis"), open_pictures(fused, "fused"))


def join(
    ir: list[Picture], vis: list[Picture], fused: list[Picture]
) -> list[tuple[Picture, Picture, Picture]]:
    """Make triples of pictures; of sources there may be one pair for all.

    Raises:
        InputError: The three do not belong together.
    """
    check_triples(ir, vis, fused)
    repeated = [one * len(fused) if len(one) == 1 else one for one in (ir, vis)]
    return list(zip(*repeated, fused, strict=True))


def load_triples(
    ir: ImagesLike, vis: ImagesLike, fused: ImagesLike
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Look at N triples and load all of them.

    Args:
        ir: Infrared images, or one for all.
        vis: Visible images of the same scenes.
        fused: Fused images made from them.

    Returns:
        Three lists of N tensors (3, H, W), float32 in [0, 1]; H and W are equal within a triple.

    Raises:
        InputError: If an image is bad, or the three do not belong together.
    """
    triples = open_triples(ir, vis, fused)
    columns = (
        [one.pixels(one.decode()) for one in column] for column in zip(*triples, strict=True)
    )
    loaded_ir, loaded_vis, loaded_fused = columns
    return loaded_ir, loaded_vis, loaded_fused


def source_pairs(triples: Sequence[tuple[Picture, Picture, Picture]]) -> list[int]:
    """Number the source pair of each triple: equal where both sources are the same picture.

    The same are: one path, one object, one place in memory, and tensors of equal numbers. Images
    that carry a graph are only one and the same object, so that each gets its own gradient.
    """
    known = _Known(ir for ir, _, _ in triples), _Known(vis for _, vis, _ in triples)
    numbers: dict[tuple[int, int], int] = {}
    found = []
    for ir, vis, _ in triples:
        both = known[0].number(ir), known[1].number(vis)
        found.append(numbers.setdefault(both, len(numbers)))
    return found


class _Known:
    """Pictures met so far.

    Args:
        pictures: All that will be met.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._samples = _samples(pictures)
        self._numbers: dict[Hashable, int] = {}
        self._alike: dict[Hashable, list[tuple[Tensor, int]]] = {}
        self._count = 0

    def number(self, picture: Picture) -> int:
        """The number of a picture, the same for the same picture."""
        if picture.given not in self._numbers:
            self._numbers[picture.given] = self._by_content(picture)
        return self._numbers[picture.given]

    def _by_content(self, picture: Picture) -> int:
        pixels = picture.source
        if isinstance(pixels, Tensor) and picture.given in self._samples:
            sample = self._samples[picture.given]
            alike = self._alike.setdefault((picture.shape, pixels.device, sample), [])
            for other, number in alike:
                if torch.equal(pixels, other):
                    return number
            alike.append((pixels, self._count))
        self._count += 1
        return self._count - 1


def _samples(pictures: Iterable[Picture]) -> dict[Hashable, float]:
    """A sum of some of the pixels of each picture that carries no graph, by what it was given as.

    So that few are compared in full. All sums of a device are read at once: each look would make a
    GPU wait.
    """
    sums: dict[torch.device, dict[Hashable, Tensor]] = defaultdict(dict)
    for picture in pictures:
        pixels = picture.source
        if isinstance(pixels, Tensor) and not pixels.requires_grad:
            by_given = sums[pixels.device]
            if picture.given not in by_given:
                by_given[picture.given] = pixels[:, ::8, ::8].sum()
    found: dict[Hashable, float] = {}
    for by_given in sums.values():
        found |= zip(by_given, torch.stack(list(by_given.values())).tolist(), strict=True)
    return found


def _open(
    image: ImageLike, name: str, argument: str, thermal_range: ThermalRange | None
) -> Picture:
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        shape = (3, *file_size(path, name, argument))
        return Picture(name, argument, shape, path, path, thermal_range)
    pixels = one_image(image, name, argument, thermal_range=thermal_range)
    return _ready(pixels, argument, id(image))


def _ready(pixels: Tensor, argument: str, given: Hashable) -> Picture:
    return Picture(argument, argument, tuple(pixels.shape), pixels, given)


def _place(pixels: Tensor) -> Hashable:
    """Where in memory the pixels are: rows of an expanded batch are one image."""
    if pixels.requires_grad:
        return id(pixels)
    return pixels.device, pixels.data_ptr(), tuple(pixels.shape), pixels.stride()
