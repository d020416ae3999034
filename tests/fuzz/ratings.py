"""A ratings table, CSV or Parquet, and its `meta.json` -> `RatingsTable`, or a `RatingsError`."""

from __future__ import annotations

import json
import random
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd  # before what is instrumented

from tests.fuzz.harness import Havoc, folder, instrumented, run
from tests.fuzz.values import (
    BREAK,
    describe,
    mutate_csv,
    mutate_description,
    mutate_json,
    to_parquet,
)

with instrumented(__name__, "json", "fuscore_training.ratings"):
    from fuscore_training.ratings import (
        REQUIRED_COLUMNS,
        SCORE_COLUMNS,
        RatingsError,
        read_ratings,
        split_by_scene,
        write_ratings,
    )

CSV, PARQUET, TABLE = b"c", b"p", b"t"
MAX_WARNINGS = 20


def one(data: bytes) -> None:
    """Read a table; what is accepted must be the same after it was written and read again.

    Raises:
        AssertionError: It is not, or there is a flood of warnings.
    """
    sidecar, _, table = data[1:].partition(BREAK)
    kind = data[:1]
    if kind == TABLE:
        made = to_parquet(table)
        if made is None:
            return
        table = made
    suffix = "csv" if kind == CSV else "parquet"
    path = folder() / f"ratings.{suffix}"
    path.write_bytes(table)
    path.with_name("ratings.meta.json").write_bytes(sidecar)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read_ratings(path, check_files=False)
            split_by_scene(found)
            _check_round(found, suffix)
        except RatingsError:
            pass
    assert len(caught) <= MAX_WARNINGS, f"{len(caught)} warnings"


def _check_round(found, suffix) -> None:
    again = folder() / "again" / f"ratings.{suffix}"
    columns = [name for name in (*REQUIRED_COLUMNS, "sigma") if name in found.frame]
    write_ratings(replace(found, frame=found.frame[columns]), again)  # pandas cannot write all
    columns = ["scene", "method", "overall"]
    pd.testing.assert_frame_equal(
        read_ratings(again, check_files=False).frame[columns], found.frame[columns]
    )


def seeds() -> Iterator[bytes]:
    """Small tables of all kinds."""
    meta = json.dumps({"label_kind": "human", "description": "some"}).encode()
    rows = [
        {"scene": f"0{n // 2}", "method": "ab"[n % 2], "ir": f"ir/{n // 2}.png"}
        | {"vis": f"vis/{n // 2}.png", "fused": f"f/{n}.png"}
        | dict.fromkeys(SCORE_COLUMNS, 1.5 + n / 4)
        for n in range(8)
    ]
    split = [row | {"split": ("train", "val", "test")[n % 3]} for n, row in enumerate(rows[::2])]
    others = [row | {"other_scene": "00", "source_pair": row["scene"] + "x"} for row in rows]
    plain = [{name: value for name, value in row.items() if name not in SCORE_COLUMNS[1:]}
             | {"sigma": 0.3} for row in rows]  # fmt: skip
    for content in (rows, split, others, plain):
        csv = pd.DataFrame(content).to_csv(index=False).encode()
        yield CSV + meta + BREAK + csv
        yield TABLE + meta + BREAK + describe(content)
    yield PARQUET + meta + BREAK + pd.DataFrame(rows[:2]).to_parquet(index=False)


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change the table, or now and then its sidecar."""
    sidecar, _, table = data[1:].partition(BREAK)
    kind = data[:1]
    if rng.random() < 0.15:
        return kind + mutate_json(sidecar, rng, havoc) + BREAK + table
    change = {CSV: mutate_csv, TABLE: mutate_description}.get(kind)
    return kind + sidecar + BREAK + (change(table, rng, havoc) if change else havoc(table))


if __name__ == "__main__":
    run(sys.modules[__name__])
