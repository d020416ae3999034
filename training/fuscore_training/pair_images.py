"""Files of one source pair and fusions of it -> images, read as scoring reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fuscore_metric.images.checks import check_triples, to_batch
from fuscore_metric.images.convert import as_images


def by_pair(
    rows: NDArray[np.int64], pairs: NDArray[np.int64], *, at_most: int | None = None
) -> list[NDArray[np.int64]]:
    """Cut rows that are sorted by source pair where the pair changes.

    Args:
        rows: (N,) places in the table.
        pairs: Source pair of every row of the table.
        at_most: Longest piece.
    """
    if not len(rows):
        return []
    groups = np.split(rows, np.flatnonzero(np.diff(pairs[rows])) + 1)
    step = at_most or len(rows)
    return [group[i : i + step] for group in groups for i in range(0, len(group), step)]


def read_images(files: NDArray[Any]) -> dict[str, Tensor]:
    """Read fusions of one source pair, the sources once.

    Args:
        files: (M, 3) paths: ir, vis, fused; the first two are the same in all rows.

    Returns:
        `ir` and `vis` (1, 3, H, W), `fused` (M, 3, H, W).

    Raises:
        InputError: An image cannot be read, or their sizes differ.
    """
    ir, vis = as_images(files[0, 0], "ir"), as_images(files[0, 1], "vis")
    fused = as_images(files[:, 2].tolist(), "fused")
    check_triples(ir * len(fused), vis * len(fused), fused)
    return {"ir": to_batch(ir), "vis": to_batch(vis), "fused": to_batch(fused)}
