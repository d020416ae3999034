"""Is the machine what the results say: one score on the device, beside that of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import EXAMPLE
from benchmarks.gpu.kit import Kit
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import Task
from fuscore_metric import score


def tasks(kit: Kit) -> Iterator[Task]:
    """One measurement; the facts themselves are written before any stage."""
    yield Task("the packaged example", lambda: example(kit), 1)


def example(kit: Kit) -> Iterator[Value]:
    """The score that README shows, from files, on this device."""
    files = [str(EXAMPLE / f"{name}.png") for name in ("ir", "vis", "fused_good")]
    found = float(score(*files, model=kit.embedded()))
    yield Value("score", found)
    yield Value("deviation from the CPU", abs(found - float(score(*files, device="cpu"))))
