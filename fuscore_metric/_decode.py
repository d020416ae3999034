"""Files, PIL images, arrays, tensors -> raw pixels (N, C, H, W): the first step of `images`.

Raw means: with the numbers and the dtype they came with. Whatever is broken, hostile or ambiguous
about a file or a shape ends here, in one error, `InputError`.
"""

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from fuscore_metric._deep import keeps_high_byte, png_chunks, read_deep
from fuscore_metric.forking import in_forked

MIN_SIDE = 32
"""Smallest height and width of an image, in pixels."""

MAX_PIXELS = 64_000_000
"""Largest height x width of an image; a file's header is checked before its pixels are decoded."""

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of files, by Pillow's names; what it has beyond them is rare, and hardly tested there."""


class Readable(Protocol):
    """A file that is not opened yet, such as a `zipfile.Path`."""

    def read_bytes(self) -> bytes:
        """Return the content of the file."""
        ...


File: TypeAlias = str | os.PathLike[str] | bytes
"""A path, or the content of a file."""

ImageLike: TypeAlias = File | IO[bytes] | Readable | Image.Image | npt.NDArray[Any] | Tensor
"""One image, or (numpy, tensor) a batch of them."""

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_NUMPY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_COUNT_DTYPES = ("int16", "int32", "uint32", "int64")  # only of `ir`: signed or wide counts
_TORCH_DTYPES = ("uint8", "uint16", "bfloat16", "float16", "float32", "float64")
_FORMAT_NAMES = "BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class InputError(ValueError):
    """An image argument that cannot be scored; one line: its name, what was expected, what came."""


def check_size(height: int, width: int, name: str) -> None:
    """Check the size of one image.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        name: How the error calls the image, e.g. `fused` or `fused[2]`.

    Raises:
        InputError: If a side is under `MIN_SIDE` or the area is over `MAX_PIXELS`.
    """
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"Expected `{name}` with sides of at least {MIN_SIDE} pixels, got {height}x{width}"
        )
    if height * width > MAX_PIXELS:
        raise InputError(
            f"Expected `{name}` with at most {MAX_PIXELS} pixels, "
            f"got {height}x{width} = {height * width}"
        )


def raw_pixels(images: ImageLike, name: str, argument: str) -> Tensor:
    """One non-list input -> (N, C, H, W) in its own dtype, N > 0, C in 1, 3, 4."""
    thermal = argument == "ir"
    if isinstance(images, (str, os.PathLike, bytes)):
        return _channels_first(_read_file(images, name, argument))
    if isinstance(images, Image.Image):
        return _channels_first(_read_pil(images, name, argument))
    if isinstance(images, np.ndarray):
        _check_numpy(images, name, thermal=thermal)
        pixels = _unmasked(images, name, thermal=thermal)
        _check_bytes(pixels, name)
        return _channels_first(pixels)
    if isinstance(images, Tensor):
        _check_tensor(images, name, thermal=thermal)
        _check_bytes(images, name)
        return images if images.ndim == 4 else images.unsqueeze(0)  # (N, C, H, W)
    raise InputError(
        f"Expected `{name}` as a path, PIL image, numpy array, torch tensor or list of these, "
        f"got {type(images).__name__}"
    )


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        height: In pixels, as displayed.
        width: Likewise.
        orientation: By EXIF, from 1 to 8; 1 if the pixels are stored as they are displayed.
    """

    height: int
    width: int
    orientation: int


def file_header(file: File, name: str, argument: str) -> Header:
    """Check an image file's header and say what it tells of the picture.

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
    with _reported(name, source), _strict_loading, _unmapped(image):
        _check_header(image, name, source, argument)
        return _turn(image.tag_v2 if image.format == "TIFF" else image.getexif())  # type: ignore[attr-defined]


def content(file: IO[bytes] | Readable, name: str) -> bytes:
    """Read a file that somebody else opened, from its beginning.

    Raises:
        InputError: It cannot be read, or was opened as text.
    """
    with _reported(name, type(file).__name__):
        if isinstance(file, io.TextIOBase):
            raise OSError("opened as text: use the mode 'rb'")
        if hasattr(file, "read_bytes"):
            return bytes(file.read_bytes())
        with suppress(AttributeError, io.UnsupportedOperation):
            file.seek(0)  # as Pillow does: whoever has just written it stands at its end
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
        # Pillow's own way would decode a PNG to look for them.
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


def _channels_first(array: npt.NDArray[Any]) -> Tensor:
    """(H, W), (H, W, C) or (N, H, W, C) -> (N, C, H, W), same numbers."""
    # torch takes neither foreign byte order nor negative strides, and warns of read-only memory.
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "W", "E"])
    pixels = torch.from_numpy(native)
    if pixels.ndim == 2:
        pixels = pixels.unsqueeze(-1)  # (H, W, 1)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(0)  # (1, H, W, C)
    return pixels.movedim(-1, 1)  # (N, C, H, W)


def _unmasked(array: npt.NDArray[Any], name: str, *, thermal: bool) -> npt.NDArray[Any]:
    """A masked array without its mask: what is masked becomes the median of the others, per image.

    The median changes neither the range of thermal counts nor adds strong edges.
    """
    if not np.ma.is_masked(array):
        return np.asarray(array)
    if not thermal:
        raise InputError(f"Expected `{name}` without masked pixels: fill them, or crop the image")
    images = np.ma.masked_array(array if array.ndim == 4 else array[None])  # (N, ...)
    if any(image.mask.all() for image in images):
        raise InputError(f"Expected `{name}` with pixels that are not masked")
    filled = np.stack([image.filled(np.median(image.compressed())) for image in images])
    return filled if array.ndim == 4 else filled[0]


