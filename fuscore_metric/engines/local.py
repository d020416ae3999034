"""Triples in files -> rows of the results table, in this process. A bad file becomes a row."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

from fuscore_metric.doubts import Doubts
from fuscore_metric.images import InputError
from fuscore_metric.pictures import Picture, join, open_pictures
from fuscore_metric.results.rows import Entry, Row, error_row, score_row
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, judge_each
from fuscore_metric.thermal_range import ThermalRange

if TYPE_CHECKING:
    from fuscore_metric.model import FuScore

CHUNK = 512
"""Triples whose headers are read before the first of them is judged."""

Triple: TypeAlias = tuple[Picture, Picture, Picture]


def score_entries(
    entries: Iterable[Entry],
    model: FuScore,
    *,
    aspect: str,
    batch_size: int = DEFAULT_BATCH_SIZE,
    thermal_range: ThermalRange | None = None,
) -> Generator[list[Row]]:
    """Score triples; each source pair is read once if its triples come one after another.

    Args:
        entries: The triples.
        model: What judges.
        aspect: As in `fuscore_metric.score`.
        batch_size: Triples computed at once. Does not change the scores.
        thermal_range: As in `fuscore_metric.score`.

    Yields:
        Rows as they are done, a batch at a time: with scores, or with the error of a triple whose
        files cannot be used or that does not fit into memory.
    """
    doubts = Doubts()
    for chunk in _chunks(entries):
        yield from _score_chunk(chunk, _Opener(thermal_range), model, aspect, batch_size, doubts)


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


def _score_chunk(
    entries: list[Entry],
    opener: _Opener,
    model: FuScore,
    aspect: str,
    batch_size: int,
    doubts: Doubts,
) -> Generator[list[Row]]:
    sound, triples = [], []
    for entry in entries:
        try:
            triples.append(opener.open(entry))
            sound.append(entry)
        except InputError as error:
            yield [error_row(entry, error)]
    begun = time.perf_counter()
    batches = judge_each(triples, model, aspect=aspect, batch_size=batch_size, doubts=doubts)
    with closing(batches) as judged:
        for batch, output in judged:
            seconds = (time.perf_counter() - begun) / len(batch.rows)
            members = enumerate(sound[row] for row in batch.rows)
            if isinstance(output, Exception):
                yield [error_row(entry, output) for _, entry in members]
            else:
                yield [score_row(entry, output[n], aspect, seconds) for n, entry in members]
            begun = time.perf_counter()


class _Opener:
    """Opens triples, whose sources come again, once a file."""

    def __init__(self, thermal_range: ThermalRange | None) -> None:
        self._thermal_range = thermal_range
        self._sources: dict[tuple[str, str], Picture | InputError] = {}

    def open(self, entry: Entry) -> Triple:
        """Look at three files' headers.

        Raises:
            InputError: A file cannot be used, or the three do not belong together.
        """
        ir, vis = self._source(entry.ir, "ir"), self._source(entry.vis, "vis")
        (triple,) = join([ir], [vis], open_pictures(entry.fused, "fused"))
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
