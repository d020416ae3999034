"""Triples -> batches of one size, in which a source pair stands once: the order of computing.

And the threads that decode files ahead of it.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from fuscore_metric.compute.placement import to_device
from fuscore_metric.errors import InputError, out_of_memory
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.doubts import Doubts
from fuscore_metric.images.lazy import Picture
from fuscore_metric.images.ranges import unit_bytes

T = TypeVar("T")
log = logging.getLogger(__name__)

CPU = torch.device("cpu")
THREADS = min(16, os.cpu_count() or 1)
"""Files decoded at once. On a CPU decoding is many times faster than scoring; for a GPU
`benchmarks/gpu` measures which of the two is the limit."""

AHEAD_BYTES = 64 * 2**20
"""Decoded pixels that may wait for their turn; some 70 images of 640x480."""


class BrokenFileError(InputError):
    """A file that could not be decoded when its turn came.

    Attributes:
        rows: Numbers of the triples that need it, of those asked for.
    """

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class Batch:
    """Triples of one size that are scored together.

    Attributes:
        rows: Numbers of the triples, those of a source pair side by side.
        pairs: Number of each one's source pair.
    """

    rows: tuple[int, ...]
    pairs: tuple[int, ...]

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers of the source pairs, in order, each once."""
        return tuple(dict.fromkeys(self.pairs))

    @property
    def pair(self) -> Tensor:
        """(N,) int64: place of each triple's source pair in `sources`."""
        place = {number: index for index, number in enumerate(self.sources)}
        return torch.tensor([place[number] for number in self.pairs], device="cpu")

    def part(self, rows: Sequence[int]) -> tuple[Batch, Batch | None]:
        """Cut into these triples and the others, if there are any."""
        chosen = set(rows)
        both = list(zip(self.rows, self.pairs, strict=True))
        ours, rest = ([x for x in both if (x[0] in chosen) == wanted] for wanted in (True, False))
        return Batch(*zip(*ours, strict=True)), Batch(*zip(*rest, strict=True)) if rest else None

    def split(self, size: int) -> list[Batch]:
        """Cut into batches of at most `size` triples."""
        starts = range(0, len(self.rows), size)
        return [Batch(self.rows[s : s + size], self.pairs[s : s + size]) for s in starts]


def plan(shapes: Sequence[tuple[int, ...]], pairs: Sequence[int], batch_size: int) -> list[Batch]:
    """Put triples into batches.

    No batch mixes sizes, so nothing is padded and no score changed. A source pair with many fused
    images has batches of its own, one after the other; pairs with few share a batch, and none is
    in two, so that each is read once.

    Args:
        shapes: Shape of each triple's images.
        pairs: Number of each triple's source pair.
        batch_size: Most triples of a batch.
    """
    members: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(shapes, pairs, strict=True)):
        members[key].append(row)
    by_shape: dict[tuple[int, ...], list[Batch]] = defaultdict(list)
    for (shape, pair), rows in members.items():
        batches = by_shape[shape]
        own = Batch(tuple(rows), (pair,) * len(rows))
        if batches and len(batches[-1].rows) + len(rows) <= batch_size:
            last = batches.pop()
            own = replace(last, rows=last.rows + own.rows, pairs=last.pairs + own.pairs)
        batches.append(own)
    return [
        part for batches in by_shape.values() for own in batches for part in own.split(batch_size)
    ]


