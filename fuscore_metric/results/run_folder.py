"""Rows as they come -> files that outlast whatever stops the run, and the tables made of them.

A run folder holds `run.json` (what the rows were made with), `rows.jsonl` (a line per row, appended
and synchronised batch by batch) and, once a run ends, `results.csv` and `results.parquet`. Where
many processes write, rows are in `parts/` instead (`fuscore_metric.results.parts`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import Self

from fuscore_metric.errors import InputError
from fuscore_metric.results.rows import COLUMNS, FILES, LATER, NAMES, Entry, Row
from fuscore_metric.results.settings import RunSettings
from fuscore_metric.results.stamps import Stamps, stamp
from fuscore_metric.results.tables import (
    BOARD_FILES,
    CSV_FILE,
    PARQUET_FILE,
    removed_on_failure,
    write_tables,
)

log = logging.getLogger(__name__)

SETTINGS_FILE, JOURNAL_FILE, LOCK_FILE = "run.json", "rows.jsonl", ".lock"
PARTS_FOLDER = "parts"
Key = tuple[str, str]


class RunFolder:
    """The rows of a run, on disk. A context manager: one process at a time may write.

    Args:
        path: The folder; made if it is not there.
        settings: What new rows are made with.
        overwrite: Begin anew where there are rows of other settings.

    Raises:
        InputError: The folder cannot be written, another process writes it, or its rows were made
            with other settings.
    """

    def __init__(self, path: Path, settings: RunSettings, *, overwrite: bool = False) -> None:
        self.path, self.settings = path, settings
        self._overwrite = overwrite
        self._rows: dict[Key, Row] = {}
        self._stamps: dict[Key, Any] = {}
        self._asked = Stamps()

    def __enter__(self) -> Self:
        self._lock = lock_folder(self.path)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._journal.close()
        finally:
            self._lock.release()

    @property
    def rows(self) -> list[Row]:
        """All rows there are, by scene and method."""
        return [self._rows[key] for key in sorted(self._rows)]

    def waiting(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries that lack a score or a measure, or whose files changed since."""
        found = [entry for entry in entries if not self._is_done(entry)]
        self._asked.take(found)
        return found

    def scored(self, waiting: Iterable[Entry]) -> dict[Key, Row]:
        """The rows of entries that lack measures only."""
        return scored(waiting, self._rows, self._stamps)

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; when this returns they outlast a crash of the process or of the machine.

        Raises:
            InputError: They cannot be written, such as on a full disk.
        """
        stamped = [(row, self._asked.of(row)) for row in rows]
        text = "".join(json.dumps(row | {"stamp": mark}) + "\n" for row, mark in stamped)
        try:
            self._add_to_journal(text.encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        for row, mark in stamped:
            self._keep(row, mark)

    def _add_to_journal(self, lines: bytes) -> None:
        """Add all lines or none: behind a part of a line the next one would be lost, too."""
        try:
            self._journal.truncate(self._end)  # the last time, this could not be done below
            rest = lines
            while rest:  # a disk that becomes full takes a part
                rest = rest[self._journal.write(rest) :]
            os.fsync(self._journal.fileno())
        except BaseException:
            with suppress(OSError):
                self._journal.truncate(self._end)
            raise
        self._end += len(lines)

    def finish(self) -> list[Path]:
        """Write the tables of all rows there are; either table is replaced whole or not at all."""
        try:
            # Of the run that began it: what the rows have in common is there.
            recorded = read_settings(self.path).to_json()
            return write_tables(self.rows, recorded, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _open(self) -> None:
        begin(self.path, self.settings, overwrite=self._overwrite, kept_in=JOURNAL_FILE)
        for row in read_journal(self.path):
            self._keep(row, row.pop("stamp", None))
        try:
            # Without a buffer, which would keep what a full disk did not take and write it later.
            self._journal = (self.path / JOURNAL_FILE).open("ab", buffering=0)
            self._end = _whole_lines(self.path / JOURNAL_FILE)
            self._journal.truncate(self._end)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _keep(self, row: Row, mark: Any) -> None:
        key = row["scene"], row["method"]
        self._rows[key], self._stamps[key] = row, mark

    def _is_done(self, entry: Entry) -> bool:
        row, mark = self._rows.get(entry.key), self._stamps.get(entry.key)
        return is_done(entry, row, mark, self.settings.measures)


def is_done(entry: Entry, row: Row | None, mark: Any, measures: Sequence[str] = ()) -> bool:
    """Whether a row has all that is asked of an entry, and its files are what they were.

    Args:
        entry: The triple.
        row: What is known of it, or None.
        mark: `stamp` of that row when it was made.
        measures: Classic measures that are asked for. One that does not exist is NaN.
    """
    if row is None or row["score"] is None or any(row.get(name) is None for name in measures):
        return False
    same_files = all(row[name] == getattr(entry, name) for name in FILES)
    return same_files and bool(mark == stamp(row))


def scored(
    waiting: Iterable[Entry], rows: Mapping[Key, Row], marks: Mapping[Key, Any]
) -> dict[Key, Row]:
    """The rows of entries whose score still holds, so that they lack measures only."""
    keys = (e.key for e in waiting if is_done(e, rows.get(e.key), marks.get(e.key)))
    return {key: rows[key] for key in keys}


def lock_folder(path: Path) -> FileLock:
    """Make a run folder if it is not there, and lock it against other processes.

    Raises:
        InputError: It cannot be written, or another process has it.
    """
    lock = FileLock(path / LOCK_FILE)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"Another process writes into {str(path)!r}") from error
    except OSError as error:
        raise cannot_write(path, error) from error
    return lock


def begin(path: Path, settings: RunSettings, *, overwrite: bool, kept_in: str) -> RunSettings:
    """Begin a run in a locked folder, or make sure that the one in it can go on.

    Args:
        path: The folder.
        settings: What new rows are made with.
        overwrite: Remove what is there.
        kept_in: Where this engine keeps its rows, `JOURNAL_FILE` or `PARTS_FOLDER`.

    Returns:
        The settings of all rows: those that the run was begun with, and measures asked for since.

    Raises:
        InputError: The run in it has other settings or rows of another engine, or it cannot be
            written.
    """
    record = path / SETTINGS_FILE
    if overwrite or not record.exists():
        _begin_anew(path, overwrite=overwrite)
        replace_text(record, settings.to_json() + "\n")
        return settings
    before = read_settings(path)
    differences = settings.differences(before)
    (other,) = {JOURNAL_FILE, PARTS_FOLDER} - {kept_in}
    if (path / other).exists():
        differences.append(f"rows of another engine in {other}")
    if differences:
        raise InputError(
            f"Expected to go on in {str(path)!r} as it was begun, got "
            f"{'; '.join(differences)}: give another folder as --out, or --overwrite"
        )
    if (merged := before.with_measures_of(settings)) != before:
        replace_text(record, merged.to_json() + "\n")
    return merged


def _begin_anew(path: Path, *, overwrite: bool) -> None:
    """Remove the rows and tables in a folder; those of unknown origin only if asked to."""
    names = JOURNAL_FILE, CSV_FILE, PARQUET_FILE, PARTS_FOLDER, *BOARD_FILES.values()
    found = [path / name for name in names if os.path.lexists(path / name)]
    if found and not overwrite:
        raise InputError(
            f"Expected a run or no results in {str(path)!r}, got {found[0].name} without "
            f"{SETTINGS_FILE}: give another folder as --out, or --overwrite"
        )
    try:
        for old in found:
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def read_settings(folder: Path) -> RunSettings:
    """Read what a run was begun with.

    Raises:
        InputError: There is no run in the folder, or not one of this version.
    """
    path = folder / SETTINGS_FILE
    try:
        return RunSettings.from_json(path.read_text())
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"Expected a run's settings in {str(path)!r}: {error}") from error


def read_journal(folder: Path) -> list[Row]:
    """Read the rows of a run that may have been killed; a line that was cut is left out."""
    path = folder / JOURNAL_FILE
    if not path.exists():
        return []
    rows: list[Row] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = dict.fromkeys(LATER) | json.loads(line)
            if not set(COLUMNS) <= set(row):
                raise ValueError("columns are missing")
            if not all(isinstance(row[name], str) for name in (*NAMES, *FILES)):
                raise ValueError("names that are no text")
            rows.append(row)
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("left out line %d of %s: %s", number, path, error)
    return rows


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: It cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        with removed_on_failure(new):
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # else, after a power cut, the file could be there, empty
            new.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def cannot_write(path: Path, error: OSError) -> InputError:
    """Make the error of a full disk and its like, with what to do."""
    reason = error.strerror or error
    if error.errno is not None:
        reason = os.strerror(error.errno)  # Arrow's own text is of bytes and files
    return InputError(
        f"Cannot write {str(path)!r}: {reason}. What was written before is whole: "
        f"{_REMEDIES.get(error.errno or 0, '')}the same command goes on from there"
    )


_MAKE_ROOM = "make room there, and "
_MAKE_WRITABLE = "give another folder as --out, or let this one be written, and "
_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: _MAKE_WRITABLE,
    errno.EACCES: _MAKE_WRITABLE,
    errno.EPERM: _MAKE_WRITABLE,
}
