"""Ratings + a model -> scores of every row, over all processes of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuscore_metric.levels import expected_score, level_probabilities, score_variance
from fuscore_training.pair_images import by_pair, read_images
from fuscore_training.ratings import RatingsTable

Array = NDArray[np.float64]


def predict_images(
    reader: nn.Module,
    table: RatingsTable,
    aspects: Sequence[str],
    *,
    device: torch.device,
    batch_size: int = 8,
    rank: int = 0,
    world_size: int = 1,
    mirror: bool = False,
) -> tuple[Array, Array]:
    """Score every row of a table; each process takes its share and gets all results.

    Args:
        reader: A `trainer.LevelReader`, perhaps wrapped for several processes.
        table: Ratings; only its images are read.
        aspects: A of `ASPECTS`.
        device: Where the reader is.
        batch_size: Fusions of one source pair computed at once.
        rank: This process, in [0, world_size).
        world_size: Number of processes.
        mirror: Show the triples mirrored.

    Returns:
        (N, A) scores in [1, 5] and (N, A) standard deviations.
    """
    files = table.frame[["ir", "vis", "fused"]].to_numpy()
    pairs, _ = pd.factorize(table.source_pairs)
    chunks = by_pair(np.argsort(pairs, kind="stable"), pairs, at_most=batch_size)
    own = chunks[rank::world_size]
    # Sharded models talk to each other in every forward pass: all processes make equally many.
    missing = -(-len(chunks) // world_size) - len(own)
    found = [
        (rows, *_read(reader, files[rows], aspects, device, mirror))
        for rows in own + chunks[:1] * missing
    ]
    score, std = (np.zeros((len(table), len(aspects))) for _ in range(2))
    for rows, scores, stds in _gathered(found, world_size):
        score[rows], std[rows] = scores, stds
    return score, std


@torch.no_grad()
def _read(
    reader: nn.Module,
    files: NDArray[np.object_],
    aspects: Sequence[str],
    device: torch.device,
    mirror: bool,
) -> tuple[Array, Array]:
    images = {name: x.to(device) for name, x in read_images(files).items()}
    if mirror:
        images = {name: x.flip(-1) for name, x in images.items()}
    probabilities: Tensor = level_probabilities(reader([images], aspects))  # (M, A, 5)
    std = score_variance(probabilities).sqrt()
    return expected_score(probabilities).double().cpu().numpy(), std.double().cpu().numpy()


def _gathered(
    found: list[tuple[NDArray[np.int64], Array, Array]], world_size: int
) -> list[tuple[NDArray[np.int64], Array, Array]]:
    if world_size == 1:
        return found
    everyone: list[list[tuple[NDArray[np.int64], Array, Array]]] = [[]] * world_size
    torch.distributed.all_gather_object(everyone, found)
    return [one for part in everyone for one in part]
