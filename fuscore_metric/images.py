"""Any input -> (3, H, W) float32 in [0, 1] -> batches and model sizes: where the data flow begins.

Two doors. `as_images` is the friendly one: files, PIL images, numpy arrays and tensors, each looked
at closely (`pictures` puts files off until they are needed). `check_batch` guards the exact one,
`FuScore.forward`, for the cost of a shape test.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fuscore_metric._decode import (
    MAX_PIXELS,
    MIN_SIDE,
    ImageLike,
    InputError,
    check_size,
    content,
    raw_pixels,
)
from fuscore_metric._deep import full_scale
from fuscore_metric.thermal_range import ThermalRange, check_thermal_range

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "ImageLike",
    "ImagesLike",
    "InputError",
    "ThermalRange",
    "as_images",
    "check_batch",
    "check_triples",
    "each_image",
    "fit_pixels",
    "holds_images",
    "plain",
    "raw_images",
    "resize",
    "to_batch",
    "unit_bytes",
    "unit_range",
]

ImagesLike: TypeAlias = ImageLike | Iterable[ImageLike]

# "https://...", which `Path` makes "https:/..."; a single letter is a drive of Windows.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)

# How far beyond [0, 1] a float may lie: the overshoot of somebody's resize, not another scale.
_TOLERANCE = 1e-4


def as_images(
    images: ImagesLike, argument: str, *, thermal_range: ThermalRange | None = None
) -> list[Tensor]:
    """Turn anything that holds images into a list of tensors of one form.

    What the numbers mean:

    - 8 bits are divided by 255.
    - More bits (wider integers in arrays and tensors, deep files, PIL modes I;16* and I) depend on
      the argument. `ir` holds thermal counts of unknown offset and gain: each image is scaled by
      its own range to [0, 1], all channels together; a constant image becomes 0. The range is that
      from the 2nd to the 98th percentile, and on from there in steps of a quarter of its length, as
      long as a step holds one pixel in 10,000. So it is usually that from minimum to maximum, but
      dead and hot pixels and a few rows of telemetry do not count, and are clipped. Masked pixels
      of a masked array become the median of the others.
    - More bits of `vis` and `fused`, which are made for display, are divided by the largest value
      that a file states (PNG's sBIT; TIFF's BitsPerSample of 12, MaxSampleValue, SMaxSampleValue).
      Where nothing is stated, that is the least of 255, 1023, 4095, 16383 and 65535 that no value
      of the image exceeds, with a warning if it is not 65535. Deep `ir` without a value above 255
      is divided by 255 likewise.
    - Of some 16-bit colour files (TIFF in compressed planes, CMYK) Pillow reads only 8 bits. They
      are refused for `ir`, and where 8 bits hold next to nothing of them.
    - Floats must lie in [0, 1] already, thermal ones too.
    - With a `thermal_range` none of this holds for `ir`: counts or degrees of any dtype are mapped
      from that range to [0, 1], and clipped.

    Grey becomes three equal channels, palette and CMYK become RGB, alpha is dropped (not blended
    with a background). Files and PIL images are rotated as their EXIF orientation says, because
    registered images are compared as displayed. Files are BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF
    or WebP, of one still image; what else Pillow opens can be given as a PIL image.

    Args:
        images: A file (a path, an open binary file, its content as bytes, a `zipfile.Path`), a PIL
            image, a numpy array (H, W), (H, W, C) or (N, H, W, C), a tensor (C, H, W) or
            (N, C, H, W), with C = 1, 3 or 4; or anything that yields single images of any of these
            kinds: a list, a generator, a column of a table, an array of paths. dtypes: uint8,
            uint16, float16, float32, float64; tensors also bfloat16; `ir` also int16, int32,
            uint32, int64.
        argument: `ir`, `vis` or `fused`: named in errors, and the rule for more than 8 bits. Any
            other name follows the rule of `fused`.
        thermal_range: (low, high): what is black and what is white of `ir`, in its own unit; of
            others it is ignored.

    Returns:
        One (3, H, W) contiguous float32 tensor in [0, 1] for each image. Tensors stay on their
        device and in their graph, so that gradients flow, and may share memory with the input;
        everything else is on the CPU.

    Raises:
        InputError: On anything else, in one line.
        ValueError: A thermal range that is not two numbers, the lower one first.
    """
    check_thermal_range(thermal_range)
    if not holds_images(images):
        raw = raw_images(images, argument, argument)
        return [unit_range(*one, thermal_range=thermal_range) for one in raw]
    found = [
        unit_range(*one, thermal_range=thermal_range)
        for name, image in each_image(images, argument)
        for one in raw_images(image, name, argument, single=True)
    ]
    if not found:
        raise InputError(f"Expected `{argument}` with at least one image, got none")
    return found


def holds_images(images: ImagesLike) -> TypeGuard[Iterable[ImageLike]]:
    """Whether this holds images one by one; an array or a tensor of numbers does not."""
    if isinstance(images, np.ndarray):
        return images.ndim == 1 and images.dtype.kind in "OUT"  # objects and texts
    # Strings, open files and tensors are iterable too; dictionaries and sets have no order.
    others = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, Tensor, Mapping, Set)
    if isinstance(images, others) or _is_open_file(images):
        return False
    return isinstance(images, Iterable)


def each_image(images: Iterable[ImageLike], argument: str) -> Iterator[tuple[str, ImageLike]]:
    """Name the images of what `holds_images`, one after the other.

    Whatever makes its images when asked for them may use one piece of memory for all. So a tensor
    that is not from a list is copied before the next one is asked for; what is no tensor is copied
    when it is converted.

    Yields:
        How errors call an image, and the image.
    """
    lazy = not isinstance(images, (list, tuple))
    for number, image in enumerate(images):
        copied = image.clone() if lazy and isinstance(image, Tensor) else image
        yield f"{argument}[{number}]", copied


def plain(image: Any, name: str) -> Any:
    """Bring files to one of two forms, a path (str) or their content (bytes); keep the rest.

    Raises:
        InputError: It is a URL, or an open file that cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.path.expanduser(str(os.fsdecode(image)))
        if _URL.match(path) and not os.path.exists(path):
            raise InputError(
                f"Expected `{name}` as a file on this machine, got the URL {path[:200]!r}: "
                "URLs are not read, download it first"
            )
        return path
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    return content(image, name) if _is_open_file(image) else image


