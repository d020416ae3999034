"""Frozen features on disk: each image goes through the vision part once, not once an epoch.

Only for families whose vision part is frozen while training (`lite_llama`). What is stored is
what `Backbone.encode` returns, so training reads exactly what scoring computes, rounded to float16.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.lite_llama import STATISTICS, LiteLlama
from fuscore_metric.images import as_images, check_triples, to_batch
from fuscore_training.ratings import RatingsTable

log = logging.getLogger(__name__)

SOURCE_FEATURES = ("ir", "vis")
FUSED_FEATURES = ("fused", "agreement")
DONE_FILE = "done.json"


class FeatureCache:
    """Features of a ratings table, sources once a source pair; read from memory-mapped files.

    Args:
        folder: What `build_features` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.pair_of_row = np.load(folder / "pair_of_row.npy")
        self.arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in (*SOURCE_FEATURES, *FUSED_FEATURES)
        }
        self.cells = self.arrays["fused"].shape[1]

    def __len__(self) -> int:
        return len(self.pair_of_row)

    def encoded(self, rows: Sequence[int], cells: Tensor | None = None) -> Encoded:
        """Features of some rows, as `Backbone.encode` returns them.

        Args:
            rows: N row numbers of the table.
            cells: (K,) the cells to keep; all by default.
        """
        kept = torch.arange(self.cells) if cells is None else cells
        index = np.asarray(rows)
        found = {}
        for name, array in self.arrays.items():
            chosen = self.pair_of_row[index] if name in SOURCE_FEATURES else index
            found[name] = torch.from_numpy(array[chosen][:, kept.numpy()]).float()  # (N, K, F)
        return found | {"cells": kept.expand(len(index), -1)}


def build_features(
    table: RatingsTable, backbone: LiteLlama, folder: Path, *, key: str
) -> FeatureCache:
    """Encode every triple of a table, or open what an earlier run with the same key encoded.

    Args:
        table: Ratings; rows of a source pair share its sources' features.
        backbone: A `LiteLlama`; its vision part only is used.
        folder: Where the cache is.
        key: Says what the features depend on; a cache of another key is made anew.
    """
    done = folder / DONE_FILE
    if done.exists() and json.loads(done.read_text()) == {"key": key, "rows": len(table)}:
        return FeatureCache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    frame = table.frame.reset_index(drop=True)
    codes, _ = pd.factorize(table.source_pairs.reset_index(drop=True))
    np.save(folder / "pair_of_row.npy", codes)
    groups = [np.flatnonzero(codes == code).tolist() for code in range(codes.max() + 1)]
    shape = backbone.preprocessing["grid"] ** 2, STATISTICS
    for name, length in [(n, len(groups)) for n in SOURCE_FEATURES] + [
        (n, len(frame)) for n in FUSED_FEATURES
    ]:
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=(length, *shape)
        ).flush()
    names = (*SOURCE_FEATURES, *FUSED_FEATURES)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names}
    # One process with all threads: PyTorch takes its slow convolutions where it has one thread.
    for pair, rows in enumerate(groups):
        encoded = _encode_pair(frame.iloc[rows], backbone)
        for name, array in arrays.items():
            values = encoded[name].half().numpy()
            array[pair if name in SOURCE_FEATURES else rows] = (
                values[0] if name in SOURCE_FEATURES else values
            )
        if pair % 30 == 0:
            log.info("encoded %d of %d source pairs", pair + 1, len(groups))
    for array in arrays.values():
        array.flush()
    done.write_text(json.dumps({"key": key, "rows": len(table)}))
    return FeatureCache(folder)


def _encode_pair(files: pd.DataFrame, backbone: LiteLlama) -> Encoded:
    """Encode all fused images of one source pair, its sources once."""
    ir, vis = as_images(files["ir"].iloc[0], "ir"), as_images(files["vis"].iloc[0], "vis")
    fused = as_images(files["fused"].tolist(), "fused")
    check_triples(ir * len(fused), vis * len(fused), fused)
    with torch.inference_mode():
        return backbone.encode(to_batch(ir), to_batch(vis), to_batch(fused))
