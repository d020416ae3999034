"""Pixels of more than 8 bits in one PIL image -> their numbers: what `_decode` asks of deep files.

Pillow decodes the file; what it leaves undone with deep ones is done here: 16-bit colour, of which
it keeps 8 bits, numbers that are inverted or unsigned, and the range that a file states.
"""

import struct
import sys
import warnings
from collections.abc import Iterator
from enum import IntEnum
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

NUMERIC_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Modes whose numbers are kept: casting them to RGB would clip or cut them to 8 bits."""

_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))


class _Tag(IntEnum):
    """Tags of TIFF that define what its numbers mean."""

    BITS_PER_SAMPLE = 258
    PHOTOMETRIC = 262  # 0: zero is white
    MAX_SAMPLE_VALUE = 281
    PLANAR_CONFIGURATION = 284  # 2: each colour is a plane of its own
    EXTRA_SAMPLES = 338  # what is stored behind the colours; 0: unspecified, 1 and 2: alpha
    SAMPLE_FORMAT = 339  # 1: unsigned, 2: signed, 3: float
    SMAX_SAMPLE_VALUE = 341


def full_scale(largest: int, argument: str) -> int:
    """Guess what number is white where 16 bits hold fewer: the depth that the largest value needs.

    Args:
        largest: Largest value of one image, from 0 to 65535.
        argument: How the warning calls the image.

    Returns:
        255, 1023, 4095, 16383 or 65535. Of anything but 65535 a warning names the range.
    """
    scale = next(scale for scale in _SCALES if largest <= scale)
    if largest > 0 and scale < _SCALES[-1]:
        warnings.warn(
            f"`{argument}` is deeper than 8 bits, but its values fit into 0 to {scale}: they are "
            f"divided by {scale}. If that is wrong, give floats in [0, 1]",
            stacklevel=2,
        )
    return scale


def keeps_high_byte(image: Image.Image) -> bool:
    """Whether of the 16 bits of an opened colour image only 8 can be had."""
    modes = _rawmodes(image)
    # What was decoded already has no raw modes left; a TIFF still has its tags.
    tags: Any = getattr(image, "tag_v2", {})
    deep = any(mode.endswith(tuple(_OTHER)) for mode in modes) or (
        not modes and _first(tags, _Tag.BITS_PER_SAMPLE) == 16
    )
    return deep and image.mode not in NUMERIC_MODES and _readings(image) is None


def has_unnamed_fourth(image: Image.Image) -> bool:
    """Whether a colour TIFF has a fourth channel that it does not declare as alpha."""
    tags: Any = getattr(image, "tag_v2", {})
    return bool(_first(tags, _Tag.PHOTOMETRIC) == 2 and _first(tags, _Tag.EXTRA_SAMPLES) == 0)


def read_deep(image: Image.Image, argument: str) -> npt.NDArray[Any] | None:
    """Read an opened image of more than 8 bits, rotated by its EXIF orientation.

    Args:
        image: Any; decoded here.
        argument: `ir`, `vis` or `fused`. For `ir` the range that a file states is not applied.

    Returns:
        (H, W), (H, W, 3) or of `ir` (H, W, 4), uint16, int32, int64 or float32. Where the file
        states a range, and this is not `ir`, float32 in [0, 1]. None if the image has 8 bits.

    Raises:
        OSError: Signed bytes.
    """
    tags = getattr(image, "tag_v2", {})
    readings = _readings(image)
    if image.mode not in NUMERIC_MODES and readings is None:
        if _first(tags, _Tag.SAMPLE_FORMAT) == 2:
            raise OSError("a TIFF of signed bytes: save it as uint8 or uint16")
        return None
    stated = _stated_largest(image, tags)
    numbers = _numbers(image, tags) if readings is None else _deep_colour(image, readings)
    if argument != "ir" and numbers.ndim == 3:
        numbers = numbers[..., :3]
    if _first(tags, _Tag.PHOTOMETRIC) == 0:
        if image.mode == "F":
            return 1 - numbers
        if argument == "ir":  # its range follows anyway
            return _SCALES[-1] - numbers
        stated = stated or full_scale(int(numbers.max()), argument)
        numbers = stated - numbers.astype(np.int32)
    if argument == "ir" or stated is None or image.mode == "F":
        return numbers
    # Values beyond it are those that were spread over all 16 bits.
    white = stated if numbers.max() <= stated else _SCALES[-1]
    return numbers.astype(np.float32) / np.float32(white)


_OTHER = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
"""Byte orders, as raw modes end, and what reads the low byte where they read the high one."""

_INTERLEAVED = ("RGB", "RGBX", "RGBA")
_GREY_ALPHA = "LA;16B"  # of PNG; Pillow reads it as RGBA


def _rawmodes(image: Image.Image) -> set[str]:
    """How Pillow is going to unpack the samples of an image that it has not decoded yet."""
    return {_rawmode(tile) for tile in getattr(image, "tile", None) or ()}


def _rawmode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _readings(image: Image.Image) -> tuple[dict[str, str], ...] | None:
    """By what other raw modes the bytes of 16-bit colour can be had; None of anything else.

    Where a colour file has 16 bits, Pillow unpacks the high byte. Told the opposite byte order, it
    unpacks the low one.
    """
    tags: Any = getattr(image, "tag_v2", {})
    modes = _rawmodes(image)
    if modes == {_GREY_ALPHA}:
        return ({_GREY_ALPHA: "RGBA"},)
    orders = {mode[-4:] for mode in modes}
    if _first(tags, _Tag.PLANAR_CONFIGURATION) == 2:
        # Of uncompressed planes Pillow 12.3 forgets the 16 bits. Of others it finds out itself, and
        # takes no advice.
        if _first(tags, _Tag.BITS_PER_SAMPLE) != 16 or not modes <= set("RGBA"):
            return None
        orders = {";16L" if tags.prefix == b"II" else ";16B"}
    elif not modes or not modes <= {f"{c}{order}" for c in _INTERLEAVED for order in _OTHER}:
        return None
    order = orders.pop()
    names = {mode: mode.partition(";")[0] for mode in modes}
    return tuple({m: name + end for m, name in names.items()} for end in (order, _OTHER[order]))


def _deep_colour(image: Any, readings: tuple[dict[str, str], ...]) -> npt.NDArray[np.uint16]:
    """All 16 bits of an opened image: (H, W, 3), (H, W, 4), or (H, W) of grey with alpha."""
    if image.fp is None or not image.tile:
        raise OSError("Pillow has decoded it, and gets 16 bits in planes wrong: give the path")
    decoded = []
    for renamed in readings:
        again: Any = Image.open(image.fp, formats=[image.format])
        again.tile = [_renamed(tile, renamed) for tile in again.tile]
        decoded.append(np.array(ImageOps.exif_transpose(again)))
    # The four bytes of grey with alpha came as the four channels of one picture.
    high, low = decoded if len(decoded) == 2 else (decoded[0][..., 0], decoded[0][..., 1])
    both: npt.NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return both


def _renamed(tile: Any, names: dict[str, str]) -> Any:
    mode = names.get(_rawmode(tile), _rawmode(tile))
    return tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)


def _numbers(image: Any, tags: Any) -> npt.NDArray[Any]:
    """Pixels of a numeric mode, unsigned where the file declares it."""
    # libtiff returns the machine's byte order, which Pillow 12.3 takes for the file's.
    native = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
    image.tile = [
        _renamed(tile, native) if tile.codec_name == "libtiff" else tile
        for tile in getattr(image, "tile", None) or ()
    ]
    unsigned = _first(tags, _Tag.BITS_PER_SAMPLE) == 32 and _first(tags, _Tag.SAMPLE_FORMAT) != 2
    numbers = np.array(ImageOps.exif_transpose(image))
    if unsigned and image.mode == "I":
        return numbers.view(np.uint32).astype(np.int64)  # Pillow has no mode of unsigned 32 bits
    return numbers


def _stated_largest(image: Any, tags: Any) -> int | None:
    """The largest value that a deep file declares for its pixels, if it declares one."""
    if image.format == "PNG" and image.fp is not None:
        bits = _significant_bits(image.fp)
        return None if bits is None else 2**bits - 1
    if _first(tags, _Tag.BITS_PER_SAMPLE) == 12:
        return 4095
    largest = _first(tags, _Tag.SMAX_SAMPLE_VALUE) or _first(tags, _Tag.MAX_SAMPLE_VALUE) or 0
    if not 0 < largest <= _SCALES[-1]:
        return None
    # Many programs write the largest that they found.
    whole = int(largest)
    is_full = (whole & (whole + 1)) == 0
    return whole if is_full else next(scale for scale in _SCALES if whole <= scale)


def _first(tags: Any, tag: int) -> Any:
    value = tags.get(tag)
    return value[0] if isinstance(value, tuple) and value else value


def _significant_bits(file: IO[bytes]) -> int | None:
    """The depth of a PNG's colours before they were stored in 16 bits, if it states one (sBIT)."""
    place = file.tell()
    try:
        for kind, length in png_chunks(file):
            if kind == b"IDAT":
                return None
            if kind == b"sBIT":
                depths = file.read(min(length, 4))
                bits = max(depths[: 1 if length < 3 else 3], default=0)
                return bits if 1 <= bits <= 16 else None
        return None
    finally:
        file.seek(place)


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a PNG, with the file at the chunk's content."""
    place = 8  # behind the signature
    file.seek(place)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        yield kind, length
        place += length + 12  # the header and a checksum
        file.seek(place)
