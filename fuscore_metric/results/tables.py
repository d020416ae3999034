"""Rows -> `results.csv` and `results.parquet`, and their schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.results.rows import IN_TRAINING, NUMBERS, Row, columns

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
    """Columns of the results table: numbers, truth, else text; all may be null.

    Args:
        settings: JSON to keep in the Parquet file; those of a run name its measures.
    """
    import pyarrow as pa

    measures = json.loads(settings).get("measures", [])
    types = dict.fromkeys((*NUMBERS, *measures), pa.float64()) | {IN_TRAINING: pa.bool_()}
    fields = [(name, types.get(name, pa.string())) for name in columns(measures)]
    return pa.schema(fields, metadata={METADATA_KEY: settings.encode()})


def write_tables(rows: Sequence[Row], settings: str, folder: Path) -> list[Path]:
    """Write both tables; each is replaced whole or not at all.

    Args:
        rows: Rows, in order.
        settings: As in `schema`.
        folder: Where to.

    Returns:
        The two files.
    """
    return replace_tables(to_table(rows, settings), folder)


def to_table(rows: Sequence[Row], settings: str) -> pa.Table:
    """Rows as a table of `schema`; what a row lacks is null."""
    import pyarrow as pa

    form = schema(settings)
    return pa.table(
        {name: [as_text(row.get(name)) for row in rows] for name in form.names}, schema=form
    )


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


def as_text(value: Any) -> Any:
    """Show bytes in names of files that are not text as escapes."""
    if not isinstance(value, str):
        return value
    return os.fsencode(value).decode("utf-8", "backslashreplace")
