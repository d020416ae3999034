"""Start-up of the commands that judge: nearly all of their time is imports and leaving them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def start_up() -> Iterator[None]:
    """Import and load without garbage collection; what there is then is never looked through.

    Imports of torch and transformers make a million lasting objects. Searched for garbage again
    and again as they grow, and once more when Python ends, they cost more than a third of a
    score's time (`python benchmarks/start_up.py`). For a process of our own only: of somebody
    else's, the collector is not ours to set.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