def _is_open_file(image: Any) -> bool:
    return hasattr(image, "read") or hasattr(image, "read_bytes")


class RawImage(NamedTuple):
    """What `unit_range` takes.

    Attributes:
        pixels: (C, H, W) with C = 1, 3 or 4, as they came.
        name: How errors call the image.
        argument: `ir`, `vis` or `fused`.
        sound: Whether floats are known to lie in [0, 1].
    """

    pixels: Tensor
    name: str
    argument: str
    sound: bool


def raw_images(
    images: ImagesLike, name: str, argument: str, *, single: bool = False
) -> list[RawImage]:
    """Read one image, or a batch of them, with the numbers as they came.

    Args:
        images: One image, or an array or a tensor of several.
        name: How errors call it.
        argument: `ir`, `vis` or `fused`.
        single: Whether only one image will do.

    Raises:
        InputError: It cannot be used.
    """
    raw = raw_pixels(plain(images, name), name, argument)  # (N, C, H, W)
    several = len(raw) > 1
    if single and several:
        raise InputError(
            f"Expected `{name}` as one image, got a batch of {len(raw)}: a list holds single images"
        )
    # A batch is looked at once: a look at each image would make a GPU wait for each.
    sound = raw.is_floating_point() and _in_unit_range(raw[:, :3])
    # unbind, not raw[i]: the backward pass of each raw[i] fills a tensor of the whole batch's size
    return [
        RawImage(pixels, f"{name}[{n}]" if several else name, argument, sound)
        for n, pixels in enumerate(raw.unbind())
    ]


class Sized(Protocol):
    """What has the shape (..., H, W) of an image."""

    @property
    def shape(self) -> Sequence[int]:
        """(..., H, W)."""
        ...


def check_triples(ir: Sequence[Sized], vis: Sequence[Sized], fused: Sequence[Sized]) -> None:
    """Check that three lists of images form triples.

    Args:
        ir: Infrared images, as many as `fused`, or one for all.
        vis: As many visible images.
        fused: Fused images.

    Raises:
        InputError: If the lists differ in length, or the images of a triple in height or width.
    """
    if len(ir) != len(vis) or len(ir) not in (1, len(fused)):
        raise InputError(
            "Expected `ir`, `vis` and `fused` with the same number of images, or one source pair "
            f"for all, got {len(ir)}, {len(vis)} and {len(fused)}"
        )
    for number, image in enumerate(fused):
        triple = {"ir": ir[number % len(ir)], "vis": vis[number % len(vis)], "fused": image}
        several = {"ir": len(ir) > 1, "vis": len(vis) > 1, "fused": len(fused) > 1}
        names = {name: f"`{name}[{number}]`" if several[name] else f"`{name}`" for name in triple}
        for name in ("vis", "fused"):
            if tuple(triple[name].shape[-2:]) != tuple(triple["ir"].shape[-2:]):
                raise InputError(
                    f"{names['ir']} is {_size(triple['ir'])}, {names[name]} is "
                    f"{_size(triple[name])}: "
                    "the three images of a triple must have the same height and width"
                )


