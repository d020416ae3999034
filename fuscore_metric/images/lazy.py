"""Images that may still be files: headers are checked at once, pixels are decoded when needed.

So a list of thousands of files is refused before anything is computed if one is missing or of the
wrong size, and is scored in the memory of a few.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from fuscore_metric.errors import InputError
from fuscore_metric.images.checks import check_triples, smaller
from fuscore_metric.images.convert import (
    ImagesLike,
    each_image,
    holds_images,
    plain,
    raw_images,
    raw_pixels,
)
from fuscore_metric.images.cropping import CROP, Crop, find_crop
from fuscore_metric.images.doubts import Doubts, turned_by_exif
from fuscore_metric.images.files import file_header, pil_orientation
from fuscore_metric.images.ranges import unit_range
from fuscore_metric.images.thermal_range import ThermalRange


@dataclass(frozen=True, eq=False)
class Picture:
    """One image.

    Attributes:
        name: How errors of decoding call it, such as `fused[2]`.
        argument: `ir`, `vis` or `fused`.
        shape: (3, H, W).
        source: A path, the content of a file, or finished pixels.
        given: What alone tells it from others: the file, or the tensor that carries a graph. None
            where its pixels do.
        device: Where the tensor is that it was given as; None for what was no tensor.
        orientation: By EXIF; 1 if it was not turned.
        crop: Which part of what was given it is; None for all of it.
        thermal_range: As in `images.as_images`, for a file.
    """

    name: str
    argument: str
    shape: tuple[int, ...]
    source: str | bytes | Tensor
    given: Hashable = None
    device: torch.device | None = None
    orientation: int = 1
    thermal_range: ThermalRange | None = None
    crop: Crop | None = None

    @property
    def is_file(self) -> bool:
        """Whether the pixels are still in a file."""
        return not isinstance(self.source, Tensor)

    @property
    def bytes(self) -> int:
        """The approximate size of the decoded picture: a byte per channel."""
        return math.prod(self.shape)

    def decode(self) -> Tensor:
        """Read the file: raw pixels, without any arithmetic of torch's, so that threads can do it.

        Raises:
            InputError: The file is broken.
        """
        if isinstance(self.source, Tensor):
            return self.source
        raw = raw_pixels(self.source, self.name, self.argument)[0]  # (C, H, W)
        whole = self.shape[-2:] if self.crop is None else (self.crop.height, self.crop.width)
        if tuple(raw.shape[-2:]) != whole:
            raise InputError(f"Expected `{self.name}` as it was, got a file that changes meanwhile")
        return raw[:3] if self.crop is None else _part(raw[:3], self.crop, self.shape)

    def pixels(self, decoded: Tensor) -> Tensor:
        """Bring what `decode` returned to (3, H, W) float32 in [0, 1].

        Raises:
            InputError: Values are out of range.
        """
        if isinstance(self.source, Tensor):
            return decoded
        return unit_range(decoded, self.name, self.argument, thermal_range=self.thermal_range)

    def loaded(self) -> Self:
        """The same, its file read.

        Raises:
            InputError: The file is broken, or values are out of range.
        """
        return replace(self, source=self.pixels(self.decode()))

    def cropped(self, crop: Crop, shape: tuple[int, ...]) -> Self:
        """A part of it.

        Args:
            crop: Where the part begins.
            shape: (3, H, W) of the part.
        """
        if not isinstance(self.source, Tensor):
            return replace(self, shape=shape, crop=crop, given=(self.given, crop, shape))
        part = _part(self.source, crop, shape)
        given = None if self.given is None else part
        return replace(self, shape=shape, crop=crop, source=part, given=given)

    def whole_pixels(self) -> Tensor:
        """(3, H, W) in [0, 1] of the file that it is a part of.

        Raises:
            InputError: The file is broken, or values are out of range.
        """
        size = self.shape[-2:] if self.crop is None else (self.crop.height, self.crop.width)
        whole = replace(self, shape=(3, *size), crop=None)
        return whole.pixels(whole.decode())

    def detached(self) -> Self:
        """The same without a graph."""
        if not isinstance(self.source, Tensor) or not self.source.requires_grad:
            return self
        return replace(self, source=self.source.detach(), given=None)


def _part(pixels: Tensor, crop: Crop, shape: tuple[int, ...]) -> Tensor:
    return pixels[..., crop.top : crop.top + shape[-2], crop.left : crop.left + shape[-1]]


def open_pictures(
    images: ImagesLike, argument: str, *, thermal_range: ThermalRange | None = None
) -> list[Picture]:
    """Open images without decoding files; takes what `images.as_images` takes.

    Raises:
        InputError: An image cannot be used, as far as its header shows.
    """
    if not holds_images(images):
        return _open(images, argument, argument, thermal_range)
    found = [
        picture
        for name, image in each_image(images, argument)
        for picture in _open(image, name, argument, thermal_range, single=True)
    ]
    if not found:
        raise InputError(f"Expected `{argument}` with at least one image, got none")
    return found


def open_triples(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> list[tuple[Picture, Picture, Picture]]:
    """Open N triples; of sources there may be one pair for all.

    Args:
        ir: Infrared images, or one for all.
        vis: Visible images of the same scenes.
        fused: Fused images made from them.
        thermal_range: As in `images.as_images`.
        resize: As in `join`.

    Raises:
        InputError: An image cannot be used, or the three do not belong together.
    """
    read_ir = open_pictures(ir, "ir", thermal_range=thermal_range)
    read_vis, read_fused = open_pictures(vis, "vis"), open_pictures(fused, "fused")
    return join(read_ir, read_vis, read_fused, resize=resize)


def join(
    ir: list[Picture], vis: list[Picture], fused: list[Picture], *, resize: str | None = None
) -> list[tuple[Picture, Picture, Picture]]:
    """Make triples of pictures; of sources there may be one pair for all.

    Args:
        ir: Infrared images, or one for all.
        vis: Visible images of the same scenes.
        fused: Fused images made from them.
        resize: "crop" crops sources that are larger than `fused`, which decodes all three; None
            refuses them.

    Raises:
        InputError: The three do not belong together.
    """
    if resize == CROP and len(ir) == len(vis) and len(ir) in (1, len(fused)):
        several = (one * len(fused) if len(one) == 1 else one for one in (ir, vis))
        found = [_cut(*triple) for triple in zip(*several, fused, strict=True)]
        ir, vis = ([pair[n] for pair in found] for n in range(2))
    try:
        check_triples(ir, vis, fused)
    except InputError as error:
        turned = next((one for one in (*ir, *vis, *fused) if one.orientation != 1), None)
        if turned is None:
            raise
        raise InputError(f"{error}; {turned_by_exif(turned)}") from error
    repeated = [one * len(fused) if len(one) == 1 else one for one in (ir, vis)]
    return list(zip(*repeated, fused, strict=True))


def _cut(ir: Picture, vis: Picture, fused: Picture) -> tuple[Picture, Picture]:
    """The sources, cropped if they are larger than `fused`.

    Raises:
        InputError: A file is broken, or `fused` was resized.
    """
    if ir.shape != vis.shape or not smaller(fused, ir):
        return ir, vis
    pixels = (one.pixels(one.decode()).detach().cpu() for one in (ir, vis, fused))
    crop = find_crop(*pixels)
    if crop is None:
        size, whole = ("x".join(map(str, one.shape[-2:])) for one in (fused, ir))
        raise InputError(
            f"Expected `{fused.name}` as a part of its sources of {whole}, got {size} that fits "
            "them better resized than cropped: resize it back, or fuse at full size"
        )
    return ir.cropped(crop, fused.shape), vis.cropped(crop, fused.shape)


def load_triples(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Open N triples and load all of them.

    Args:
        ir: Infrared images, or one for all.
        vis: Visible images of the same scenes.
        fused: Fused images made from them.
        thermal_range: As in `images.as_images`.
        resize: As in `join`.

    Returns:
        Three lists of N tensors (3, H, W), float32 in [0, 1]; H and W are equal within a triple.

    Raises:
        InputError: If an image is bad, or the three do not belong together.
    """
    triples = open_triples(ir, vis, fused, thermal_range=thermal_range, resize=resize)
    columns = (
        [one.pixels(one.decode()) for one in column] for column in zip(*triples, strict=True)
    )
    loaded_ir, loaded_vis, loaded_fused = columns
    doubts = Doubts()
    doubts.turned(triples)
    doubts.cropped(triples)
    for (one, other, _), *pixels in zip(triples, loaded_ir, loaded_vis, strict=True):
        doubts.swapped(one.name, other.name, *pixels)
    return loaded_ir, loaded_vis, loaded_fused


