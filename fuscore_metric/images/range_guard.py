"""Batches of tensors -> an error if they are in another range than [0, 1], which a score hides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fuscore_metric.errors import InputError

_OVERSHOOT = {"ir": 0.1, "vis": 0.1}
"""How far beyond [0, 1] images of a file may lie, as after a resize."""
_NETWORK_OVERSHOOT = 0.5
"""How far those of a network may; they are clipped, or scored as they are."""
_FEW = 0.01
"""Share of the values that may lie still further out, so that no spike ends a training run."""


class RangeGuard:
    """Refuses wrong ranges without making a GPU wait.

    On a CPU every batch is checked. On a GPU the first batch of each argument is; of later ones the
    numbers are sent to the CPU without waiting, and checked when the next batch comes: an error may
    be a call or more late.
    """

    def __init__(self) -> None:
        self._sent: dict[tuple[str, torch.device], Tensor] = {}

    def __reduce__(self) -> tuple[type[RangeGuard], tuple[()]]:
        return RangeGuard, ()  # page-locked memory cannot be pickled, and a copy checks for itself

    def check(self, images: Tensor, argument: str) -> None:
        """Check a batch.

        Args:
            images: (N, C, H, W) floating point.
            argument: `ir` and `vis` come from files and must lie near [0, 1]. Anything else may
                come from a network: most values must lie within half a unit of it.

        Raises:
            InputError: The range of this batch, or of one before, is another.
        """
        if images.is_meta:
            return
        images = images.detach()
        if images.device.type == "cpu":
            low, high = torch.stack(torch.aminmax(images.float())).tolist()
            if not _near(low, high, argument):
                _refuse(_measure(images, argument).tolist(), argument)
            return
        key, measured = (argument, images.device), _measure(images, argument)
        sent = self._sent.get(key)
        if sent is None:
            _refuse(measured.tolist(), argument)
            on_gpu = images.device.type == "cuda"
            # NaN: nothing has come back yet.
            self._sent[key] = torch.full((3,), math.nan, pin_memory=on_gpu)
        elif images.device.type == "cuda":
            try:
                _refuse(sent.tolist(), argument, " in an earlier call")
            except InputError:
                self._sent.clear()  # of the other images too: the next batch is a first one
                raise
            sent.copy_(measured, non_blocking=True)


def _margin(argument: str) -> float:
    return _OVERSHOOT.get(argument, _NETWORK_OVERSHOOT)


def _near(low: float, high: float, argument: str) -> bool:
    return low >= -_margin(argument) and high <= 1 + _margin(argument)


def _measure(images: Tensor, argument: str) -> Tensor:
    """Minimum, maximum, and the share of finite values beyond the margin: (3,) float32."""
    images = images.float()
    distance = (images - 0.5).abs()
    # A network under a gradient scaler may give infinity now and then; its step is skipped.
    far = (distance > 0.5 + _margin(argument)) & (distance < math.inf)
    return torch.stack([*torch.aminmax(images), far.float().mean()])


def _refuse(measured: list[float], argument: str, when: str = "") -> None:
    low, high, far = measured
    if far <= (0 if argument in _OVERSHOOT else _FEW) or math.isnan(far):
        return
    if high > 10:
        hint = "divide by 255 if it has 8 bits"
    elif low < -1.1 or high > 1.5:
        hint = "undo the normalisation, x * std + mean"
    else:
        hint = "use (x + 1) / 2 if its range is [-1, 1]"
    raise InputError(
        f"Expected `{argument}` with values in [0, 1], got {low:.6g} to {high:.6g}{when}: {hint}"
    )
