"""A manifest, a file with one triple per row -> the triples of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.errors import InputError
from fuscore_metric.optional import require
from fuscore_metric.results.rows import FILES, NAMES, Entry
from fuscore_metric.runs.parquet_files import check_rows

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (*NAMES, *FILES)
CSV, PARQUET, JSON_LINES = "csv", "parquet", "json"
KINDS = {".csv": CSV, ".tsv": CSV, ".parquet": PARQUET, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
SHOWN_ROWS = 5
SHOWN_COLUMNS = 20
_LONGEST_HEADER = 2**16

STEM = r"(?P<name>[^/]+?)(?:\.[^./]+)?$"
PARENT = r"(?P<name>[^/]+)/+[^/]+$"


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """Read the triples of a manifest.

    Its columns are `ir`, `vis`, `fused` and, if wanted, `scene` (else the name of `ir` without
    extension) and `method` (else the name of the folder of `fused`), in any case; others are left
    alone. Paths that are not absolute start at the manifest's folder; `~` is expanded. Backslashes
    separate folders, unless a file has them in its name.

    Args:
        path: CSV with commas, semicolons or tabs, Parquet, a folder of Parquet files, or JSON
            lines.

    Returns:
        Entries, sorted: all of one source pair come one after another.

    Raises:
        InputError: It cannot be read, is empty, or rows, which are named, are not such triples or
            have the scene and method of another.
        MissingPackageError: pyarrow is missing.
    """
    table = read_table(Path(os.path.expanduser(path)))
    return [Entry(*row) for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]


def read_table(path: Path) -> pa.Table:
    """Read a manifest as `read_manifest` does, into columns `COLUMNS` of text."""
    require("Reading a manifest", "pyarrow", install="fuscore-metric[report]")
    import pyarrow as pa

    what = kind(path)
    try:
        table = _read(path, what)
        table.validate(full=True)  # Parquet's text may be none
    except InputError:
        raise
    # ValueError: text that is not UTF-8, in a column's name as well.
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    if not table.num_rows:
        raise InputError(f"Expected triples in the manifest {str(path)!r}, got no rows")
    given, table = table, complete(table, path)
    if "method" not in _columns_given(_renamed(given)):
        _check_layout(table, path)
    _check_unique(table, path)
    order = [(name, "ascending") for name in ("ir", "vis", "scene", "method")]
    return table.sort_by(order)


def kind(path: Path) -> str:
    """Tell how a manifest is written: `CSV`, `PARQUET` or `JSON_LINES`.

    Raises:
        InputError: It is not there, or is written in another way.
    """
    if not path.exists():
        raise InputError(f"Expected a manifest, got {str(path)!r}: not there")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"Expected a manifest, got {str(path)!r}: a pipe or device, not a file")
    found = PARQUET if path.is_dir() else KINDS.get(path.suffix.lower())
    if found is None:
        raise InputError(f"Expected a manifest named {', '.join(KINDS)}, got {str(path)!r}")
    return found


def unreadable(path: Path, error: Exception) -> InputError:
    """Make the error of a file whose content does not fit its name."""
    reason = " ".join(str(error).split())
    return InputError(f"Cannot read the manifest {str(path)!r}: {reason}")


def csv_options(path: Path) -> dict[str, Any]:
    """Options by which pyarrow reads a CSV file: what separates, and which columns are text.

    All of ours are: the scene "007" is not a number.
    """
    import pyarrow as pa
    from pyarrow import csv

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(_LONGEST_HEADER).rstrip("\n")
    separator = max(",;\t", key=header.count)
    names = [name.strip('"') for name in header.split(separator)]
    types = {name: pa.string() for name in names if _ours(name) in COLUMNS}
    return {
        "parse_options": csv.ParseOptions(delimiter=separator),
        "convert_options": csv.ConvertOptions(column_types=types),
    }


def json_schema(spelled: Mapping[str, str] | None = None) -> pa.Schema:
    """Columns of JSON lines: text, null where there is none; named as `spelled`, or as ours."""
    import pyarrow as pa

    return pa.schema([((spelled or {}).get(name, name), pa.string()) for name in COLUMNS])


def json_options(path: Path) -> Any:
    """Text is text: pyarrow would read dates. Only for files that `json_rows` has read before."""
    from pyarrow import json as arrow

    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"{}")
    return arrow.ParseOptions(explicit_schema=json_schema({_ours(n): n for n in json.loads(first)}))


def json_rows(path: Path) -> Iterator[dict[str, str | None]]:
    """Read and check JSON lines, one after another.

    pyarrow (26.0) is not used, because a line that is not an object ends the process.

    Yields:
        The values of `COLUMNS` of each line, None where there is none. Empty lines are left out.

    Raises:
        InputError: A line is not an object, or a value is not text.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise unreadable(path, ValueError(f"line {number}: {error}")) from error
            if not isinstance(row, dict):
                raise unreadable(path, ValueError(f"line {number}: not an object"))
            row = {_ours(name): value for name, value in row.items()}
            values = {name: row.get(name) for name in COLUMNS}
            for name, value in values.items():
                if value is not None and not isinstance(value, str):
                    got = type(value).__name__
                    raise InputError(
                        f"Expected text as `{name}` in the manifest {str(path)!r}, got {got} in "
                        f"line {number}"
                    )
            yield values


