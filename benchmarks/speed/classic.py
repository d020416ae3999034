"""Files of triples -> the ten classic measures, in this process or in several.

Without torch: each process that is started would have to import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from typing_extensions import Self

from benchmarks.accuracy.measures import classic

Triple = tuple[Path, Path, Path]


def classic_one(triple: Triple) -> dict[str, float]:
    """The ten classic measures of one triple of files."""
    ir, vis, fused = (np.array(Image.open(path)) for path in triple)
    return classic(ir, vis, fused)


class ClassicPool:
    """The ten classic measures in several processes, which are started once.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        # Not forked: this process has threads of torch's.
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

    def score(self, triples: Sequence[Triple]) -> list[dict[str, float]]:
        """Measure triples."""
        return list(self._pool.map(classic_one, triples))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
