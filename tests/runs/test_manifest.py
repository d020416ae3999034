"""Manifests: CSV, Parquet and JSON lines say the same, and what is wrong is named by its row."""

import json
import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from fuscore_metric import InputError
from fuscore_metric.results.rows import Entry
from fuscore_metric.runs.manifest import read_manifest, read_table

ROWS = [
    {"ir": "ir/b.png", "vis": "vis/b.jpg", "fused": "out/ours/b.png"},
    {"ir": "ir/a.x.png", "vis": "vis/a.png", "fused": "/abs/U2/a.png"},
    {"ir": "ir/b.png", "vis": "vis/b.jpg", "fused": "/abs/U2/b.png"},
]
NAMED = [row | {"scene": f"00{n}", "method": "NA"} for n, row in enumerate(ROWS)]


def write(folder, rows, suffix):
    path = folder / f"m{suffix}"
    table = pa.Table.from_pylist(rows)
    if suffix == ".csv":
        csv.write_csv(table, path)
    elif suffix == ".parquet":
        parquet.write_table(table, path)
    elif suffix == "":
        path.mkdir()
        for n, row in enumerate(rows):
            parquet.write_table(pa.Table.from_pylist([row]), path / f"{n}.parquet")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=[".csv", ".parquet", ".jsonl", ".ndjson"])
def suffix(request):
    return request.param


def test_names_come_from_paths_where_none_are_given(tmp_path, suffix):
    root = str(tmp_path)
    a = f"{root}/ir/a.x.png", f"{root}/vis/a.png"
    b = f"{root}/ir/b.png", f"{root}/vis/b.jpg"
    assert read_manifest(write(tmp_path, ROWS, suffix)) == [
        Entry("a.x", "U2", *a, "/abs/U2/a.png"),
        Entry("b", "U2", *b, "/abs/U2/b.png"),
        Entry("b", "ours", *b, f"{root}/out/ours/b.png"),
    ]


