"""Ratings + cached features -> training batches: labels, source ids, a random view of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.embedded.features import VIEWS, FeatureCache
from fuscore_training.ratings import RatingsTable
from fuscore_training.sampler import RowNumbers, SceneBatchSampler
from fuscore_training.soft_labels import SUB_SCORES, LabelOptions, make_labels


@dataclass(frozen=True)
class BatchOptions:
    """What a training batch holds.

    Attributes:
        scenes_per_batch: S; of a table with fewer scenes, all of them.
        methods_per_scene: M.
        sub_scores: Sub-scores asked for beside the overall quality, drawn anew for each batch; of a
            table without any, none.
        consistency: Triples that a batch shows in both views.
        equal_rows: Whether every row is shown equally often: the rows of a source pair are
            cut into groups of about M, which count as scenes. Else every scene is shown as often.
        least_cells: Each batch shows between this many and all cells of the grid. Leaving some out
            is cheaper, and keeps the model from learning scenes by heart.
        seed: Seed of batches, sub-scores and views.
    """

    scenes_per_batch: int = 6
    methods_per_scene: int = 8
    sub_scores: int = 1
    consistency: int = 12
    equal_rows: bool = False
    least_cells: int = 8
    seed: int = 0


class BatchMaker:
    """Row numbers -> a batch: encoded triples, aspects, labels.

    Args:
        table: Training ratings.
        rows: (N,) where each row of `table` is in `cache`.
        cache: Features of the whole ratings table.
        labels: Soft-label options.
        options: Batch options.
    """

    def __init__(
        self,
        table: RatingsTable,
        rows: Sequence[int],
        cache: FeatureCache,
        labels: LabelOptions,
        options: BatchOptions,
    ) -> None:
        self.rows, self.cache, self.options = np.asarray(rows), cache, options
        aspects = ASPECTS if table.has_sub_scores else (DEFAULT_ASPECT,)
        self.labels = {aspect: make_labels(table, aspect, labels) for aspect in aspects}
        self.sub_scores = options.sub_scores if table.has_sub_scores else 0
        self.rng = np.random.default_rng(options.seed)

    def __call__(self, batch: list[int]) -> dict[str, Any]:
        """Put a batch together; `DataLoader`'s `collate_fn`.

        Returns:
            `triples`: features of N triples, then of the second views of `repeated` (T,) among
            them; `aspects`; `mu` and `sigma` (A, N); `source_ids` (N,).
        """
        drawn = self.rng.choice(SUB_SCORES, self.sub_scores, replace=False)
        aspects = (DEFAULT_ASPECT, *map(str, drawn))
        labels, chosen = [self.labels[aspect] for aspect in aspects], torch.tensor(batch)
        repeated = self.rng.choice(
            len(batch), min(self.options.consistency, len(batch)), replace=False
        )
        return {
            "triples": self._view(self.rows[batch], repeated),
            "aspects": aspects,
            "mu": torch.stack([one.mu[chosen] for one in labels]),
            "sigma": torch.stack([one.sigma[chosen] for one in labels]),
            "source_ids": labels[0].source_ids[chosen],
            "repeated": torch.from_numpy(repeated),
        }

    def _view(self, rows: NDArray[np.int64], repeated: NDArray[np.int64]) -> Encoded:
        """Some of the cells, in grid order; each source pair in one view, repeated in the other."""
        total = self.cache.cells
        count = int(self.rng.integers(min(self.options.least_cells, total), total + 1))
        cells = np.sort(self.rng.choice(total, count, replace=False))
        of_pair = self.rng.integers(0, VIEWS, self.cache.pair_of_row.max() + 1)
        views = of_pair[self.cache.pair_of_row[rows]]
        return self.cache.encoded(
            np.concatenate([rows, rows[repeated]]),
            views=np.concatenate([views, 1 - views[repeated]]),
            cells=cells,
        )


def make_loader(
    table: RatingsTable,
    rows: Sequence[int],
    cache: FeatureCache,
    labels: LabelOptions,
    options: BatchOptions,
) -> DataLoader[int]:
    """Batches of S scenes x M methods for one training run."""
    scenes = _groups(table, options) if options.equal_rows else table.frame["scene"].tolist()
    sampler = SceneBatchSampler(
        scenes,
        scenes_per_batch=min(options.scenes_per_batch, len(set(scenes))),
        methods_per_scene=options.methods_per_scene,
        seed=options.seed,
    )
    maker = BatchMaker(table, rows, cache, labels, options)
    return DataLoader(RowNumbers(len(table)), batch_sampler=sampler, collate_fn=maker)


def _groups(table: RatingsTable, options: BatchOptions) -> list[tuple[int, int]]:
    """Source pair and group within it of each row (N,)."""
    pairs, _ = pd.factorize(table.source_pairs)
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    place = pd.Series(pairs[order]).groupby(pairs[order]).cumcount().to_numpy()
    groups = np.maximum(1, np.rint(np.bincount(pairs) / options.methods_per_scene).astype(int))
    found = np.empty(len(pairs), dtype=np.int64)
    found[order] = place % groups[pairs[order]]
    return list(zip(pairs.tolist(), found.tolist(), strict=True))
