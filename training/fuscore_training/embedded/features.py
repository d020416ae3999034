"""Frozen features on disk: each image goes through the vision part once, not once per epoch.

Only for families whose vision part is frozen while training (`lite_llama`). What is stored is
what `Backbone.encode` returns, so training reads exactly what scoring computes, rounded to float16.

Each triple is stored in two views: as it is, and mirrored with a few pixels cut off. A person's
opinion of both is the same, and so should be the model's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.lite.cells import AGREEMENT, REFERENCES, STATISTICS
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.lite.relations import RELATIONS
from fuscore_training.pair_images import read_images
from fuscore_training.ratings import RatingsTable

log = logging.getLogger(__name__)

SOURCE_FEATURES = REFERENCES
DONE_FILE = "done.json"
VIEWS = 2
MOST_CUT = 7
"""Most pixels cut off the top and left in the second view: every phase of the strides occurs."""


class FeatureCache:
    """Features of a ratings table, sources once per source pair; read from memory-mapped files.

    Args:
        folder: What `build_features` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.pair_of_row = np.load(folder / "pair_of_row.npy")
        names = json.loads((folder / DONE_FILE).read_text())["arrays"]
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        self.cells = self.arrays["fused"].shape[2]

    def __len__(self) -> int:
        return len(self.pair_of_row)

    def encoded(
        self,
        rows: ArrayLike,
        *,
        views: NDArray[np.int64] | None = None,
        cells: NDArray[np.int64] | None = None,
    ) -> Encoded:
        """Features of some rows, as `Backbone.encode` returns them.

        Args:
            rows: N row numbers of the table.
            views: (N,) 0 for a triple as it is, 1 for its mirrored view; all 0 by default.
            cells: (K,) the cells to keep, as places in the first view, in grid order; all by
                default.
        """
        index = np.asarray(rows)
        view = np.zeros(len(index), dtype=np.int64) if views is None else views
        kept = np.arange(self.cells) if cells is None else cells
        # In grid order in both views, as scoring reads them: a mirror image comes in another order.
        places = np.stack([kept, np.sort(mirrored(kept, self.cells))])  # (VIEWS, K)
        # Rows of one source pair in one view share what comes before the fused image.
        shown, pair = np.unique(
            np.stack([self.pair_of_row[index], view]), axis=1, return_inverse=True
        )
        found = {}
        for name, array in self.arrays.items():
            row, views_of = shown if name in SOURCE_FEATURES else (index, view)
            found[name] = torch.from_numpy(
                array[row[:, None], views_of[:, None], places[views_of]]
            ).float()
        found["source_cells"] = torch.from_numpy(places[shown[1]])
        return found | {
            "cells": torch.from_numpy(places[view]),
            "pair": torch.from_numpy(pair.reshape(-1)),
        }


def mirrored(cells: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Places of cells (K,) of a square grid of `total` cells after mirroring left to right."""
    side = round(total**0.5)
    row, column = np.divmod(cells, side)
    return np.asarray(row * side + (side - 1 - column))


def build_features(
    table: RatingsTable, backbone: LiteLlama, folder: Path, *, key: str
) -> FeatureCache:
    """Encode every triple of a table, or open what an earlier run with the same key encoded.

    Args:
        table: Ratings; rows of a source pair share its sources' features.
        backbone: A `LiteLlama`; its vision part only is used.
        folder: Where the cache is.
        key: What the features depend on; a cache of another key is made anew.
    """
    frame = table.frame.reset_index(drop=True)
    codes, _ = pd.factorize(table.source_pairs.reset_index(drop=True))
    groups = [np.flatnonzero(codes == code).tolist() for code in range(codes.max() + 1)]
    sizes = _sizes(backbone, len(groups), len(frame))
    done, stamp = folder / DONE_FILE, {"key": key, "rows": len(table), "arrays": list(sizes)}
    if done.exists() and json.loads(done.read_text()) == stamp:
        return FeatureCache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    np.save(folder / "pair_of_row.npy", codes)
    cells = backbone.preprocessing["grid"] ** 2
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy",
            mode="w+",
            dtype=np.float16,
            shape=(length, VIEWS, cells, statistics),
        )
        for name, (length, statistics) in sizes.items()
    }
    # One process with all threads: PyTorch takes its slow convolutions where it has one thread.
    for pair, rows in enumerate(groups):
        for view, encoded in enumerate(_encode_pair(frame.iloc[rows], backbone, seed=pair)):
            for name, array in arrays.items():
                array[[pair] if name in SOURCE_FEATURES else rows, view] = encoded[name].half()
        if pair % 30 == 0:
            log.info("encoded %d of %d source pairs", pair + 1, len(groups))
    for array in arrays.values():
        array.flush()
    done.write_text(json.dumps(stamp))
    return FeatureCache(folder)


def _sizes(backbone: LiteLlama, pairs: int, rows: int) -> dict[str, tuple[int, int]]:
    """Images, and numbers of a cell, of each array."""
    sizes = dict.fromkeys(SOURCE_FEATURES, (pairs, STATISTICS))
    sizes |= {"fused": (rows, STATISTICS), "agreement": (rows, len(REFERENCES) * AGREEMENT)}
    return sizes | ({"relation": (rows, RELATIONS)} if backbone.relations else {})


def _encode_pair(files: pd.DataFrame, backbone: LiteLlama, *, seed: int) -> Iterator[Encoded]:
    """Encode all fused images of one source pair, its sources once, in each view."""
    images = tuple(read_images(files[["ir", "vis", "fused"]].to_numpy()).values())
    top, left = np.random.default_rng(seed).integers(0, MOST_CUT, 2, endpoint=True).tolist()
    with torch.inference_mode():
        yield backbone.encode(*images)
        yield backbone.encode(*(batch[..., top:, left:].flip(-1) for batch in images))
