"""Start-up of the commands that score: nearly all of their time is imports and leaving them."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fuscore_metric.compute.openmp import wait_briefly

if TYPE_CHECKING:
    from types import FrameType

STOPPED = 130
"""Exit status of a command stopped by Ctrl-C, as shells have it."""


@contextmanager
def start_up() -> Iterator[None]:
    """Import and load without garbage collection; objects made meanwhile are never collected.

    Before torch is imported, OpenMP's threads are told how to wait.

    Imports of torch and transformers make a million lasting objects. Searched for garbage again
    and again as they grow, and once more when Python ends, they cost more than a third of a
    score's time (`python -m benchmarks.start_up`). This is for the commands' own process only: the
    collector of a program that imports us must stay as it is. Ctrl-C ends the process at once,
    silently.
    """
    wait_briefly()
    gc.disable()
    try:
        with _leaving_at_interrupt():
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _leaving_at_interrupt() -> Generator[None]:
    """Leave at Ctrl-C without an exception: imports of transformers turn it into another one.

    Nothing is lost, as nothing was computed or written.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        os._exit(STOPPED)

    before: Any = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
