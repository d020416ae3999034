"""Safetensors files -> tensors: headers are checked before reading, values after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fuscore_metric.checkpoints.strict_json import readable
from fuscore_metric.errors import CheckpointError

FLOATS = ("F32", "BF16", "F16")
"""Stored dtypes that weights may have. Whole numbers would need a scale that is not stored, and no
family is stored in float64."""


def check_header(path: Path, expected: Mapping[str, Tensor] | None = None) -> None:
    """Refuse a file by its header: by the dtypes, and the names and shapes if they are known.

    Args:
        path: A safetensors file.
        expected: Tensors of the names and shapes that the file must have, no more and no fewer;
            those of a model on the device "meta" will do.

    Raises:
        CheckpointError: Something else is in the file; the message names a tensor.
    """
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
        for name, part in stored.items():
            if (dtype := part.get_dtype()) not in FLOATS:
                raise CheckpointError(
                    f"Expected {readable(name)} in {', '.join(FLOATS)} in {str(path)!r}, "
                    f"got {dtype}"
                )
        if expected is None:
            return
        for name in sorted(expected.keys() | stored.keys()):
            shape = tuple(expected[name].shape) if name in expected else "no such tensor"
            found = tuple(stored[name].get_shape()) if name in stored else "none"
            if shape != found:
                raise CheckpointError(
                    f"Expected {readable(name)} in {str(path)!r} as {shape}, got {found}"
                )


def read_tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read a file that `check_header` accepts, whose tensors must be finite.

    Raises:
        CheckpointError: The file has other tensors, or values that are not finite.
    """
    check_header(path, expected)
    tensors = load_file(path)
    check_finite(tensors.items(), path)
    return tensors


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Refuse NaN and infinity, which would make every score NaN, or worse, some.

    One pass at the speed of the memory. Quantised weights and those that are not in memory are
    left out.

    Args:
        tensors: Names and tensors.
        where: File or directory that they come from.

    Raises:
        CheckpointError: A value is not finite; the message names the tensor.
    """
    for name, tensor in tensors:
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        # Both are NaN if one value is. `isfinite` makes a mask of the weight's size.
        low, high = (x.item() for x in torch.aminmax(tensor.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = "NaN" if math.isnan(low) else "infinite numbers"
            raise CheckpointError(
                f"Expected finite weights in {str(where)!r}, {readable(name)} has {bad}"
            )
