"""Manifests and results tables of every kind, and run folders, or an `InputError`."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sys
import warnings
from collections.abc import Iterator

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

with instrumented(__name__, "json", "fuscore_metric.runs.manifest", "fuscore_metric.results"):
    from fuscore_metric.errors import InputError
    from fuscore_metric.results.read import read_results
    from fuscore_metric.results.rows import COLUMNS, NUMBERS
    from fuscore_metric.results.settings import RunSettings
    from fuscore_metric.runs.manifest import read_manifest

CSV, LINES, PARQUET, TABLE, RUN = b"c", b"j", b"p", b"t", b"r"
SUFFIX = {CSV: ".csv", LINES: ".jsonl", PARQUET: ".parquet", TABLE: ".parquet"}
MAX_WARNINGS = 20


def one(data: bytes) -> None:
    """Read a file as a manifest and as results, or a run folder.

    Raises:
        AssertionError: What is accepted is not of the promised form, or is told in many lines.
    """
    kind, content = data[:1], data[1:]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if kind == RUN:
            _results(_write_run(content))
        elif kind in SUFFIX:
            _one_file(kind, content)
    assert len(caught) <= MAX_WARNINGS, f"{len(caught)} warnings"


def _one_file(kind, content) -> None:
    if kind == TABLE:
        made = to_parquet(content)
        if made is None:
            return
        content = made
    path = folder() / f"table{SUFFIX[kind]}"
    path.write_bytes(content)
    entries = _read(lambda: read_manifest(path))
    if entries is not None:
        assert entries
        for entry in entries:
            values = (entry.scene, entry.method, entry.ir, entry.vis, entry.fused)
            assert all(isinstance(value, str) and value for value in values)
            assert all(value.startswith("/") for value in values[2:])
        assert len({entry.key for entry in entries}) == len(entries)
    if kind != LINES:
        _results(path)


def _write_run(content):
    path = folder() / "run"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    settings, _, rows = content.partition(BREAK)
    (path / "run.json").write_bytes(settings)
    (path / "rows.jsonl").write_bytes(rows)
    return path


def _results(path) -> None:
    found = _read(lambda: read_results(path))
    if found is None:
        return
    assert isinstance(found.settings, dict)
    table = found.table
    for name in ("scene", "method"):
        assert all(isinstance(value, str) for value in table[name])
    for name in set(NUMBERS) & set(table.columns):
        assert table[name].isna().all() or table[name].dtype.kind in "iuf"
    assert not table.duplicated(["scene", "method"]).any()


def _read(call):
    """What a call returns, or None if it says in one line what is wrong."""
    try:
        return call()
    except InputError as error:
        _check_message(str(error))
        return None


def _check_message(message: str) -> None:
    assert len(message.splitlines()) == 1, message
    assert len(message) < 20_000


def seeds() -> Iterator[bytes]:
    """Small manifests, results and runs."""
    rows = [
        {"ir": f"ir/{n // 2}.png", "vis": f"vis/{n // 2}.png", "fused": f"{'ab'[n % 2]}/{n}.png"}
        for n in range(4)
    ]
    named = [row | {"scene": f"0{n}", "method": "NA"} for n, row in enumerate(rows)]
    results = [dict.fromkeys(COLUMNS) | row | dict.fromkeys(NUMBERS, 0.5 + n)
               for n, row in enumerate(named)]  # fmt: skip
    results[1] |= dict.fromkeys(NUMBERS) | {"error": "a file is broken"}
    settings = RunSettings(
        "embedded", "w", "sha256:00", "lite_llama", "proxy", "l", 0.8, "all", "float32", "ir",
        "vis", "cpu", 8, command="fuscore", started="2026-01-01T00:00:00+00:00", versions={},
    )  # fmt: skip
    for content in (rows, named, results):
        yield CSV + pd.DataFrame(content).to_csv(index=False).encode()
        yield LINES + "".join(json.dumps(row) + "\n" for row in content).encode()
        yield TABLE + describe(content, settings.to_json())
    made = to_parquet(describe(named[:2]))
    assert made is not None
    yield PARQUET + made
    lines = "".join(json.dumps(row | {"stamp": [[1, 2], None, [3, 4]]}) + "\n" for row in results)
    yield RUN + settings.to_json().encode() + BREAK + lines.encode()


def mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Change a table as what it is; of a run, its settings or its rows."""
    kind, content = data[:1], data[1:]
    if kind == RUN:
        settings, _, rows = content.partition(BREAK)
        if rng.random() < 0.4:
            settings = mutate_json(settings, rng, havoc)
        else:
            rows = mutate_json(rows, rng, havoc)
        return kind + settings + BREAK + rows
    change = {CSV: mutate_csv, LINES: mutate_json, TABLE: mutate_description}.get(kind)
    return kind + (change(content, rng, havoc) if change else havoc(content))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of lines that were cut
    run(sys.modules[__name__])