def source_pairs(triples: Sequence[tuple[Picture, Picture, Picture]]) -> list[int]:
    """Number the source pair of each triple: equal where both sources are the same picture.

    The same are: one path, files and pixels of equal content. Images that carry a graph are only
    one and the same object, so that each gets its own gradient.
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
        pictures: All that will be met; the caller holds them meanwhile.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._samples = _samples(pictures)
        self._numbers: dict[Hashable, int] = {}
        self._alike: dict[Hashable, list[tuple[Tensor, int]]] = {}
        self._count = 0

    def number(self, picture: Picture) -> int:
        """The number of a picture, the same for the same picture."""
        key = picture if picture.given is None else picture.given
        if key not in self._numbers:
            self._numbers[key] = self._by_content(picture)
        return self._numbers[key]

    def _by_content(self, picture: Picture) -> int:
        pixels = picture.source
        if isinstance(pixels, Tensor) and picture in self._samples:
            sample = self._samples[picture]
            alike = self._alike.setdefault((picture.shape, pixels.device, sample), [])
            for other, number in alike:
                if torch.equal(pixels, other):
                    return number
            alike.append((pixels, self._count))
        self._count += 1
        return self._count - 1


def _samples(pictures: Iterable[Picture]) -> dict[Picture, float]:
    """A sum of some of the pixels of each picture that is known by its pixels alone.

    With it few pictures are compared in full. All sums of a device are read at once, because each
    reading would make a GPU wait.
    """
    sums: dict[torch.device, dict[Picture, Tensor]] = defaultdict(dict)
    for picture in pictures:
        pixels = picture.source
        if isinstance(pixels, Tensor) and picture.given is None:
            of_device = sums[pixels.device]
            if picture not in of_device:
                of_device[picture] = pixels[:, ::8, ::8].sum()
    found: dict[Picture, float] = {}
    for of_device in sums.values():
        found |= zip(of_device, torch.stack(list(of_device.values())).tolist(), strict=True)
    return found


def _open(
    images: ImagesLike,
    name: str,
    argument: str,
    thermal_range: ThermalRange | None,
    *,
    single: bool = False,
) -> list[Picture]:
    """Open one image, or a batch that is not a list unless a single one is asked for."""
    given = plain(images, name)
    if isinstance(given, (str, bytes)):
        height, width, orientation = file_header(given, name, argument)
        size = (3, height, width)
        return [Picture(name, argument, size, given, given, None, orientation, thermal_range)]
    turned = pil_orientation(given, name, argument) if isinstance(given, Image.Image) else 1
    device = given.device if isinstance(given, Tensor) else None
    found = []
    for raw in raw_images(given, name, argument, single=single):
        pixels = unit_range(*raw, thermal_range=thermal_range)
        own = (given if single else pixels) if pixels.requires_grad else None
        shape = tuple(pixels.shape)
        found.append(Picture(raw.name, argument, shape, pixels, own, device, turned))
    return found