def to_batch(images: list[Tensor]) -> Tensor:
    """Stack images of one size.

    Args:
        images: N tensors (3, H, W) on one device.

    Returns:
        (N, 3, H, W).

    Raises:
        InputError: If there are none, or their sizes differ.
    """
    if not images:
        raise InputError("Expected `images` with at least one image, got none")
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise InputError(
                "Expected `images` of one size, "
                f"got {_size(images[0])} and (`images[{i}]`) {_size(image)}"
            )
    return torch.stack(images)  # (N, 3, H, W)


def check_batch(images: Tensor, argument: str) -> None:
    """Check the form of a batch, not its values: on a GPU that would wait for the device.

    Args:
        images: Should be (N, 3, H, W), floating point, N > 0, sides of at least `MIN_SIDE`.
            That the values lie in [0, 1] is left to the caller.
        argument: `ir`, `vis` or `fused`: named in errors.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"Expected `{argument}` as a torch tensor (N, 3, H, W), got {type(images).__name__}"
        )
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise InputError(
            f"Expected `{argument}` with shape (N, 3, H, W), got {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise InputError(f"Expected `{argument}` with a floating dtype, got {images.dtype}")
    check_size(images.shape[-2], images.shape[-1], argument)


def check_batches(**images: Tensor) -> None:
    """Check batches that belong together: each by `check_batch`, all of one shape.

    Args:
        **images: By argument name; the last says which shape.

    Raises:
        InputError: One is not a batch, or differs from the last in shape.
    """
    for argument, batch in images.items():
        check_batch(batch, argument)
    name, shape = argument, tuple(batch.shape)
    for argument, batch in images.items():
        if tuple(batch.shape) != shape:
            raise InputError(
                f"Expected `{argument}` with the shape of `{name}` {shape}, "
                f"got {tuple(batch.shape)}"
            )


def check_sources(ir: Tensor, vis: Tensor, fused: Tensor) -> None:
    """Check batches of triples, in which one source pair may be for all of `fused`.

    Raises:
        InputError: One is not a batch, or the sources are neither one pair nor one for each.
    """
    check_batch(ir, "ir")
    check_batch(vis, "vis")
    check_batch(fused, "fused")
    shape, one = tuple(fused.shape), (1, *fused.shape[1:])
    if tuple(ir.shape) == tuple(vis.shape) == one:
        return
    for argument, batch in (("ir", ir), ("vis", vis)):
        if tuple(batch.shape) != shape:
            raise InputError(
                f"Expected `{argument}` with the shape of `fused` {shape}, "
                f"or one source pair for all, got {tuple(batch.shape)}"
            )


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


def _size(image: Sized) -> str:
    """Height x width of an image (..., H, W), for messages."""
    return "x".join(str(side) for side in image.shape[-2:])


def unit_range(
    pixels: Tensor,
    name: str,
    argument: str,
    sound: bool = False,
    *,
    thermal_range: ThermalRange | None = None,
) -> Tensor:
    """Raw pixels of one image -> what models take; the rules are those of `as_images`.

    Args:
        pixels: (C, H, W) with C = 1, 3 or 4, as they came.
        name: How the error calls the image.
        argument: `ir`, `vis` or `fused`.
        sound: Whether floats are known to lie in [0, 1].
        thermal_range: As in `as_images`.

    Returns:
        (3, H, W) contiguous float32 in [0, 1].

    Raises:
        InputError: A wrong size, or values out of range.
    """
    check_size(pixels.shape[-2], pixels.shape[-1], name)
    colour = pixels[:3]  # without alpha, whose values must not count below
    if argument == "ir" and thermal_range is not None:
        unit = _given_range(colour, thermal_range, name)
    elif colour.dtype == torch.uint8:
        unit = unit_bytes(colour)
    elif sound:
        unit = colour.to(torch.float32)
    elif colour.is_floating_point():
        unit = _checked_floats(colour, name, argument)
    elif argument == "ir":
        unit = _own_range(colour, name)
    else:
        unit = _display_range(colour, name)
    return unit.expand(3, -1, -1).contiguous()


def unit_bytes(pixels: Tensor) -> Tensor:
    """8-bit images (..., C, H, W) -> contiguous float32 in [0, 1], of 3 channels."""
    # One new tensor, written in the order in which it will be read.
    size = (*pixels.shape[:-3], 3, *pixels.shape[-2:])
    unit = torch.empty(size, dtype=torch.float32, device=pixels.device)
    return unit.copy_(pixels).div_(255)


def _in_unit_range(pixels: Tensor) -> bool:
    """Whether floats lie in [0, 1]: not if one is NaN, or if there are none."""
    if not pixels.numel():
        return False
    low, high = torch.stack(torch.aminmax(pixels.detach().to(torch.float32))).tolist()
    return bool(low >= 0 and high <= 1)


def _checked_floats(pixels: Tensor, name: str, argument: str) -> Tensor:
    """Floats -> float32 in [0, 1]: refused outside, but for the tolerance."""
    pixels = pixels.to(torch.float32)
    low, high = _finite_range(pixels, name)
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise InputError(
            f"Expected `{name}` with values in [0, 1], got {low:.6g} to {high:.6g}: "
            f"{_range_hint(low, high, argument)}"
        )
    return pixels.clamp(0, 1) if low < 0 or high > 1 else pixels


def _finite_range(pixels: Tensor, name: str) -> tuple[float, float]:
    low, high = torch.stack(torch.aminmax(pixels.detach())).tolist()  # NaN comes through
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"Expected `{name}` with finite values, got NaN or infinity")
    return low, high


def _given_range(pixels: Tensor, thermal_range: ThermalRange, name: str) -> Tensor:
    """Thermal values (C, H, W) -> float32 in [0, 1], linear between two limits and clipped."""
    pixels = pixels.to(torch.float32)
    _finite_range(pixels, name)
    low, high = thermal_range
    return ((pixels - low) / (high - low)).clamp(0, 1)


def _range_hint(low: float, high: float, argument: str) -> str:
    """How to bring floats between low and high into [0, 1]."""
    own_range = (
        "scale thermal values by their own range, (x - min) / (max - min), or give `thermal_range`"
    )
    if high > 1.5:
        return "divide by 255 if it has 8 bits" + (f", or {own_range}" if argument == "ir" else "")
    if -1 - _TOLERANCE <= low < -_TOLERANCE:
        return "use (x + 1) / 2 if its range is [-1, 1]"
    return own_range if argument == "ir" else "clamp or rescale it"


def _own_range(counts: Tensor, name: str) -> Tensor:
    """Thermal counts (C, H, W) -> float32 in [0, 1]; a constant becomes 0."""
    ordered = np.sort(counts.cpu().numpy(), axis=None)
    if ordered[0] >= 0 and ordered[-1] <= 255:  # bytes in a wider type
        return _display_range(counts, name)
    low, high = _usual_range(ordered)
    # torch has no arithmetic on uint16; int32 could overflow
    offset = (counts.to(torch.int64) - low).to(torch.float32)
    return (offset / max(high - low, 1)).clamp(0, 1)


# Thermal counts: the share of pixels on either side that may be no part of the picture, how far
# beyond the others its own may lie, and how many are too few to go on from.
_TAIL = 0.02
_STEP = 0.25
_FEW = 1e-4


def _usual_range(ordered: NDArray[Any]) -> tuple[int, int]:
    """Range of thermal counts without those that dead pixels and telemetry have.

    Args:
        ordered: The counts, ascending.
    """
    tail = int(len(ordered) * _TAIL)
    # A long tail is part of the picture as far as it has no gaps: lamps, engines, people.
    upper = ordered[len(ordered) - 1 - tail :].astype(np.int64)
    lower = -ordered[: tail + 1].astype(np.int64)[::-1]
    middle = int(upper[0] + lower[0])
    if middle == 0:
        return int(ordered[0]), int(ordered[-1])
    few = max(1, len(ordered) * _FEW)
    return -_end(lower, middle * _STEP, few), _end(upper, middle * _STEP, few)


def _end(tail: NDArray[np.int64], step: float, few: float) -> int:
    """How far one gets from the first value in steps that hold not too few values."""
    end = tail[0]
    while True:
        reached = tail[(tail > end) & (tail <= end + step)]
        if len(reached):
            end = reached[-1]
        if len(reached) < few:
            return int(end)


def _display_range(pixels: Tensor, name: str) -> Tensor:
    """Deep values (C, H, W) -> float32 in [0, 1] by division with the depth that they need."""
    pixels = pixels.to(torch.int64)  # torch knows no minimum of uint16
    low, high = (int(value) for value in torch.aminmax(pixels))
    if low < 0 or high > 65535:
        raise InputError(
            f"Expected `{name}` with 16-bit values from 0 to 65535, got {low} to {high}"
        )
    return pixels.to(torch.float32) / full_scale(high, name)
