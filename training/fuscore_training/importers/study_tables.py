"""CSV files of a rating study -> checked triples: what both rater importers start with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fuscore_metric.errors import InputError
from fuscore_training.importers.import_report import ImportReport
from fuscore_training.importers.imported_images import StoredImage, check_sizes, inspect_image
from fuscore_training.ratings import PATH_COLUMNS, RatingsError, expect_file, read_cells

ITEM = ["scene", "method"]
"""What names a triple in a study."""


def read_study(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV of text cells, stripped; column `row` is the row as a spreadsheet counts it.

    Args:
        path: The file.
        columns: Columns that must be there.

    Raises:
        RatingsError: The file is not a table, has no rows or lacks a column; the message lists
            what was there.
    """
    if path.suffix.lower() != ".csv" and not path.is_dir():
        raise RatingsError(f"{path}: expected suffix .csv, got {path.suffix!r}")
    expect_file(path, "table")
    cells = read_cells(path)
    frame = pd.DataFrame({str(name).strip(): cells[name].str.strip() for name in cells})
    if missing := [column for column in columns if column not in frame]:
        there = ", ".join(frame.columns) or "none"
        raise RatingsError(
            f"{path}: missing column {', '.join(map(repr, missing))}; there: {there}"
        )
    if frame.empty:
        raise RatingsError(f"{path}: the table has no rows")
    return frame.assign(row=frame.index + 2).reset_index(drop=True)


def expect_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Check an option.

    Raises:
        RatingsError: `value` is not among `allowed`.
    """
    if value not in allowed:
        raise RatingsError(f"Expected `{name}` in {', '.join(allowed)}, got {value!r}")


def check_triples_of(frame: pd.DataFrame, path: Path, report: ImportReport) -> pd.DataFrame:
    """Find each triple that a table names, and check its images.

    Args:
        frame: Columns `scene`, `method`, `ir`, `vis`, `fused`, `row` and perhaps `source_pair`;
            a triple may come in many rows.
        path: Where it was read: paths of images start in its folder.
        report: Lists the triples that cannot be used, at their first row.

    Returns:
        One row a usable triple, paths absolute.

    Raises:
        RatingsError: A triple, or a source pair, has other images in a later row.
    """
    kept = [*ITEM, *PATH_COLUMNS, *({"source_pair"} & set(frame))]
    pair = "source_pair" if "source_pair" in frame else "scene"
    for name in ("scene", "method"):
        if (empty := frame[name] == "").any():
            raise RatingsError(f"{path}: row {frame['row'][empty].iloc[0]}: empty {name!r}")
    _check_same(frame, ITEM, [*PATH_COLUMNS, *({"source_pair"} & set(frame))], path)
    _check_same(frame, [pair], ["ir", "vis"], path)
    different = frame.drop_duplicates(ITEM)
    triples, known = frame.loc[different.index], dict[tuple[str, str], StoredImage | InputError]()
    usable = []
    for triple in triples.astype(str).to_dict("records"):
        try:
            _check_triple({str(name): cell for name, cell in triple.items()}, path.parent, known)
            usable.append(True)
        except InputError as error:
            usable.append(False)
            where = {"table": path.name, "row": int(triple["row"])}
            report.skip("images cannot be used", str(error), **where)
    good = triples.loc[usable, kept].reset_index(drop=True)
    for column in PATH_COLUMNS:
        good[column] = [str((path.parent / one).absolute()) for one in good[column]]
    return good


def _check_same(frame: pd.DataFrame, keys: list[str], columns: list[str], path: Path) -> None:
    different = frame.drop_duplicates([*keys, *columns])
    again = different[different.duplicated(keys)]
    if not again.empty:
        row = again.iloc[0]
        what = ", ".join(f"{key} {row[key]!r}" for key in keys)
        names = " or ".join(map(repr, columns))
        raise RatingsError(
            f"{path}: row {row['row']}: {what} has another {names} in an earlier row"
        )


def _check_triple(
    triple: dict[str, str], folder: Path, known: dict[tuple[str, str], StoredImage | InputError]
) -> None:
    images = []
    for name in PATH_COLUMNS:
        key = name, triple[name]
        if key not in known:
            try:
                known[key] = inspect_image(folder / triple[name], name, hashed=False)
            except InputError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, InputError):
            raise found
        images.append(found)
    check_sizes(*images)
