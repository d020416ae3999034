"""A call -> seconds, peak memory; a machine -> its rates. All in this process, by its threads.

On a GPU a call returns before its work is done, so clocks wait for the device on both sides.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.resident import peak, reset_peak
from benchmarks.speed.work import Rates

MIB = 2**20
_MATRIX_SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
_COPIED = 64 * MIB  # numbers: far more than any cache holds
RATE_ROUNDS = 4

CPU = torch.device("cpu")


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device = CPU) -> float:
    """Wall time of one call, and of what it started on the device."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def best_seconds(
    ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device = CPU
) -> dict[str, float]:
    """Least wall time of each; they take turns, so that all meet the same machine."""
    best = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        for _ in range(rounds):
            for name, call in ways.items():
                best[name] = min(best[name], seconds(call, device))
    return best


def median_seconds(
    call: Callable[[], object], device: torch.device, *, least: float = 0.4, rounds: int = 3
) -> float:
    """Median wall time of a call, after one that warms up.

    Args:
        call: What is timed; it decides itself whether gradients are kept.
        device: Where it computes.
        least: Seconds to go on for.
        rounds: How often at least; ten times as often at most.
    """
    seconds(call, device)
    taken: list[float] = []
    while len(taken) < rounds or (sum(taken) < least and len(taken) < 10 * rounds):
        taken.append(seconds(call, device))
    return statistics.median(taken)


def peak_mebibytes(call: Callable[[], object]) -> float:
    """How far one call, without gradients, lifts this process's resident memory."""
    with torch.inference_mode():
        return resident_growth(call) / MIB


def resident_growth(call: Callable[[], object]) -> int:
    """How far one call lifts this process's resident memory, in bytes."""
    gc.collect()
    # What the C library holds for later would hide what the call takes.
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = peak()
    call()
    return peak() - before


def matmul_rate(
    dtype: torch.dtype = torch.float32,
    *,
    device: torch.device = CPU,
    sides: Sequence[int] = (),
) -> float:
    """FLOPs a second of the fastest large square matrix product."""
    found = []
    for side in sides or _MATRIX_SIDES[device.type]:
        a, b = torch.rand(2, side, side, device=device).to(dtype)
        best = best_seconds({"": partial(torch.matmul, a, b)}, RATE_ROUNDS, device)[""]
        found.append(2 * side**3 / best)
    return max(found)


def copy_rate() -> float:
    """Bytes a second that adding to a large tensor reads and writes."""
    numbers = torch.zeros(_COPIED)
    best = best_seconds({"": lambda: numbers.add_(1)}, RATE_ROUNDS)[""]
    return 2 * 4 * _COPIED / best


def rates() -> Rates:
    """Both, in float32."""
    return Rates(matmul_rate(), copy_rate())


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    return {
        "device": "cpu",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def caption(*more: str) -> str:
    """One line to stand above a table."""
    here = machine()
    return ", ".join(
        [f"{here['processor']}, {here['threads']} threads, torch {here['torch']}", *more]
    )


def processor() -> str:
    """Name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def measure(
    benchmark: Any,
    call: Callable[[], object],
    *,
    triples: int,
    rounds: int,
    group: str,
    note: str,
    flops: int | None = None,
) -> None:
    """Time a call by pytest-benchmark, and note what the time depends on.

    Args:
        benchmark: pytest-benchmark's fixture.
        call: What is timed; it runs once before.
        triples: How many it scores.
        rounds: How often.
        group: Stage or task.
        note: What is done.
        flops: Counted multiply-adds, twice.
    """
    benchmark.group = group
    peak = peak_mebibytes(call)  # this call also warms up
    with torch.inference_mode():
        benchmark.pedantic(call, rounds=rounds)
    benchmark.extra_info.update(
        machine(), dtype="float32", triples=triples, peak_mebibytes=peak, flops=flops, note=note
    )
