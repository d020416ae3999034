"""What files were when they were scored: whether a score is still that of its files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import TypeAlias

from fuscore_metric.results.rows import FILES, Entry, Row

Stamp: TypeAlias = list[list[int] | None]
"""Size in bytes and time of change in ns of each of `FILES`; None for what is not there."""


def stamp(row: Row) -> Stamp:
    """Read size and time of a row's three files.

    Times are compared for equality only: a clock that is wrong, or was moved, does no harm.
    """
    return [_file_stamp(row[name]) for name in FILES]


class Stamps:
    """Stamps taken before anything was read.

    A file that changes while it is scored would give the old score the new file's stamp, if that
    was taken afterwards.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[str, ...], Stamp] = {}

    def take(self, entries: Iterable[Entry]) -> None:
        """Stamp the files of triples that are about to be scored; earlier stamps are forgotten."""
        rows = [asdict(entry) for entry in entries]
        self._taken = {_files(row): stamp(row) for row in rows}

    def of(self, row: Row) -> Stamp:
        """The stamp of a row's files: as it was taken, else as they are now."""
        taken = self._taken.get(_files(row))
        return stamp(row) if taken is None else taken


def _files(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in FILES)


def _file_stamp(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
