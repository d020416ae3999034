"""A results table on disk -> a data frame and what it was made with."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.errors import InputError
from fuscore_metric.optional import require
from fuscore_metric.results.parts import read_parts
from fuscore_metric.results.rows import COLUMNS, IN_TRAINING, LATER, NAMES, NUMBERS
from fuscore_metric.results.run_folder import (
    PARTS_FOLDER,
    SETTINGS_FILE,
    read_journal,
    read_settings,
)
from fuscore_metric.results.tables import METADATA_KEY, to_table
from fuscore_metric.runs.parquet_files import check_rows

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Results:
    """A results table.

    Attributes:
        table: A row per triple, columns `fuscore_metric.results.rows.columns`; NaN or None where
            there is nothing.
        settings: What it was made with, as `RunSettings` names it; empty for a CSV file.
    """

    table: pandas.DataFrame
    settings: dict[str, Any]


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read a run folder, also of a run that was killed or still runs, or a table of one.

    Args:
        path: Run folder, Parquet file, folder of Parquet files, or CSV file.

    Raises:
        InputError: It is not there, or not a results table.
        MissingPackageError: pandas or pyarrow is missing.
    """
    path = Path(os.path.expanduser(path))
    require("Reading results", "pandas", "pyarrow", install="fuscore-metric[report]")
    if not path.exists():
        raise InputError(f"Expected a results table or run folder, got {str(path)!r}: not there")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"Expected a results table or run folder, got {str(path)!r}: a pipe")
    try:
        table, settings = _read(path)
        return Results(_checked(table, path), _checked_settings(settings, path))
    except (InputError, MemoryError):
        raise
    # For a file that is not a table, arrow, pandas and json raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"Cannot read results in {str(path)!r}: {reason}") from error


def _read(path: Path) -> tuple[pandas.DataFrame, dict[str, Any]]:
    import pandas as pd
    from pyarrow import parquet

    if path.is_dir() and (path / SETTINGS_FILE).exists():
        settings = read_settings(path)
        if not (path / PARTS_FOLDER).is_dir():
            rows = {(row["scene"], row["method"]): row for row in read_journal(path)}
            ordered = [rows[key] for key in sorted(rows)]
            return to_table(ordered, settings.to_json()).to_pandas(), asdict(settings)
        return read_parts(path, settings.to_json()).to_pandas(), asdict(settings)
    if path.is_file() and path.suffix.lower() == ".csv":
        from fuscore_metric.measures.catalogue import MEASURES

        numbers = (*NUMBERS, *MEASURES)
        types: dict[str, Any] = dict.fromkeys(COLUMNS, str) | dict.fromkeys(numbers, float)
        types[IN_TRAINING] = "boolean"
        # Only an empty field is nothing: a method may be called "NA".
        nothing = {name: [""] for name in (*LATER, "error")}
        nothing |= {name: ["", "nan"] for name in numbers}
        table = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=nothing)
        if IN_TRAINING in table:  # None for nothing, as in Parquet
            known = table[IN_TRAINING]
            table[IN_TRAINING] = known.astype(object).where(known.notna(), None)
        return table, {}
    if path.is_dir() and not any(path.rglob("*.parquet")):
        raise InputError(f"Expected a run folder or Parquet files in {str(path)!r}, none there")
    check_rows(path)
    table = parquet.read_table(path)
    stored = (table.schema.metadata or {}).get(METADATA_KEY, b"{}")
    return table.to_pandas(), json.loads(stored)


def _checked_settings(settings: Any, path: Path) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise InputError(f"Expected the settings in {str(path)!r} to be an object")
    return settings


def _checked(table: pandas.DataFrame, path: Path) -> pandas.DataFrame:
    if missing := [name for name in (*NAMES, "score", "std") if name not in table.columns]:
        raise InputError(
            f"Expected columns {', '.join(COLUMNS)} in {str(path)!r}, without {', '.join(missing)}"
        )
    if not table.columns.is_unique:
        raise InputError(f"Expected each column once in {str(path)!r}")
    for name in NAMES:
        if not table[name].map(lambda value: isinstance(value, str)).all():
            raise InputError(f"Expected text as `{name}` in {str(path)!r}")
    for name in set(NUMBERS) & set(table.columns):
        if table[name].notna().any() and table[name].dtype.kind not in "iuf":
            raise InputError(f"Expected numbers as `{name}` in {str(path)!r}")
    if not len(table):
        raise InputError(f"Expected results in {str(path)!r}, got an empty table")
    if (twice := table.duplicated(list(NAMES))).any():
        scene, method = table.loc[twice, list(NAMES)].iloc[0]
        names = ", ".join(name if name.isprintable() else repr(name) for name in (scene, method))
        raise InputError(f"Expected a scene and method once in {str(path)!r}, got {names} twice")
    return table
