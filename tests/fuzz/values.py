"""JSON and tables that are changed as such: values, kinds, names, depth; and bytes now and then."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tests.fuzz.harness import Havoc

BREAK = b"\n\x1e\n"
"""Between the files of one input."""

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**400,
    float("nan"),
    float("-inf"),
    "",
    " ",
    "NA",
    "007",
    "nan",
    "a\nb",
    "a\0b",
    "\ud800",
    "\u202egnp.exe",
    "..",
    "/",
    "../../x",
    "x" * 5000,
    "=1+1",
    [],
    {},
    [[]],
    [None],
    {"a": [1]},
    ["a", "b"],
)


def mutate_json(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change one place of a JSON text; of lines of JSON, one line."""
    if rng.random() < 0.15:
        return havoc(data)
    if b"\n{" in data.strip():
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        if rng.random() < 0.1:
            lines.insert(place, lines[rng.randrange(len(lines))])
        else:
            lines[place] = mutate_json(lines[place], rng, havoc)
        return b"\n".join(lines)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return havoc(data)
    if rng.random() < 0.01:
        depth = rng.choice((50, 3000))
        return b"[" * depth + json.dumps(content).encode() + b"]" * depth
    return json.dumps(_changed(content, rng, havoc), ensure_ascii=rng.random() < 0.7).encode(
        "utf-8", "surrogatepass"
    )


def _changed(value: Any, rng: random.Random, havoc: Havoc) -> Any:
    """Go down to a random place and change it."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        move = rng.random()
        if move < 0.7:
            value[key] = _changed(value[key], rng, havoc)
        elif move < 0.8:
            del value[key]
        elif isinstance(value, dict):
            name = rng.choice((*keys, "x", "", "format_version", "__class__"))
            value[_text(name, havoc) if rng.random() < 0.3 else name] = value[key]
        else:
            value.insert(key, value[rng.choice(keys)])
        return value
    if isinstance(value, str) and rng.random() < 0.5:
        return _text(value, havoc)
    if type(value) in (int, float) and abs(value) < 1e300 and rng.random() < 0.5:
        return value * rng.choice((-1, 0.5, 1000)) + rng.choice((0, 1, 0.1))
    return rng.choice(STRANGE)


def _text(value: str, havoc: Havoc) -> str:
    return havoc(value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def mutate_csv(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change a cell, a row or a column's name."""
    if rng.random() < 0.2:
        return havoc(data)
    rows = [line.split(b",") for line in data.split(b"\n")]
    row = rng.choice(rows)
    place = rng.randrange(len(row))
    move = rng.random()
    if move < 0.4:
        row[place] = havoc(row[place])
    elif move < 0.6:
        row[place] = _cell(rng.choice(STRANGE))
    elif move < 0.7:
        row[place] = rng.choice(rng.choice(rows))
    elif move < 0.8:
        del row[place]
    elif move < 0.9:
        rows.insert(rng.randrange(len(rows)), list(row))
    else:
        row.insert(place, b'"' if rng.random() < 0.3 else row[place])
    return b"\n".join(b",".join(row) for row in rows)


def _cell(value: Any) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


# No maps: pyarrow aborts while it makes one with a null in the place of an entry.
KINDS = {
    "": None,  # what pyarrow makes of the values
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "float16": pa.float16(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "null": pa.null(),
    "list": pa.list_(pa.string()),
    "struct": pa.struct([("a", pa.string())]),
    "decimal": pa.decimal128(20, 3),
    "date": pa.date32(),
    "timestamp": pa.timestamp("ns", "Europe/Berlin"),
    "duration": pa.duration("s"),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


def describe(rows: list[dict[str, Any]], settings: str | None = None) -> bytes:
    """Rows as JSON that `to_parquet` makes a file of, and `mutate_json` can change."""
    columns = [[name, "", [row.get(name) for row in rows]] for name in rows[0]]
    return json.dumps({"columns": columns, "settings": settings}).encode()


def to_parquet(description: bytes) -> bytes | None:
    """Make a Parquet file of what `describe` wrote, or None where that is no table any more."""
    try:
        content = json.loads(description)
        columns, settings = content["columns"], content["settings"]
        arrays = [_array(values, kind) for _, kind, values in columns]
        table = pa.Table.from_arrays(arrays, [str(name) for name, _, _ in columns])
        if settings is not None:
            table = table.replace_schema_metadata({b"fuscore": str(settings).encode()})
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        OverflowError,
        AttributeError,
        NotImplementedError,
        pa.ArrowException,
    ):
        return None
    return buffer.getvalue()


def _array(values: Any, kind: Any) -> pa.Array:
    wanted = KINDS.get(kind if isinstance(kind, str) else "")
    try:
        return pa.array(values, wanted)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.array(values).cast(wanted) if wanted is not None else pa.array(values)


def mutate_description(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change a table's description: often a column's kind."""
    try:
        content = json.loads(data)
        column = rng.choice(content["columns"])
        move = rng.random()
        if move < 0.25:
            column[1] = rng.choice(sorted(KINDS))
        elif move < 0.5:
            column[2] = [rng.choice(STRANGE)] * len(column[2])
        elif move < 0.6:
            content["columns"].append(list(column))
        elif move < 0.7:
            column[0] = rng.choice(content["columns"])[0]
        else:
            return mutate_json(data, rng, havoc)
        return json.dumps(content).encode()
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return havoc(data)
