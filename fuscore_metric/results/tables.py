"""Rows -> `results.csv` and `results.parquet`, and their schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.results.rows import COLUMNS, NUMBERS, Row

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"fuscore"
"""Where a Parquet file has the settings, as JSON."""
CSV_FILE, PARQUET_FILE = "results.csv", "results.parquet"
BOARD_FILES = {
    "csv": "leaderboard.csv",
    "json": "leaderboard.json",
    "latex": "leaderboard.tex",
    "markdown": "leaderboard.md",
}
"""The leaderboard's files in a run folder, by format."""


def schema(settings: str) -> Any:
    """Columns of the results table: numbers are float64, all else is text; all may be null."""
    import pyarrow as pa

    fields = [(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS]
    return pa.schema(fields, metadata={METADATA_KEY: settings.encode()})


def write_tables(rows: Sequence[Row], settings: str, folder: Path) -> list[Path]:
    """Write both tables; each is replaced whole or not at all.

    Args:
        rows: Rows, in order.
        settings: JSON to keep in the Parquet file.
        folder: Where to.

    Returns:
        The two files.
    """
    return replace_tables(to_table(rows, settings), folder)


def to_table(rows: Sequence[Row], settings: str) -> pa.Table:
    """Rows as a table of `schema`."""
    import pyarrow as pa

    columns = {name: [_text(row[name]) for row in rows] for name in COLUMNS}
    return pa.table(columns, schema=schema(settings))


def replace_tables(table: pa.Table, folder: Path) -> list[Path]:
    """Write a table as `write_tables` does."""
    from pyarrow import csv, parquet

    done = []
    for name, write in ((CSV_FILE, csv.write_csv), (PARQUET_FILE, parquet.write_table)):
        new = folder / f".{name}.new"
        with removed_on_failure(new):
            write(table, new)
            done.append(new.replace(folder / name))
    return done


@contextmanager
def removed_on_failure(new: Path) -> Iterator[None]:
    """Leave nothing of a file that could not be written: on a full disk it would take the rest."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _text(value: Any) -> Any:
    """Names of files may hold bytes that are no text: they are shown as escapes."""
    if not isinstance(value, str):
        return value
    return os.fsencode(value).decode("utf-8", "backslashreplace")
