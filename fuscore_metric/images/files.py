"""Image files and PIL images -> raw pixels, with the numbers and the dtype they came with.

Whatever is broken, hostile or ambiguous about a file ends here, in one error, `InputError`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fuscore_metric.errors import InputError
from fuscore_metric.images.arrays import channels_first, rgbt_message
from fuscore_metric.images.checks import check_size
from fuscore_metric.images.colour import COLOURED, saturation
from fuscore_metric.images.deep import has_unnamed_fourth, keeps_high_byte, png_chunks, read_deep
from fuscore_metric.images.strict_loading import strict_loading

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of files, by Pillow's names; what it has beyond them is rare, and hardly tested there."""


class Readable(Protocol):
    """A file that is not opened yet, such as a `zipfile.Path`."""

    def read_bytes(self) -> bytes:
        """Return the content of the file."""
        ...


File: TypeAlias = str | os.PathLike[str] | bytes
"""A path, or the content of a file."""
_FORMAT_NAMES = "BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Header(NamedTuple):
    """What the header of an image file states.

    Attributes:
        height: In pixels, as displayed.
        width: Likewise.
        orientation: By EXIF, from 1 to 8; 1 if the pixels are stored as they are displayed.
    """

    height: int
    width: int
    orientation: int


def file_header(file: File, name: str, argument: str) -> Header:
    """Check an image file's header and return what it states.

    Args:
        file: The file.
        name: How the error calls the image.
        argument: `ir`, `vis` or `fused`: the rule for 16 bits.

    Raises:
        InputError: The header alone shows that the file cannot be used.
    """
    source = _called(file)
    with _opened(file, name, source) as image:
        _check_header(image, name, source, argument)
        width, height = image.size
        orientation = _orientation(image, file)
        # Pillow gives a TIFF's size as displayed, and that of others as stored.
        turned = image.format != "TIFF" and orientation in _TURNED
    return Header(*((width, height) if turned else (height, width)), orientation)


def pil_orientation(image: Image.Image, name: str, argument: str) -> int:
    """EXIF orientation of a PIL image: to find it, Pillow may decode the image.

    Raises:
        InputError: The image cannot be used.
    """
    source = _called_pil(image)
    with _reported(name, source), strict_loading, _unmapped(image):
        _check_header(image, name, source, argument)
        return _turn(image.tag_v2 if image.format == "TIFF" else image.getexif())  # type: ignore[attr-defined]


def content(file: IO[bytes] | Readable, name: str) -> bytes:
    """Read a file that the caller opened, from its beginning.

    Raises:
        InputError: It cannot be read, or was opened as text.
    """
    with _reported(name, type(file).__name__):
        if isinstance(file, io.TextIOBase):
            raise OSError("opened as text: use the mode 'rb'")
        if hasattr(file, "read_bytes"):
            return bytes(file.read_bytes())
        with suppress(AttributeError, io.UnsupportedOperation):
            file.seek(0)  # as Pillow does: a file that was just written stands at its end
        return bytes(file.read())


# Orientations in which height and width change places.
_TURNED = (5, 6, 7, 8)


def _orientation(image: Image.Image, file: File) -> int:
    """EXIF orientation, without decoding the picture where that can be avoided."""
    if image.format == "TIFF":
        exif = image.tag_v2  # type: ignore[attr-defined]
    elif image.format != "PNG":
        exif = image.getexif()
    elif _notes_behind_pixels(file):
        image.load()  # those behind the pixels count, even if there are others before them
        exif = image.getexif()
    else:
        # Pillow's own way would decode a PNG to find them.
        exif = Image.Image.getexif(image)
    return _turn(exif)


def _turn(tags: Mapping[int, Any]) -> int:
    found: Any = tags.get(ExifTags.Base.Orientation)
    return int(found) if found in range(2, 9) else 1  # files may hold anything there


def _notes_behind_pixels(source: File) -> bool:
    """Whether a PNG has text or EXIF after its pixels; only the chunks' headers are read."""
    behind = False
    with _binary(source) as file:
        for kind, _ in png_chunks(file):
            if behind and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            behind = behind or kind == b"IDAT"
    return False


def read_file(file: File, name: str, argument: str) -> npt.NDArray[Any]:
    """Read one image file; the result and the errors are those of `read_pil`.

    Args:
        file: The file.
        name: How the error calls the image.
        argument: `ir`, `vis` or `fused`, see `_deep.read_deep`.
    """
    source = _called(file)
    with _opened(file, name, source) as image:
        return _read(image, name, source, argument)


def _called(file: File) -> str:
    """How errors call a file."""
    if isinstance(file, bytes):
        return f"{len(file)} bytes"
    return repr(os.fspath(file))  # repr keeps a path with a newline on one line


