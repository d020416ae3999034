"""Any input -> (3, H, W) float32 in [0, 1]: where the data flow begins.

`as_images` is the friendly door: files, PIL images, numpy arrays and tensors, each checked
closely (`lazy` puts files off until they are needed). The exact door, `FuScore.forward`, is guarded
by `checks.check_batch`, for the cost of a shape test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import IO, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from fuscore_metric.errors import InputError
from fuscore_metric.images.arrays import channels_first, from_array, from_tensor, refuse_rgbt
from fuscore_metric.images.files import File, Readable, content, read_file, read_pil
from fuscore_metric.images.ranges import in_unit_range, unit_range
from fuscore_metric.images.thermal_range import ThermalRange, check_thermal_range

ImageLike: TypeAlias = File | IO[bytes] | Readable | Image.Image | npt.NDArray[Any] | Tensor
"""One image, or (numpy, tensor) a batch of them."""
ImagesLike: TypeAlias = ImageLike | Iterable[ImageLike]
# "https://...", which `Path` makes "https:/..."; a single letter is a drive of Windows.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)


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
    with a background). Files and PIL images are rotated by their EXIF orientation, because
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

    A generator may use one piece of memory for all its images. So a tensor that is not from a list
    is copied before the next one is asked for; what is not a tensor is copied when it is converted.

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
    # A batch is checked once: checking each image would make a GPU wait for each.
    sound = raw.is_floating_point() and in_unit_range(raw[:, :3])
    # unbind, not raw[i]: the backward pass of each raw[i] fills a tensor of the whole batch's size
    return [
        RawImage(pixels, f"{name}[{n}]" if several else name, argument, sound)
        for n, pixels in enumerate(raw.unbind())
    ]


def raw_pixels(images: ImageLike, name: str, argument: str) -> Tensor:
    """One non-list input -> (N, C, H, W) in its own dtype, N > 0, C in 1, 3, 4.

    Raises:
        InputError: It cannot be used.
    """
    thermal = argument == "ir"
    if isinstance(images, (str, os.PathLike, bytes)):
        raw = channels_first(read_file(images, name, argument))
    elif isinstance(images, Image.Image):
        raw = channels_first(read_pil(images, name, argument))
    elif isinstance(images, np.ndarray):
        raw = from_array(images, name, thermal=thermal)
    elif isinstance(images, Tensor):
        raw = from_tensor(images, name, thermal=thermal)
    else:
        raise InputError(
            f"Expected `{name}` as a path, PIL image, numpy array, torch tensor or list of these, "
            f"got {type(images).__name__}"
        )
    if thermal and raw.shape[1] == 4:
        refuse_rgbt(raw, name)
    return raw