def _check_bytes(pixels: npt.NDArray[Any] | Tensor, name: str) -> None:
    """Look for floats that became bytes without being multiplied by 255: they are 0, and 1.

    Raises:
        InputError: There are 1s, and nothing above them. A picture may be black, so one that has
            only 0s is warned of.
    """
    if not str(pixels.dtype).endswith("uint8") or 0 in pixels.shape:
        return
    largest = int(pixels.max())
    if largest == 1:
        raise InputError(
            f"Expected `{name}` of uint8 with values from 0 to 255, got 0 and 1 only: "
            "multiply floats by 255 before they become uint8"
        )
    if largest == 0:
        warnings.warn(
            f"`{name}` is black everywhere: floats have to be multiplied by 255 before they "
            "become uint8",
            stacklevel=2,
        )


def _check_numpy(array: npt.NDArray[Any], name: str, *, thermal: bool) -> None:
    """Check dtype and shape of an array; values and size are looked at later."""
    accepted = _NUMPY_DTYPES + (_COUNT_DTYPES if thermal else ())
    if array.dtype.name not in accepted:
        raise InputError(_dtype_message(name, ", ".join(accepted), array.dtype.name))
    shape = array.shape
    if array.ndim == 2 or (array.ndim in (3, 4) and shape[-1] in _CHANNELS and shape[0] > 0):
        return
    channels_first = array.ndim in (3, 4) and shape[-3] in _CHANNELS
    hint = ": numpy arrays are HWC; use a torch tensor for CHW" if channels_first else ""
    raise InputError(
        f"Expected `{name}` with shape (H, W), (H, W, C) or (N, H, W, C), N > 0, C in {_CHANNELS}, "
        f"got {shape}{hint}"
    )


def _check_tensor(tensor: Tensor, name: str, *, thermal: bool) -> None:
    """Check layout, dtype and shape of a tensor; values and size are looked at later."""
    if tensor.layout != torch.strided:
        raise InputError(f"Expected `{name}` as a dense tensor, got layout {tensor.layout}")
    accepted = _TORCH_DTYPES + (_COUNT_DTYPES if thermal else ())
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in accepted:
        raise InputError(_dtype_message(name, ", ".join(accepted), dtype))
    shape = tuple(tensor.shape)
    if tensor.ndim in (3, 4) and shape[-3] in _CHANNELS and shape[0] > 0:
        return
    channels_last = tensor.ndim in (3, 4) and shape[-1] in _CHANNELS
    hint = ": torch tensors are CHW; use a numpy array for HWC" if channels_last else ""
    if tensor.ndim == 2:
        hint = ": add the channel axis with .unsqueeze(0)"
    raise InputError(
        f"Expected `{name}` with shape (C, H, W) or (N, C, H, W), N > 0, C in {_CHANNELS}, "
        f"got {shape}{hint}"
    )


def _dtype_message(name: str, accepted: str, got: str) -> str:
    hints = {
        "bool": ": use uint8 with 0 and 255",
        "object": ": are the images of different sizes? use a list",
    }
    integer = got.startswith(("int", "uint"))
    hint = ": use uint8 for values from 0 to 255, uint16 for more" if integer else ""
    return f"Expected `{name}` with dtype {accepted}, got {got}{hints.get(got, hint)}"


def _read_file(file: File, name: str, argument: str) -> npt.NDArray[Any]:
    """Read one image file; the result and the errors are those of `_read_pil`.

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
        _strict_loading,
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
    """Refuse what is no file of bytes: a pipe would be waited for, a device may never end."""
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


def _read_pil(image: Image.Image, name: str, argument: str) -> npt.NDArray[Any]:
    """Read the pixels of one PIL image, rotated as its EXIF orientation says.

    Args:
        image: Any mode; alpha is dropped, not blended.
        name: How the error calls the image.
        argument: `ir`, `vis` or `fused`, see `_deep.read_deep`.

    Returns:
        (H, W, 3) uint8, or what `_deep.read_deep` returns of deeper images. Of `ir` with four
        channels (H, W, 4) uint8: what the fourth is has to be looked at.

    Raises:
        InputError: If it is too small, too large, broken, or has several frames.
    """
    source = _called_pil(image)
    with _reported(name, source), _strict_loading, _unmapped(image):
        return _read(image, name, source, argument)


def _called_pil(image: Image.Image) -> str:
    return f"a PIL image of mode {image.mode}"


def _read(image: Image.Image, name: str, source: str, argument: str) -> npt.NDArray[Any]:
    """Check the header of an opened image, then decode it."""
    _check_header(image, name, source, argument)
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
    # They are not counted: a file can have millions, and Pillow would look at each.
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


class _StrictLoading:
    """While any thread is inside, Pillow raises on truncated files.

    Other libraries set `ImageFile.LOAD_TRUNCATED_IMAGES = True` for the whole process, after which
    half a file decodes silently to half a picture, and that would get a score.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_lenient = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_lenient = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_lenient:
                ImageFile.LOAD_TRUNCATED_IMAGES = True

    def start_anew(self) -> None:
        """In a forked process: threads that were inside, and may have held the lock, are gone."""
        if self._inside and self._was_lenient:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        self.__init__()  # type: ignore[misc]


_strict_loading = _StrictLoading()
in_forked(_strict_loading.start_anew)