@contextmanager
def _opened(file: File, name: str, source: str) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong inside becomes an `InputError`."""
    # Not by its path, see `_unmapped`.
    with (
        _reported(name, source),
        strict_loading,
        _binary(file) as opened,
        _identified(opened) as image,
    ):
        yield image


def _binary(file: File) -> IO[bytes]:
    """Open what is a file of bytes, on a disk or in memory."""
    if isinstance(file, bytes):
        if not file:
            raise OSError("the file is empty")
        return io.BytesIO(file)
    _check_kind(file)
    return open(file, "rb")


def _identified(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4) not in _TIFF_STARTS:
            raise
        raise OSError(
            "a TIFF that is broken, or whose kind of pixels Pillow does not read, such as float64: "
            "save it as uint8, uint16 or float32"
        ) from None


def _check_kind(path: str | os.PathLike[str]) -> None:
    """Refuse what is not a file of bytes: a pipe would block, a device may never end."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise OSError("Is a directory; `fuscore rank` scores folders")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("a pipe or device, not a file")
    if found.st_size == 0:
        raise OSError("the file is empty")


@contextmanager
def _unmapped(image: Image.Image) -> Iterator[None]:
    """Keep Pillow from mapping a file into memory.

    It does so with uncompressed images that were opened by path. Up to 13.0 at least, it then takes
    width for height in a TIFF whose orientation turns it, and shuffles the pixels; and a file that
    is cut meanwhile kills the process.
    """
    filename = getattr(image, "filename", None)
    if filename is None or getattr(image, "map", None) is not None:
        yield
        return
    image.filename = ""  # type: ignore[attr-defined]
    try:
        yield
    finally:
        image.filename = filename  # type: ignore[attr-defined]


def read_pil(image: Image.Image, name: str, argument: str) -> npt.NDArray[Any]:
    """Read the pixels of one PIL image, rotated by its EXIF orientation.

    Args:
        image: Any mode; alpha is dropped, not blended.
        name: How the error calls the image.
        argument: `ir`, `vis` or `fused`, see `_deep.read_deep`.

    Returns:
        (H, W, 3) uint8, or what `_deep.read_deep` returns of deeper images. Of `ir` with four
        channels (H, W, 4): what the fourth is has to be checked.

    Raises:
        InputError: If it is too small, too large, broken, or has several frames.
    """
    source = _called_pil(image)
    with _reported(name, source), strict_loading, _unmapped(image):
        return _read(image, name, source, argument)


def _called_pil(image: Image.Image) -> str:
    return f"a PIL image of mode {image.mode}"


def _read(image: Image.Image, name: str, source: str, argument: str) -> npt.NDArray[Any]:
    """Check the header of an opened image, then decode it."""
    _check_header(image, name, source, argument)
    pixels = _decoded(image, name, source, argument)
    # Pillow drops that channel.
    unnamed = argument == "ir" and has_unnamed_fourth(image)
    if unnamed and saturation(channels_first(pixels)[0]) > COLOURED:
        raise InputError(rgbt_message(name))
    return pixels


def _decoded(image: Image.Image, name: str, source: str, argument: str) -> npt.NDArray[Any]:
    high_byte = keeps_high_byte(image)
    deep = read_deep(image, argument)
    if deep is not None:
        return deep
    shown = ImageOps.exif_transpose(image)
    if not (argument == "ir" and shown.mode == "RGBA"):
        shown = shown.convert("RGB")
    pixels = np.array(shown)
    if high_byte and pixels[..., :3].max() < 64:  # below 14 bits
        raise InputError(_high_byte_message(name, source))
    return pixels


def _check_header(image: Image.Image, name: str, source: str, argument: str) -> None:
    """Refuse what the header alone shows to be wrong, before any pixel is decoded."""
    width, height = image.size
    check_size(height, width, name)
    # Pillow only warns above its own limit. Comparing here obeys a limit the user has lowered, and
    # leaves the warning filters alone: changing them is not safe in threads.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise InputError(
            f"Expected `{name}` with at most {limit} pixels (PIL.Image.MAX_IMAGE_PIXELS), "
            f"got {source} of {height}x{width} = {height * width}"
        )
    if image.format == "EPS":  # to decode it, Pillow runs Ghostscript on the file
        raise InputError(f"Expected `{name}` as a raster image, got {source}, an EPS drawing")
    # An MPO is a JPEG photograph with previews behind it; what viewers show is its first frame.
    # They are not counted: a file can have millions, and Pillow would read each.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError(
            f"Expected `{name}` as one still image, got {source} with several frames: "
            "pass each frame as its own image"
        )
    if argument == "ir" and keeps_high_byte(image):
        raise InputError(_high_byte_message(name, source))


def _high_byte_message(name: str, source: str) -> str:
    return (
        f"Expected `{name}` with 16 bits that can be read, got {source} in 16-bit colour, of whose "
        "kind Pillow reads 8 bits: save it as 16-bit grey or RGB, a TIFF not in planes"
    )


@contextmanager
def _reported(name: str, source: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an `InputError` that names the image and the reason."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    # Decoders fed with broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise InputError(
            f"Expected `{name}` as a readable image, got {source}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """Why a file could not be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"not in an image format that is read ({_FORMAT_NAMES})"
    if isinstance(error, OSError) and error.strerror:  # its str() would repeat the path
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
