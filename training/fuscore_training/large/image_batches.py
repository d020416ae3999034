"""Ratings -> batches of images by source pair, with labels, for models trained on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.pair_images import by_pair, read_images
from fuscore_training.ratings import RatingsTable
from fuscore_training.sampler import RowNumbers, SceneBatchSampler
from fuscore_training.soft_labels import SUB_SCORES, LabelOptions, make_labels
from fuscore_training.trainer import Images


@dataclass(frozen=True)
class ImageBatchOptions:
    """What a training batch of images holds.

    Attributes:
        scenes_per_batch: S, for each process.
        methods_per_scene: M.
        sub_scores: Sub-scores asked for beside the overall quality, drawn anew for each batch.
        consistency: Triples that a batch shows as they are and mirrored.
        mirror: Show each source pair mirrored half of the time.
        workers: Processes that read images ahead.
        seed: Seed of batches, sub-scores and mirrors.
    """

    scenes_per_batch: int = 4
    methods_per_scene: int = 4
    sub_scores: int = 1
    consistency: int = 0
    mirror: bool = True
    workers: int = 2
    seed: int = 0


class ImageBatchMaker:
    """Row numbers -> a batch: images by source pair, aspects, labels.

    What is drawn depends on the seed and on the rows alone: a run that is resumed, or that reads
    ahead in several processes, draws the same.

    Args:
        table: Training ratings.
        labels: Soft-label options.
        options: Batch options.

    Raises:
        ValueError: The table has no sub-scores, and some are wanted.
    """

    def __init__(
        self, table: RatingsTable, labels: LabelOptions, options: ImageBatchOptions
    ) -> None:
        if options.sub_scores and not table.has_sub_scores:
            raise ValueError(
                f"Expected `sub_scores` 0 for ratings without them, got {options.sub_scores}"
            )
        aspects = ASPECTS if table.has_sub_scores else (DEFAULT_ASPECT,)
        self.files = table.frame[["ir", "vis", "fused"]].to_numpy()
        self.labels = {aspect: make_labels(table, aspect, labels) for aspect in aspects}
        self.options = options

    def __call__(self, rows: list[int]) -> dict[str, Any]:
        """Put a batch together; `DataLoader`'s `collate_fn`.

        Returns:
            `triples`: images of N triples by source pair, then of the mirror images of `repeated`
            (T,) among them; `aspects`; `mu` and `sigma` (A, N); `source_ids` (N,).
        """
        rng = np.random.default_rng([self.options.seed, *rows])
        drawn = rng.choice(SUB_SCORES, self.options.sub_scores, replace=False)
        aspects = (DEFAULT_ASPECT, *map(str, drawn))
        pairs = self.labels[DEFAULT_ASPECT].source_ids.numpy()
        mirrored = dict.fromkeys(pairs[rows].tolist(), False)
        if self.options.mirror:
            mirrored = {pair: bool(rng.integers(2)) for pair in mirrored}
        chosen = np.asarray(rows)[np.argsort(pairs[rows], kind="stable")]
        repeated = np.sort(
            rng.choice(len(rows), min(self.options.consistency, len(rows)), replace=False)
        )
        triples = self._images(chosen, pairs, mirrored)
        opposite = {pair: not flag for pair, flag in mirrored.items()}
        triples += self._images(chosen[repeated], pairs, opposite)
        labels, picked = [self.labels[aspect] for aspect in aspects], torch.from_numpy(chosen)
        return {
            "triples": triples,
            "aspects": aspects,
            "mu": torch.stack([one.mu[picked] for one in labels]),
            "sigma": torch.stack([one.sigma[picked] for one in labels]),
            "source_ids": labels[0].source_ids[picked],
            "repeated": torch.from_numpy(repeated),
        }

    def _images(
        self, rows: NDArray[np.int64], pairs: NDArray[np.int64], mirrored: dict[int, bool]
    ) -> Images:
        """Images of rows that are sorted by source pair."""
        groups = by_pair(rows, pairs)
        flips = [mirrored[int(pairs[group[0]])] for group in groups]
        return [
            {name: x.flip(-1) if flip else x for name, x in read_images(self.files[group]).items()}
            for group, flip in zip(groups, flips, strict=True)
        ]


def make_image_loader(
    table: RatingsTable,
    labels: LabelOptions,
    options: ImageBatchOptions,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[int]:
    """Batches of S scenes x M methods for one process of a training run."""
    sampler = SceneBatchSampler(
        table.frame["scene"],
        scenes_per_batch=options.scenes_per_batch,
        methods_per_scene=options.methods_per_scene,
        seed=options.seed,
        rank=rank,
        world_size=world_size,
    )
    return DataLoader(
        RowNumbers(len(table)),
        batch_sampler=sampler,
        collate_fn=ImageBatchMaker(table, labels, options),
        num_workers=options.workers,
    )
