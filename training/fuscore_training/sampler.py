"""Rows of a ratings table -> batches of S scenes x M methods, so that pair losses have pairs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Dataset, Sampler

_SCENE_ORDER, _ROW_ORDER = 0, 1  # separate random streams of one seed


class SceneBatchSampler(Sampler[list[int]]):
    """Draw batches of `scenes_per_batch` scenes x `methods_per_scene` rows each.

    Every batch holds pairs within a scene and across scenes, and no row twice. An epoch visits
    every scene once; to fill the last batch, and to give every rank as many batches, some scenes
    are visited a second time, with other rows where there are any. A scene of n > M rows shows M of
    them a visit and goes through all of them in ceil(n / M) epochs, then is shuffled anew. A scene
    of fewer than M rows shows them all, so its batches are smaller than S x M.

    Each rank gets its own scenes, drawn anew every epoch: do not shard the batches again (with
    accelerate, leave the loader out of `prepare`). The same arguments and epoch give the same
    batches on every machine.

    Args:
        scenes: Source pair of each row (N,), as `RatingsTable.source_pairs`; yielded indices point
            into it. Each needs at least 2 rows.
        scenes_per_batch: S, at least 2.
        methods_per_scene: M, at least 2.
        seed: Seed >= 0, the same on all ranks.
        rank: This process, in [0, world_size).
        world_size: Number of processes; each needs S scenes of its own.

    Raises:
        ValueError: An argument is out of range, there are too few scenes, or a scene has one row.
    """

    def __init__(
        self,
        scenes: Iterable[Hashable],
        *,
        scenes_per_batch: int,
        methods_per_scene: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _require_at_least(2, scenes_per_batch=scenes_per_batch, methods_per_scene=methods_per_scene)
        _require_at_least(1, world_size=world_size)
        _require_at_least(0, seed=seed, rank=rank)
        if rank >= world_size:
            raise ValueError(f"Expected rank < world_size, got rank {rank} of {world_size}")
        self._rows = _rows_by_scene(scenes)
        if len(self._rows) < scenes_per_batch * world_size:
            raise ValueError(
                f"Expected at least scenes_per_batch * world_size = {scenes_per_batch} * "
                f"{world_size} scenes, got {len(self._rows)}"
            )
        self._scenes_per_batch = scenes_per_batch
        self._methods_per_scene = methods_per_scene
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (>= 0) that the next iteration draws; without it, all are epoch 0."""
        _require_at_least(0, epoch=epoch)
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on every rank."""
        largest_share = -(-len(self._rows) // self._world_size)
        return -(-largest_share // self._scenes_per_batch)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of row indices, at most S x M long."""
        visits = self._visits(self._epoch)
        for _ in range(len(self)):
            batch = islice(visits, self._scenes_per_batch)
            yield [row for scene, visit in batch for row in self._draw(scene, self._epoch, visit)]

    def _visits(self, epoch: int) -> Iterator[tuple[int, int]]:
        """Yield this rank's (scene, visit within the epoch) without end, all scenes in each round.

        A rank has at least S scenes, so S visits in a row are to S different ones.
        """
        generator = np.random.default_rng([self._seed, _SCENE_ORDER, epoch])
        own = generator.permutation(len(self._rows))[self._rank :: self._world_size].tolist()
        visit = 0
        while True:
            yield from ((scene, visit) for scene in own)
            visit += 1

    def _draw(self, scene: int, epoch: int, visit: int) -> list[int]:
        """Return the rows that a scene shows: the next M of its current shuffle, going round."""
        rows = self._rows[scene]
        epochs_for_all = -(-len(rows) // self._methods_per_scene)
        shuffle, turn = divmod(epoch, epochs_for_all)
        order = np.random.default_rng([self._seed, _ROW_ORDER, scene, shuffle]).permutation(rows)
        shown = min(self._methods_per_scene, len(rows))
        start = (turn + visit) * self._methods_per_scene
        return [int(order[(start + place) % len(rows)]) for place in range(shown)]


def _rows_by_scene(scenes: Iterable[Hashable]) -> list[list[int]]:
    """List the rows of each scene, scenes in order of appearance."""
    rows: dict[Hashable, list[int]] = {}
    for row, scene in enumerate(scenes):
        rows.setdefault(scene, []).append(row)
    single = [scene for scene, own in rows.items() if len(own) < 2]
    if single:
        raise ValueError(
            f"Expected at least 2 rows of each scene, got 1 of {single[0]!r} "
            f"({len(single)} such scenes); leave them out"
        )
    return list(rows.values())


def _require_at_least(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"Expected {name} >= {minimum}, got {value}")


class RowNumbers(Dataset[int]):
    """The rows of a table; what a row holds is put together a batch at a time."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> int:
        return row
