"""Ratings + cached features -> training batches: labels, source ids, a random view of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.features import FeatureCache
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
    """

    sigma_min: float = 0.3
    kappa: float = 1.0


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
        scenes_per_batch: S.
        methods_per_scene: M.
        overall_share: Share of batches that ask for the overall quality; the other aspects share
            the rest evenly.
        least_cells: Each batch shows between this many and all cells of the grid. Leaving some out
            is cheaper, and keeps the model from learning scenes by heart.
        seed: Seed of batches, aspects and views.
    """

    scenes_per_batch: int = 6
    methods_per_scene: int = 8
    overall_share: float = 0.6
    least_cells: int = 10
    seed: int = 0


class BatchMaker:
    """Row numbers -> a batch: encoded triples, an aspect, labels.

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
        self.labels = {aspect: make_labels(table, aspect, labels) for aspect in ASPECTS}
        self.rng = np.random.default_rng(options.seed)

    def __call__(self, batch: list[int]) -> dict[str, Any]:
        """Put a batch together; `DataLoader`'s `collate_fn`."""
        aspect = self._draw_aspect()
        labels, chosen = self.labels[aspect], torch.tensor(batch)
        return {
            "encoded": self._view(self.rows[batch].tolist()),
            "aspect": aspect,
            "mu": labels.mu[chosen],
            "sigma": labels.sigma[chosen],
            "source_ids": labels.source_ids[chosen],
        }

    def _draw_aspect(self) -> str:
        if self.rng.random() < self.options.overall_share:
            return DEFAULT_ASPECT
        return str(self.rng.choice(SUB_SCORES))

    def _view(self, rows: list[int]) -> Encoded:
        """Some of the cells, in grid order, mirrored half of the time."""
        total = self.cache.cells
        count = int(self.rng.integers(min(self.options.least_cells, total), total + 1))
        cells = np.sort(self.rng.choice(total, count, replace=False))
        encoded = self.cache.encoded(rows, torch.from_numpy(cells))
        if self.rng.random() < 0.5:
            side = round(total**0.5)
            row, column = np.divmod(cells, side)
            mirrored = torch.from_numpy(row * side + (side - 1 - column))
            encoded["cells"] = mirrored.expand(len(rows), -1)
        return encoded


def make_loader(
    table: RatingsTable,
    rows: Sequence[int],
    cache: FeatureCache,
    labels: LabelOptions,
    options: BatchOptions,
) -> DataLoader[int]:
    """Batches of S scenes x M methods for one training run."""
    sampler = SceneBatchSampler(
        table.frame["scene"],
        scenes_per_batch=options.scenes_per_batch,
        methods_per_scene=options.methods_per_scene,
        seed=options.seed,
    )
    maker = BatchMaker(table, rows, cache, labels, options)
    return DataLoader(RowNumbers(len(table)), batch_sampler=sampler, collate_fn=maker)
