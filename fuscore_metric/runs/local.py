"""Triples in files -> rows of the results table, in this process. A bad file becomes a row."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import torch

from fuscore_metric.checkpoints.learned import LearnedPairs
from fuscore_metric.errors import InputError
from fuscore_metric.images.doubts import Doubts
from fuscore_metric.images.lazy import Picture, join, open_pictures
from fuscore_metric.images.thermal_range import ThermalRange
from fuscore_metric.results.rows import Entry, Row, error_row, measured_row, score_row
from fuscore_metric.runs.measuring import NO_MEASURES, Measuring
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, score_each

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore
    from fuscore_metric.results.run_folder import Key
    from fuscore_metric.runs.measuring import Measured

CHUNK = 512
"""Triples whose headers are read before the first of them is scored."""

Triple: TypeAlias = tuple[Picture, Picture, Picture]


def score_entries(
    entries: Iterable[Entry],
    model: FuScore,
    *,
    aspects: tuple[str, ...],
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
    measuring: Measuring = NO_MEASURES,
) -> Generator[list[Row]]:
    """Score triples; each source pair is encoded once if its triples come one after another.

    Args:
        entries: The triples.
        model: A `FuScore`.
        aspects: A of `fuscore_metric.prompts.ASPECTS`.
        batch_size: Triples computed at once. Does not change the scores.
        thermal_range: As in `fuscore_metric.score`.
        resize: As in `fuscore_metric.score`.
        measuring: The classic measures beside the scores.

    Yields:
        Rows as they are done, a batch at a time: with scores, or with the error of a triple whose
        files cannot be used or that does not fit into memory.
    """
    hashes = model.spec.training_pairs
    doubts = Doubts(LearnedPairs(hashes) if hashes else None)
    for chunk in _chunks(entries):
        sound, broken = _open(chunk, thermal_range, resize)
        yield from ([error_row(entry, error)] for entry, error in broken)
        yield from _score_chunk(sound, model, aspects, batch_size, doubts, measuring)


def measure_entries(
    entries: Iterable[Entry],
    scored: Mapping[Key, Row],
    *,
    device: str,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
    resize: str | None = None,
    measuring: Measuring,
) -> Generator[list[Row]]:
    """Measure triples that have scores.

    Args:
        entries: The triples.
        scored: Their rows.
        device: Where to compute.
        batch_size: As in `score_entries`.
        thermal_range: As in `score_entries`.
        resize: As in `score_entries`.
        measuring: The classic measures.

    Yields:
        Rows as they are done, with measures or the reason why there are none.
    """
    doubts = Doubts()
    for chunk in _chunks(entries):
        sound, broken = _open(chunk, thermal_range, resize)
        yield from ([measured_row(scored[entry.key], error)] for entry, error in broken)
        batches = measuring.each(
            [triple for _, triple in sound],
            device=torch.device(device),
            batch_size=batch_size,
            doubts=doubts,
        )
        with closing(batches) as measured:
            for some in measured:
                yield [measured_row(scored[sound[n][0].key], one) for n, one in some.items()]


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut between source pairs, where there are enough triples."""
    chunk: list[Entry] = []
    for _, pair in groupby(entries, key=lambda entry: (entry.ir, entry.vis)):
        chunk += pair
        if len(chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _open(
    entries: Iterable[Entry], thermal_range: ThermalRange | None, resize: str | None
) -> tuple[list[tuple[Entry, Triple]], list[tuple[Entry, InputError]]]:
    """Triples whose headers could be read, and the errors of the others."""
    opener = _Opener(thermal_range, resize)
    sound: list[tuple[Entry, Triple]] = []
    broken: list[tuple[Entry, InputError]] = []
    for entry in entries:
        try:
            sound.append((entry, opener.open(entry)))
        except InputError as error:
            broken.append((entry, error))
    return sound, broken


def _score_chunk(
    sound: list[tuple[Entry, Triple]],
    model: FuScore,
    aspects: tuple[str, ...],
    batch_size: int,
    doubts: Doubts,
    measuring: Measuring,
) -> Generator[list[Row]]:
    triples = [triple for _, triple in sound]
    measured = _Measured(
        measuring.each(triples, device=model.device, batch_size=batch_size, doubts=doubts)
    )
    begun = time.perf_counter()
    batches = score_each(triples, model, aspects, batch_size=batch_size, doubts=doubts)
    with closing(batches) as scored, closing(measured):
        for batch, output in scored:
            seconds = (time.perf_counter() - begun) / len(batch.rows)
            members = [(row, *sound[row]) for row in batch.rows]
            if isinstance(output, Exception):
                yield [error_row(entry, output) for _, entry, _ in members]
            else:
                yield [
                    measured_row(
                        score_row(
                            entry,
                            output[n],
                            seconds,
                            in_training=doubts.in_training.get((ir.given, vis.given)),
                            crop=None if ir.crop is None else str(ir.crop),
                        ),
                        measured.of(row) if measuring.names else {},
                    )
                    for n, (row, entry, (ir, vis, _)) in enumerate(members)
                ]
            begun = time.perf_counter()


class _Measured:
    """Hands out measures in the order of scoring, which is that of measuring, or nearly.

    Args:
        batches: What `Measuring.each` yields.
    """

    def __init__(self, batches: Generator[dict[int, Measured]]) -> None:
        self._batches = batches
        self._found: dict[int, Measured] = {}

    def of(self, row: int) -> Measured:
        """The measures of a triple, to be asked for once."""
        while row not in self._found:
            self._found |= next(self._batches)
        return self._found.pop(row)

    def close(self) -> None:
        """End the threads that decode."""
        self._batches.close()


class _Opener:
    """Opens triples; a source that comes again is opened once."""

    def __init__(self, thermal_range: ThermalRange | None, resize: str | None) -> None:
        self._thermal_range, self._resize = thermal_range, resize
        self._sources: dict[tuple[str, str], Picture | InputError] = {}

    def open(self, entry: Entry) -> Triple:
        """Read the headers of three files.

        Raises:
            InputError: A file cannot be used, or the three do not belong together.
        """
        ir, vis = self._source(entry.ir, "ir"), self._source(entry.vis, "vis")
        (triple,) = join([ir], [vis], open_pictures(entry.fused, "fused"), resize=self._resize)
        return triple

    def _source(self, path: str, argument: str) -> Picture:
        key = path, argument
        if key not in self._sources:
            try:
                (self._sources[key],) = open_pictures(
                    path, argument, thermal_range=self._thermal_range
                )
            except InputError as error:
                self._sources[key] = error
        found = self._sources[key]
        if isinstance(found, InputError):
            raise found
        return found
