"""Raw numbers of one image -> float32 in [0, 1]: what 8 bits, counts and floats mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuscore_metric.errors import InputError
from fuscore_metric.images.checks import check_size
from fuscore_metric.images.deep import full_scale
from fuscore_metric.images.thermal_range import ThermalRange

# How far beyond [0, 1] a float may lie: the overshoot of a resize, not another scale.
_TOLERANCE = 1e-4


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


def in_unit_range(pixels: Tensor) -> bool:
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