def complete(table: pa.Table, path: Path) -> pa.Table:
    """Check rows of a manifest one by one; fill in what may be left out.

    Args:
        table: Rows as they were read.
        path: The manifest, to begin relative paths at and to name in errors.

    Returns:
        The same rows, columns `COLUMNS` of text, without nulls; paths absolute.

    Raises:
        InputError: Columns are missing or no text, or rows have nothing there.
    """
    import pyarrow as pa

    table = _renamed(table)
    if missing := [name for name in FILES if name not in table.column_names]:
        raise InputError(
            f"Expected columns {', '.join(FILES)} in the manifest {str(path)!r}, without "
            f"{', '.join(missing)}: it has {_shown(table.column_names) or 'none'}"
        )
    if twice := [name for name in COLUMNS if table.column_names.count(name) > 1]:
        raise InputError(
            f"Expected a column once in the manifest {str(path)!r}, got {', '.join(twice)} twice"
        )
    given = {name: _texts(table[name], name, path) for name in _columns_given(table)}
    root = path.absolute() if path.is_dir() else path.absolute().parent
    columns = {name: _absolute(_at_home(_with_slashes(given[name], root)), root) for name in FILES}
    columns["scene"] = given.get("scene", _part(columns["ir"], STEM))
    columns["method"] = given.get("method", _part(columns["fused"], PARENT))
    _check_derived(columns, path)
    return pa.table({name: columns[name] for name in COLUMNS})


def _renamed(table: pa.Table) -> pa.Table:
    """The table with our columns in our case."""
    return table.rename_columns([_ours(name) for name in table.column_names])


def _ours(name: str) -> str:
    """The column that a name stands for, in whatever case; other names as they are."""
    plain = name.strip().lower()
    return plain if plain in COLUMNS else name


def _shown(names: Sequence[str]) -> str:
    """Names of columns for a message, which has one line whatever they hold."""
    shown = [name if name.isprintable() else repr(name) for name in names[:SHOWN_COLUMNS]]
    return ", ".join([*shown, *(["..."] if len(names) > SHOWN_COLUMNS else [])])


def _columns_given(table: pa.Table) -> list[str]:
    """Columns of ours; a name's column without a single value counts as left out."""
    present = [name for name in COLUMNS if name in table.column_names]
    return [name for name in present if name in FILES or table[name].null_count < table.num_rows]


def _read(path: Path, what: str) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    if what == CSV:
        # One thread: with more, errors do not name the row.
        options = csv.ReadOptions(use_threads=False)
        return csv.read_csv(path, read_options=options, **csv_options(path))
    if what == JSON_LINES:
        columns: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
        for row in json_rows(path):
            for name, value in row.items():
                columns[name].append(value)
        return pa.table(columns, schema=json_schema())
    check_rows(path)
    known = [name for name in parquet.ParquetDataset(path).schema.names if _ours(name) in COLUMNS]
    return parquet.read_table(path, columns=known)


