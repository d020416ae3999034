"""A call -> the kernels that it runs, how long the device is busy, and which attention it takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.clock import wait

_ATTENTION = "aten::_scaled_dot_product"
_KERNELS = ("flash", "fmha", "attention")
"""Parts of the names of kernels that compute attention: flash, cutlass' memory-efficient, cudnn."""


@dataclass(frozen=True)
class Seen:
    """What a profiler saw of one call.

    Attributes:
        seconds: Of each kernel (on a CPU, each operation) by name, longest first.
        launches: Kernels, copies and fills that were started on the device.
        busy: Seconds in which the device did anything.
        attention: Ways of attention: torch's operations, and the kernels behind them.
    """

    seconds: dict[str, float]
    launches: int
    busy: float
    attention: list[str]


def seen(call: Callable[[], object], device: torch.device) -> Seen:
    """Profile one call; call it before, so that nothing is prepared within."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    wait(device)
    with profile(activities=activities) as profiler:
        call()
        wait(device)
    names = [event.key for event in profiler.key_averages()]
    attention = [name for name in names if name.startswith(_ATTENTION)]
    taken: dict[str, float] = defaultdict(float)
    if device.type != "cuda":
        taken |= {e.key: e.self_cpu_time_total / 1e6 for e in profiler.key_averages()}
        return Seen(_longest(taken), len(names), sum(taken.values()), attention)
    kernels = _kernels(profiler)
    for kernel in kernels:
        taken[kernel.name] += (kernel.time_range.end - kernel.time_range.start) / 1e6
    attention += [name for name in taken if any(part in name.lower() for part in _KERNELS)]
    busy = union((k.time_range.start, k.time_range.end) for k in kernels) / 1e6
    return Seen(_longest(taken), len(kernels), busy, attention)


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of what some intervals cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _kernels(profiler: profile) -> list[Any]:
    """What ran on the device; ranges that somebody named are drawn there too."""
    events: Iterable[Any] = profiler.events() or ()
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    return [event for event in on_device if not getattr(event, "is_user_annotation", False)]


def _longest(taken: dict[str, float]) -> dict[str, float]:
    return dict(sorted(taken.items(), key=lambda item: -item[1]))