def test_home_is_expanded(tmp_path, suffix, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    row = {"ir": "~/ir/a.png", "vis": "~\\vis\\a.png", "fused": "out/ours/~a.png"}
    (entry,) = read_manifest(write(tmp_path, [row], suffix))
    assert entry.ir == "/home/me/ir/a.png"
    assert entry.vis == "/home/me/vis/a.png"
    assert entry.fused == f"{tmp_path}/out/ours/~a.png"


def test_names_are_text_whatever_they_look_like(tmp_path, suffix):
    scenes = "007", "1e3", "2024-01-01"
    rows = [row | {"scene": scene} for row, scene in zip(NAMED, scenes, strict=True)]
    entries = read_manifest(write(tmp_path, rows, suffix))
    assert {entry.scene for entry in entries} == set(scenes)
    assert {entry.method for entry in entries} == {"NA"}


def test_relative_paths_start_at_the_manifest_not_here(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set", ROWS, ".csv")
    monkeypatch.chdir(tmp_path)
    entries = read_manifest(Path("set/m.csv"))
    assert entries[1].ir == str(tmp_path / "set" / "ir" / "b.png")


@pytest.mark.parametrize(("separator", "end"), [(";", ".csv"), ("\t", ".csv"), ("\t", ".tsv")])
def test_tables_of_other_programs_are_read(tmp_path, separator, end):
    lines = [separator.join(["\ufeffScene", '"IR"', "Vis", "FUSED", "method"])]
    lines += [separator.join((row["scene"], *list(row.values())[:3], "NA")) for row in NAMED]
    (tmp_path / f"m{end}").write_text("\r\n".join(lines), encoding="utf-8")
    assert read_manifest(str(tmp_path / f"m{end}")) == read_manifest(write(tmp_path, NAMED, ".csv"))


def test_columns_are_known_in_any_case(tmp_path, suffix):
    rows = [{name.upper(): value for name, value in row.items()} for row in NAMED]
    expected = read_manifest(write(tmp_path, NAMED, suffix))
    assert read_manifest(write(tmp_path, rows, suffix)) == expected


def test_backslashes_separate_folders_unless_a_file_has_them(tmp_path, suffix):
    (tmp_path / "a\\b.png").touch()
    rows = [{"ir": r"a\b.png", "vis": r"vis\b.png", "fused": r"out/ours\b.png"}]
    (entry,) = read_manifest(write(tmp_path, rows, suffix))
    assert entry.method == "ours"
    names = [r"a\b.png", "vis/b.png", "out/ours/b.png"]
    assert [entry.ir, entry.vis, entry.fused] == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.parametrize(
    "pattern",
    [("ir/{}.png", "vis/{}.png", "out/{}/ours.png"), ("{}/ir.png", "{}/vis.png", "{}/ours.png")],
)
def test_folders_of_scenes_are_no_methods(tmp_path, pattern):
    rows = [
        dict(zip(("ir", "vis", "fused"), (name.format(n) for name in pattern), strict=True))
        for n in range(3)
    ]
    with pytest.raises(InputError, match=r"column `method`.*of a scene"):
        read_manifest(write(tmp_path, rows, ".csv"))
    named = [row | {"scene": str(n), "method": "ours"} for n, row in enumerate(rows)]
    assert len(read_manifest(write(tmp_path, named, ".csv"))) == 3


def test_a_folder_of_parquet_files_is_one_manifest(tmp_path):
    entries = read_manifest(write(tmp_path, ROWS, ""))
    assert len(entries) == 3
    assert entries[0].ir == str(tmp_path / "m" / "ir" / "a.x.png")


def test_triples_of_a_source_pair_come_one_after_another(tmp_path):
    rows = [
        {"ir": f"ir/{n % 7}.png", "vis": f"vis/{n % 7}.png", "fused": f"{n // 7}/{n % 7}.png"}
        for n in range(70)
    ]
    random.Random(0).shuffle(rows)
    pairs = [(entry.ir, entry.vis) for entry in read_manifest(write(tmp_path, rows, ".csv"))]
    changes = sum(one != other for one, other in pairwise(pairs))
    assert changes == 6


def test_further_columns_and_kinds_of_text_do_no_harm(tmp_path):
    table = pa.Table.from_pylist([row | {"year": 2020} for row in NAMED])
    for n, name in enumerate(("method", "ir")):
        place = table.column_names.index(name)
        column = table[name].dictionary_encode() if n else table[name].cast(pa.large_string())
        table = table.set_column(place, name, column)
    parquet.write_table(table, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == read_manifest(write(tmp_path, NAMED, ".csv"))


def without(column):
    return [{name: value for name, value in row.items() if name != column} for row in ROWS]


def changed(number, **values):
    return [row | values if n == number else row for n, row in enumerate(NAMED)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("vis"), r"vis"),
        (changed(1, fused=""), r"`fused` in every row.* in row 2$"),
        (changed(2, scene=""), r"`scene` in every row.* in row 3$"),
        (changed(2, scene="000"), r"once in the manifest.*'000', method 'NA' in rows 1, 3"),
        ([*ROWS, ROWS[0]], r"scene 'b', method 'ours' in rows 1, 4; columns `scene` and `method`"),
        ([ROWS[0] | {"fused": "../b.png"}], r"column `method` .* in row 1$"),
    ],
)
def test_bad_rows_are_named(tmp_path, suffix, rows, message):
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(write(tmp_path, rows, suffix))
    assert "\n" not in str(caught.value)
    assert f"m{suffix}" in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_nulls_are_named(tmp_path, suffix):
    rows = [row | {"vis": None if n else "vis/a.png"} for n, row in enumerate(NAMED * 5)]
    with pytest.raises(InputError, match=r"`vis` .* in rows 2, 3, 4, 5, 6, \.\.\. \(14 rows\)$"):
        read_manifest(write(tmp_path, rows, suffix))


def test_numbers_are_no_names(tmp_path):
    rows = [row | {"scene": n} for n, row in enumerate(ROWS)]
    with pytest.raises(InputError, match=r"text as `scene` .* got int64"):
        read_manifest(write(tmp_path, rows, ".parquet"))
    with pytest.raises(InputError, match="scene"):
        read_manifest(write(tmp_path, rows, ".jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"ir,vis,fused\n", "no rows"),
        ("m.csv", b"", "Cannot read the manifest"),
        ("m.csv", b"ir,vis,fused\na,b\n", "Cannot read the manifest.*Row #2"),
        ("m.jsonl", b"\n", "no rows"),
        ("m.jsonl", b"null\n{}\n", "line 1: not an object"),
        ("m.jsonl", b"[" * 5000, "Cannot read the manifest"),
        ("m.csv", b"ir,vis,fused,ir\na,b,c,d\n", "a column once .* ir twice"),
        ("m.csv", b"ir,vis,fused,scene,Scene\na,b,c,d,e\n", "a column once .* scene twice"),
        ("m.csv", b"ir,vis,fused,\x80\na,b,c,d\n", "Cannot read the manifest"),
        ("m.jsonl", b'{"ir": \n', "Cannot read the manifest"),
        ("m.jsonl", b"\xff\xfe", "Cannot read the manifest"),
        ("m.parquet", b"PAR1", "Cannot read the manifest"),
        ("m.txt", b"ir,vis,fused\n", r"named \.csv"),
        ("m.csv", None, "not there"),
    ],
)
def test_files_that_are_no_manifest(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_no_manifest(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError):
        read_manifest(tmp_path / "m")