def _texts(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """Check that a column is text, everywhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(
            f"Expected text as `{name}` in the manifest {str(path)!r}, got {column.type}"
        )
    column = column.cast(pa.string())
    empty = pc.fill_null(pc.equal(column, ""), True)
    _refuse(empty, f"Expected a text as `{name}` in every row of the manifest {str(path)!r}, none")
    return column


def _with_slashes(paths: pa.ChunkedArray, root: Path) -> pa.ChunkedArray:
    """Paths as Windows writes them, as they are here; a file may have backslashes in its name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring(paths, "\\")).as_py():
        return paths
    changed = [
        path if os.path.lexists(root / path) else path.replace("\\", "/")
        for path in paths.to_pylist()
    ]
    return pa.chunked_array([changed], pa.string())


def _at_home(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths with `~` expanded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.starts_with(paths, "~")).as_py():
        return paths
    return pa.chunked_array([list(map(os.path.expanduser, paths.to_pylist()))], pa.string())


def _absolute(paths: pa.ChunkedArray, root: Path) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    joined = pc.binary_join_element_wise(f"{str(root).rstrip('/')}/", paths, "")
    return pc.if_else(pc.starts_with(paths, "/"), paths, joined)


def _part(paths: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.struct_field(pc.extract_regex(paths, pattern), "name")


def _check_derived(columns: dict[str, pa.ChunkedArray], path: Path) -> None:
    """Refuse names that were to come from a path like "x/../fused.png"."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in NAMES:
        no_name = pc.is_in(columns[name], value_set=pa.array([".", "..", None], pa.string()))
        _refuse(
            no_name, f"Expected a column `{name}` in {str(path)!r}, as paths do not tell its value"
        )


def _refuse(bad: pa.ChunkedArray, sentence: str) -> None:
    """Raise a sentence with the numbers of rows, from 1, that it is about."""
    import pyarrow.compute as pc

    rows = pc.indices_nonzero(bad)
    if len(rows):
        raise InputError(f"{sentence} in {_numbers([row + 1 for row in _first(rows)], len(rows))}")


def _first(rows: Any) -> list[int]:
    return [int(row) for row in rows[:SHOWN_ROWS].to_pylist()]


def _numbers(rows: Sequence[int], count: int) -> str:
    more = f", ... ({count} rows)" if count > len(rows) else ""
    return f"row{'s' if count > 1 else ''} {', '.join(map(str, rows))}{more}"


def _check_layout(table: pa.Table, path: Path) -> None:
    """Refuse methods that were to come from folders, where each folder is that of one scene."""
    import pyarrow.compute as pc

    pairs = table.group_by("method").aggregate([("ir", "count_distinct")])["ir_count_distinct"]
    if len(pairs) < 2 or pc.max(pairs).as_py() > 1:
        return
    for scenes in (table["scene"], _part(table["ir"], PARENT)):
        if pc.all(pc.equal(table["method"], scenes)).as_py():
            raise InputError(
                f"Expected a column `method` in the manifest {str(path)!r}, as each folder of "
                f"`fused` is that of a scene, such as {table['method'][0].as_py()!r}"
            )


def _check_unique(table: pa.Table, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    numbered = table.append_column("row", pa.array(range(1, table.num_rows + 1), pa.int64()))
    counts = numbered.group_by(list(NAMES)).aggregate([("row", "count")])
    if counts.num_rows == table.num_rows:
        return
    again = counts.filter(pc.greater(counts["row_count"], 1)).slice(0, 1).to_pylist()[0]
    same = pc.and_(*(pc.equal(table[name], again[name]) for name in NAMES))
    rows = numbered.filter(same)["row"]
    raise InputError(
        f"Expected a scene and method once in the manifest {str(path)!r}, got scene "
        f"{again['scene']!r}, method {again['method']!r} in "
        f"{_numbers(_first(rows), len(rows))}; columns `scene` and `method` may tell them apart"
    )
