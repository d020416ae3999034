"""Ratings + cached features -> training batches: labels, source ids, a random view of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.features import VIEWS, FeatureCache
from fuscore_training.ratings import RatingsTable
from fuscore_training.sampler import SceneBatchSampler
from fuscore_training.soft_labels import label_sigma

SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]


@dataclass(frozen=True)
class Labels:
    """What a model should answer about each row of a table, for one aspect.

    Attributes:
        mu: (N,) ratings in [1, 5].
        sigma: (N,) widths of the soft labels.
        source_ids: (N,) integers, equal where the source pair is.
    """

    mu: Tensor
    sigma: Tensor
    source_ids: Tensor


@dataclass(frozen=True)
class LabelOptions:
    """How ratings become soft labels.

    Attributes:
        sigma_min: Width of a label on which all sub-scores agree.
        kappa: How much their disagreement widens it.
        one_hot: The nearest level alone, without width, instead; to compare with.
    """

    sigma_min: float = 0.3
    kappa: float = 1.0
    one_hot: bool = False


def make_labels(table: RatingsTable, aspect: str, options: LabelOptions) -> Labels:
    """Ratings of one aspect as tensors (float64).

    The width of an overall label is the table's `sigma` if it has one, else comes from how far the
    sub-scores disagree. A sub-score has nothing to disagree with: its width is `sigma_min`.
    """
    frame = table.frame
    mu = torch.from_numpy(frame[aspect].to_numpy(dtype=np.float64, copy=True))
    if aspect != DEFAULT_ASPECT:
        sigma = torch.full_like(mu, options.sigma_min)
    elif "sigma" in frame:
        sigma = torch.from_numpy(frame["sigma"].to_numpy(dtype=np.float64, copy=True))
    else:
        scores = torch.from_numpy(frame[SUB_SCORES].to_numpy(dtype=np.float64, copy=True))
        sigma = label_sigma(scores, sigma_min=options.sigma_min, kappa=options.kappa)
    if options.one_hot:
        mu, sigma = mu.round(), torch.zeros_like(sigma)
    codes, _ = pd.factorize(table.source_pairs)
    return Labels(mu, sigma, torch.from_numpy(codes.astype(np.int64)))


class RowNumbers(Dataset[int]):
    """The rows of a table; what a row holds is put together a batch at a time."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> int:
        return row


@dataclass(frozen=True)
class BatchOptions:
    """What a training batch holds.

    Attributes:
        scenes_per_batch: S; of a table with fewer scenes, all of them.
        methods_per_scene: M.
        sub_scores: Sub-scores asked for beside the overall quality, drawn anew for each batch; of a
            table without any, none.
        twins: Triples that a batch shows in both views.
        equal_rows: Whether every row is shown equally often: the rows of a source pair are
            cut into groups of about M, which count as scenes. Else every scene is shown as often.
        least_cells: Each batch shows between this many and all cells of the grid. Leaving some out
            is cheaper, and keeps the model from learning scenes by heart.
        seed: Seed of batches, sub-scores and views.
    """

    scenes_per_batch: int = 6
    methods_per_scene: int = 8
    sub_scores: int = 1
    twins: int = 12
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
            `triples`: features of N triples, then of the second views of `twins` (T,) among them;
            `aspects`; `mu` and `sigma` (A, N); `source_ids` (N,).
        """
        drawn = self.rng.choice(SUB_SCORES, self.sub_scores, replace=False)
        aspects = (DEFAULT_ASPECT, *map(str, drawn))
        labels, chosen = [self.labels[aspect] for aspect in aspects], torch.tensor(batch)
        twins = self.rng.choice(len(batch), min(self.options.twins, len(batch)), replace=False)
        return {
            "triples": self._view(self.rows[batch], twins),
            "aspects": aspects,
            "mu": torch.stack([one.mu[chosen] for one in labels]),
            "sigma": torch.stack([one.sigma[chosen] for one in labels]),
            "source_ids": labels[0].source_ids[chosen],
            "twins": torch.from_numpy(twins),
        }

    def _view(self, rows: NDArray[np.int64], twins: NDArray[np.int64]) -> Encoded:
        """Some of the cells, in grid order; each source pair in one view, twins in the other."""
        total = self.cache.cells
        count = int(self.rng.integers(min(self.options.least_cells, total), total + 1))
        cells = np.sort(self.rng.choice(total, count, replace=False))
        of_pair = self.rng.integers(0, VIEWS, self.cache.pair_of_row.max() + 1)
        views = of_pair[self.cache.pair_of_row[rows]]
        return self.cache.encoded(
            np.concatenate([rows, rows[twins]]),
            views=np.concatenate([views, 1 - views[twins]]),
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
