"""Many small computations -> the cores of a CPU, each of which does some of them alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def on_all_cores(work: Callable[[Iterator[T]], R], items: Iterable[T]) -> list[R]:
    """Have as many threads as PyTorch computes with work on items, each on one core.

    PyTorch's own threads share each operation and wait for each other after it. Where operations
    are short, that takes as long as they do.

    OpenMP knows by thread how many cores it may use, so that the caller's number stays as it is:
    `torch.set_num_threads` would change that of all threads that start meanwhile. Where no OpenMP
    is found in the process, the caller works on all items.

    Args:
        work: Takes items, until there are none left, from an iterator that it shares with the other
            threads. It needs no gradients.
        items: What it takes.

    Returns:
        What it returned in each thread.
    """
    waiting, threads = iter(list(items)), torch.get_num_threads()
    set_threads = getattr(ctypes.pythonapi, "omp_set_num_threads", None)
    if threads == 1 or set_threads is None:
        return [work(waiting)]

    def begin() -> None:
        torch.get_num_threads()  # PyTorch sets the number when a thread first asks for it
        set_threads(1)

    with ThreadPoolExecutor(threads, "fuscore-core", begin) as pool:
        return [one.result() for one in [pool.submit(work, waiting) for _ in range(threads)]]