def work_through(
    batches: Sequence[Batch], work: Callable[[Batch], T], forget: Callable[[], None]
) -> Generator[tuple[Batch, T | Exception]]:
    """Compute batch after batch, going on after what cannot be computed.

    A batch that does not fit into memory is cut in two.

    Args:
        batches: What to compute.
        work: Computes a batch; raises `BrokenFileError` for triples whose files are broken.
        forget: Frees what `work` holds on to between batches.

    Yields:
        A batch and what was computed of it, or what kept its triples from that: a broken file, or
        no memory for a single one.
    """
    waiting = deque(batches)
    while waiting:
        batch = waiting.popleft()
        output: T | Exception | None = None
        try:
            output = work(batch)
        except BrokenFileError as error:
            # The sound triples of the batch come next.
            broken, sound = batch.part(error.rows)
            if sound is not None:
                waiting.appendleft(sound)
            batch, output = broken, error
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(batch.rows) == 1:
                output = error
        if output is not None:
            yield batch, output
            continue
        # Out here, because an exception holds on to all that was computed.
        forget()
        # Later batches are halved too: those of the same size would not fit either.
        count = len(batch.rows)
        size = -(-count // 2)
        log.warning("out of memory with %d triples at once, going on with %d", count, size)
        waiting = deque(part for whole in (batch, *waiting) for part in whole.split(size))


def _reported(work: Callable[[], Tensor], rows: Sequence[int]) -> Tensor:
    """Do what may find a file broken, and name the rows that need it."""
    try:
        return work()
    except InputError as error:
        raise BrokenFileError(str(error), rows) from error


class Decoder:
    """Gives the images of batches, whose files it decodes in threads.

    Args:
        triples: Pictures of all triples.
        batches: In the order of computing; they may be cut meanwhile, not put in another order.
        ahead: Decode what comes later, too. Not where the CPU computes: its threads wait for each
            other after each operation, and one that has to share its core holds up all. Decoding
            beside them cost twice its own time.
        device: Where the batches go.
        doubts: Checks the sources.
    """

    def __init__(
        self,
        triples: Sequence[tuple[Picture, Picture, Picture]],
        batches: Sequence[Batch],
        *,
        ahead: bool,
        device: torch.device = CPU,
        doubts: Doubts | None = None,
    ) -> None:
        self._triples, self._device = triples, device
        self._doubts = doubts or Doubts()
        self._first: dict[int, int] = {}  # the triple that a source pair is read from
        order = [(r, p) for batch in batches for r, p in zip(batch.rows, batch.pairs, strict=True)]
        for row, pair in order:
            self._first.setdefault(pair, row)
        self._later = deque(order if ahead else [])
        self._ahead = ahead
        self._futures: dict[Picture, Future[Tensor]] = {}
        self._begun: set[Picture] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fuscore-decode")

    def begin(self, batch: Batch) -> None:
        """Start decoding a batch, or decode it, before its images are asked for."""
        for row, pair in zip(batch.rows, batch.pairs, strict=True):
            self._start_triple(row, pair)
        # Ahead of need, but not of memory.
        while self._later and sum(picture.bytes for picture in self._futures) < AHEAD_BYTES:
            self._start_triple(*self._later.popleft())
        if not self._ahead:
            wait(self._futures.values())

    def sources(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ir and vis (U, 3, H, W) of a batch's source pairs, on the device, decoded once.

        Raises:
            BrokenFileError: A file is broken, or values are out of range.
        """
        needed_by: dict[int, list[int]] = {pair: [] for pair in batch.sources}
        for row, pair in zip(batch.rows, batch.pairs, strict=True):
            needed_by[pair].append(row)
        triples = [self._triples[self._first[pair]] for pair in needed_by]
        rows = list(needed_by.values())
        sources = [[triple[n] for triple in triples] for n in range(2)]
        raw = [self._raw(pictures, rows) for pictures in sources]
        for one, other, *pixels in zip(*sources, *raw, strict=True):
            self._doubts.swapped(one.name, other.name, *pixels)
        ir, vis = (self._finished(*both, rows) for both in zip(sources, raw, strict=True))
        for one in zip(*sources, *raw, strict=True):
            self._doubts.note_training(*one)
        return ir, vis

    def fused(self, batch: Batch) -> Tensor:
        """Fused images (N, 3, H, W) of a batch's triples, on the device.

        Raises:
            BrokenFileError: A file is broken, or values are out of range.
        """
        pictures, rows = [self._triples[row][2] for row in batch.rows], [[r] for r in batch.rows]
        return self._finished(pictures, self._raw(pictures, rows), rows)

    def _raw(self, pictures: Sequence[Picture], needed_by: Sequence[Sequence[int]]) -> list[Tensor]:
        """What `Picture.decode` returns."""
        for picture in pictures:
            self._start(picture)
        # Taken out, so that nothing is held twice. Should they be wanted again, after memory ran
        # out or another file was broken, they are decoded again.
        waiting = {picture: self._futures.pop(picture) for picture in set(pictures)}
        return [
            _reported(waiting[picture].result, rows)
            for picture, rows in zip(pictures, needed_by, strict=True)
        ]

    def _finished(
        self,
        pictures: Sequence[Picture],
        raw: Sequence[Tensor],
        needed_by: Sequence[Sequence[int]],
    ) -> Tensor:
        """What was decoded as a batch on the device."""
        plain = all(picture.is_file and picture.thermal_range is None for picture in pictures)
        if plain and {x.dtype for x in raw} == {torch.uint8}:
            # Bytes are moved before they become floats: that is a quarter of the copying, and the
            # arithmetic is the GPU's.
            return unit_bytes(to_device(to_batch(list(raw)), self._device))
        loaded = [
            _reported(partial(picture.pixels, one), rows)
            for picture, one, rows in zip(pictures, raw, needed_by, strict=True)
        ]
        return to_device(to_batch(loaded), self._device)

    def _start_triple(self, row: int, pair: int) -> None:
        needed = self._triples[row] if self._first[pair] == row else self._triples[row][2:]
        for picture in needed:
            if picture not in self._begun:
                self._start(picture)

    def _start(self, picture: Picture) -> None:
        self._begun.add(picture)
        if picture in self._futures:
            return
        if picture.is_file:
            self._futures[picture] = self._threads.submit(picture.decode)
        else:
            self._futures[picture] = Future()
            self._futures[picture].set_result(picture.decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
