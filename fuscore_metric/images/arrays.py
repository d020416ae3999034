"""Arrays and tensors -> raw pixels (N, C, H, W): dtypes, shapes and masks are checked here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fuscore_metric.errors import InputError
from fuscore_metric.images.colour import COLOURED, saturation

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_NUMPY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_COUNT_DTYPES = ("int16", "int32", "uint32", "int64")  # only of `ir`: signed or wide counts
_TORCH_DTYPES = ("uint8", "uint16", "bfloat16", "float16", "float32", "float64")


def from_array(array: npt.NDArray[Any], name: str, *, thermal: bool) -> Tensor:
    """One array -> (N, C, H, W) in its own dtype.

    Raises:
        InputError: It cannot be used.
    """
    _check_numpy(array, name, thermal=thermal)
    pixels = _unmasked(array, name, thermal=thermal)
    _check_bytes(pixels, name)
    return channels_first(pixels)


def from_tensor(tensor: Tensor, name: str, *, thermal: bool) -> Tensor:
    """One tensor -> (N, C, H, W) in its own dtype.

    Raises:
        InputError: It cannot be used.
    """
    _check_tensor(tensor, name, thermal=thermal)
    _check_bytes(tensor, name)
    return tensor if tensor.ndim == 4 else tensor.unsqueeze(0)


def channels_first(array: npt.NDArray[Any]) -> Tensor:
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
    """Refuse floats that became bytes without being multiplied by 255: they are 0, and 1.

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
    """Check dtype and shape of an array; values and size are checked later."""
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
    """Check layout, dtype and shape of a tensor; values and size are checked later."""
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


def refuse_rgbt(raw: Tensor, name: str) -> None:
    """Refuse images (N, 4, H, W) with colours and a fourth channel that is not alpha.

    Raises:
        InputError: One is such an image.
    """
    for n, pixels in enumerate(raw):
        if _is_rgbt(pixels):
            raise InputError(rgbt_message(f"{name}[{n}]" if len(raw) > 1 else name))


_FULL = {torch.uint8: 255, torch.uint16: 65535}
"""The value of what is opaque; of floats it is 1."""


def _is_rgbt(raw: Tensor) -> bool:
    """Whether an image (4, H, W) has colours and a fourth channel that is not alpha.

    An alpha channel is opaque or transparent nearly everywhere, a thermal one hardly anywhere.
    """
    fourth = raw[3, ::8, ::8].detach().to(torch.float32)
    partial = (fourth > 0) & (fourth < _FULL.get(raw.dtype, 1))
    return bool(partial.float().mean() > 0.5) and saturation(raw) > COLOURED


def rgbt_message(name: str) -> str:
    """What to do with an infrared image that is the fourth channel of another."""
    return (
        f"Expected `{name}` as an infrared image, got colours and a fourth channel that is no "
        "alpha: split it, and give the fourth channel as `ir` and the first three as `vis` "
        "(of a numpy array image[..., 3] and image[..., :3])"
    )
