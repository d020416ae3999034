"""Real source pairs -> training crops, and whole held-out scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from fuscore_training.fusions.classic import to_bytes
from fuscore_training.labels.proxy_ratings import Scene, find_scenes, read_image
from fuscore_training.split import read_split
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""(1, H, W) ir luma and (3, H, W) vis, both uint8."""


def training_and_test(data: Path, split_file: Path) -> tuple[list[Scene], list[Scene]]:
    """Scenes that FuScore was trained on, and scenes that neither it nor the network ever saw."""
    split, scenes = read_split(split_file), find_scenes(data)
    test = [scene for scene in scenes if scene.name in split.test]
    train = [scene for scene in scenes if scene.name not in {*split.test, *split.val}]
    return train, test


def read_pair(scene: Scene) -> Pair:
    """Both sources of a scene as the network and the reward take them."""
    ir, vis = (to_bytes(read_image(path)) for path in (scene.ir, scene.vis))
    grey = np.asarray(ir if ir.ndim == 2 else ir[..., 0])
    colour = vis if vis.ndim == 3 else np.repeat(vis[..., None], 3, axis=2)
    return torch.from_numpy(grey.copy())[None], torch.from_numpy(colour.copy()).movedim(-1, 0)


def crops(pairs: Sequence[Pair], *, side: int, batch: int, seed: int) -> Iterator[Pair]:
    """Random squares of random scenes, half of them mirrored, for ever.

    Yields:
        (batch, 1, side, side) and (batch, 3, side, side), float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    while True:
        chosen = [_crop(pairs[int(rng.integers(len(pairs)))], side, rng) for _ in range(batch)]
        ir, vis = (torch.stack([one[k] for one in chosen]) for k in (0, 1))
        yield ir.float() / 255, vis.float() / 255


def _crop(pair: Pair, side: int, rng: np.random.Generator) -> Pair:
    height, width = pair[0].shape[-2:]
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    mirror = (-1,) if rng.random() < 0.5 else ()
    ir, vis = (image[:, top : top + side, left : left + side].flip(mirror) for image in pair)
    return ir, vis
