"""Rows on disk: kept as they come, found again after a crash, refused beside other settings."""

import errno
import json
import os
from dataclasses import replace

import pandas as pd
import pytest
from pyarrow import parquet

from fuscore_metric import InputError
from fuscore_metric.results import run_folder
from fuscore_metric.results.parts import Bucket, begin_session, read_parts
from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import COLUMNS, LATER, NUMBERS, Entry, columns, error_row
from fuscore_metric.results.run_folder import JOURNAL_FILE, RunFolder
from fuscore_metric.results.settings import RunSettings

SETTINGS = RunSettings(
    *("embedded", "tiny", "sha256:0", "lite_llama", "none", "trained on no ratings"),
    temperature=0.5,
    aspect="all",
    dtype="float32",
    ir="/ir",
    vis="/vis",
    device="cpu",
    batch_size=8,
)


@pytest.fixture
def entries(tmp_path):
    for name in ("ir", "vis", "x", "y"):
        (tmp_path / name).write_text(name)
    sources = str(tmp_path / "ir"), str(tmp_path / "vis")
    return [Entry("s", name, *sources, str(tmp_path / name)) for name in ("x", "y")]


def row(entry, score=3.0):
    return error_row(entry, ValueError()) | {"error": None} | dict.fromkeys(NUMBERS, score)


def lines(folder):
    return (folder / JOURNAL_FILE).read_text().splitlines()


def test_rows_outlast_the_process(tmp_path, entries):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        assert folder.waiting(entries) == entries
        folder.append([row(entries[0])])
        assert len(lines(out)) == 1  # before anything is closed
    with RunFolder(out, SETTINGS) as folder:
        assert folder.waiting(entries) == entries[1:]
        assert folder.rows == [row(entries[0])]


def test_a_line_that_was_cut_is_computed_again(tmp_path, entries):
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([row(entry) for entry in entries])
    journal = tmp_path / "out" / JOURNAL_FILE
    journal.write_bytes(journal.read_bytes()[:-7])
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert folder.waiting(entries) == entries[1:]
        folder.append([row(entries[1], 4.0)])
        assert [r["score"] for r in folder.rows] == [3.0, 4.0]
    assert [json.loads(line)["method"] for line in lines(tmp_path / "out")] == ["x", "y"]


def test_a_damaged_line_is_left_out_with_a_warning(tmp_path, entries, caplog):
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([row(entry) for entry in entries])
    journal = tmp_path / "out" / JOURNAL_FILE
    journal.write_text("\0\0\0\n[1]\n" + journal.read_text())
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert not folder.waiting(entries)
    assert [r.getMessage()[:15] for r in caplog.records] == ["left out line 1", "left out line 2"]


def test_failed_rows_and_rows_of_changed_files_are_computed_again(tmp_path, entries):
    first, second = entries
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([error_row(first, ValueError("broken")), row(second)])
        assert folder.waiting(entries) == [first]
        folder.append([row(first)])
        assert not folder.waiting(entries)
        assert folder.waiting([replace(first, fused=second.fused)])
    (tmp_path / "y").write_text("another fusion")
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert folder.waiting(entries) == [second]
        assert len(folder.rows) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights_hash", "sha256:1"),
        ("prompt_version", 2),
        ("aspect", "sharpness"),
        ("dtype", "bfloat16"),
        ("package", "9.9"),
        ("ir", "/elsewhere"),
    ],
)
def test_other_settings_are_refused(tmp_path, entries, name, value):
    out, other = tmp_path / "out", replace(SETTINGS, **{name: value})
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[0])])
        folder.finish()
    with pytest.raises(InputError, match=f"{name} {value}, was {getattr(SETTINGS, name)}"):
        RunFolder(out, other).__enter__()
    assert len(lines(out)) == 1
    with RunFolder(out, other, overwrite=True) as folder:
        assert not folder.rows
        assert not list(out.glob("results.*"))  # a table of other settings would mislead
    with RunFolder(out, other) as folder:
        assert folder.waiting(entries) == entries


def test_device_batch_size_and_versions_may_change(tmp_path, entries):
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([row(entries[0])])
    other = replace(SETTINGS, device="cuda", batch_size=1, versions={}, started="", command="")
    with RunFolder(tmp_path / "out", other) as folder:
        assert len(folder.rows) == 1
        folder.finish()
    # Folder and table say the same: what it was begun with.
    for path in (tmp_path / "out", tmp_path / "out" / "results.parquet"):
        assert read_results(path).settings == json.loads(SETTINGS.to_json())


def measuring(*names, **how):
    given = {"measures_convention": "standard", "measures_colour": "luma"} | how
    return replace(SETTINGS, measures=list(names), **given)


def test_measures_are_added_to_rows_that_have_scores(tmp_path, entries):
    first, second = entries
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(first), error_row(second, ValueError("broken"))])
    with RunFolder(out, measuring("SD")) as folder:
        waiting = folder.waiting(entries)
        assert folder.scored(waiting) == {first.key: row(first)}
        assert waiting == entries
        folder.append([row(first) | {"SD": 1.5}])
    with RunFolder(out, measuring("SF")) as folder:
        assert list(folder.scored(folder.waiting(entries))) == [first.key]
        folder.append([row(first) | {"SD": 1.5, "SF": float("nan")}])
        assert folder.waiting(entries) == [second]  # NaN is an answer
        folder.finish()
    for other in (measuring("SD", measures_colour="channels"), measuring("AG", package="9.9")):
        with pytest.raises(InputError, match=r"measures_colour channels, was luma|package 9.9"):
            RunFolder(out, other).__enter__()
    with RunFolder(out, SETTINGS) as folder:  # asked for none, it keeps those that are there
        assert folder.waiting(entries) == [second]
    for path in (out, out / "results.parquet", out / "results.csv"):
        table = read_results(path).table
        assert list(table) == list(columns(["SD", "SF"]))
        assert table["SD"].tolist() == [1.5, pytest.approx(float("nan"), nan_ok=True)]
        assert table["SF"].isna().all()
    assert read_results(out).settings["measures"] == ["SD", "SF"]


def test_parts_take_measures_too(tmp_path, entries):
    def bucket(*names):
        return Bucket(tmp_path, 0, begin_session(tmp_path, 1).session, names)

    first = bucket()
    first.waiting(entries)
    first.add([row(entry) for entry in entries], SETTINGS.to_json())
    second = bucket("SD")
    waiting = second.waiting(entries)
    assert waiting == entries
    known = second.scored(waiting)
    settings = measuring("SD").to_json()
    second.add([known[entries[0].key] | {"SD": 2.5}], settings)
    assert second.waiting(entries) == entries[1:]
    table = read_parts(tmp_path, settings).to_pandas()
    assert list(table) == list(columns(["SD"]))
    assert table["score"].tolist() == [3.0, 3.0]
    assert table["SD"].tolist() == [2.5, pytest.approx(float("nan"), nan_ok=True)]


def test_one_process_writes_at_a_time(tmp_path):
    with (
        RunFolder(tmp_path / "out", SETTINGS),
        pytest.raises(InputError, match="Another process writes"),
    ):
        RunFolder(tmp_path / "out", SETTINGS).__enter__()
    with RunFolder(tmp_path / "out", SETTINGS):
        pass  # and the lock is free again


def test_a_file_that_changes_while_it_is_scored_is_scored_again(tmp_path, entries):
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert folder.waiting(entries) == entries
        (tmp_path / "x").write_text("another fusion")  # after it was read, say
        folder.append([row(entry) for entry in entries])
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert folder.waiting(entries) == entries[:1]


def test_the_same_holds_for_parts(tmp_path, entries):
    (tmp_path / "parts").mkdir()
    bucket = Bucket(tmp_path, 0, begin_session(tmp_path, 1).session)
    assert bucket.waiting(entries) == entries
    (tmp_path / "x").write_text("another fusion")
    bucket.add([row(entry) for entry in entries], "{}")
    again = Bucket(tmp_path, 0, begin_session(tmp_path, 1).session)
    assert again.waiting(entries) == entries[:1]


@pytest.mark.parametrize("name", ["results.csv", "rows.jsonl", "parts/00000"])
def test_results_of_nobody_knows_what_are_removed_only_if_told(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(InputError, match=rf"got {name[:5]}.* without run\.json.* --overwrite"):
        RunFolder(tmp_path, SETTINGS).__enter__()
    assert path.read_text() == "precious"
    with RunFolder(tmp_path, SETTINGS, overwrite=True) as folder:
        assert not folder.rows
    assert not path.exists() or name == JOURNAL_FILE


def test_what_cannot_be_removed_is_named(tmp_path, entries, monkeypatch):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[0])])

    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(type(out), "unlink", refuse)
        with pytest.raises(InputError, match=r"Read-only file system\. .*give another folder"):
            RunFolder(out, SETTINGS, overwrite=True).__enter__()
    assert len(lines(out)) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Cannot write .*file"):
        RunFolder(tmp_path / "file", SETTINGS).__enter__()


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, entries, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([row(entries[0])])
        monkeypatch.setattr(run_folder.os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left on device\. .* same command goes on"):
            folder.append([row(entries[1])])
        assert len(folder.rows) == 1
    monkeypatch.undo()
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert row(entries[0]) in folder.rows


class FillsUp:
    """A file on a disk that takes a part of what is written, then nothing."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        taken, self.room = content[: self.room], 0
        return self.file.write(taken)


def test_a_disk_that_fills_up_in_a_line_leaves_whole_lines(tmp_path, entries):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[0])])
        before, journal = (out / JOURNAL_FILE).read_bytes(), folder._journal
        folder._journal = FillsUp(journal, room=50)
        with pytest.raises(InputError, match=r"No space left on device\. .*make room there"):
            folder.append([row(entries[1])])
        assert (out / JOURNAL_FILE).read_bytes() == before
        folder._journal = journal  # room was made
        folder.append([row(entries[1])])
    assert len(read_results(out).table) == 2


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, entries, monkeypatch):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[0])])
        folder.finish()
        folder.append([row(entries[1])])

        def full(_, path):
            path.write_text("a part")
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(parquet, "write_table", full)
        with pytest.raises(InputError, match="make room there"):
            folder.finish()
    assert len(read_results(out / "results.parquet").table) == 1
    assert not list(out.glob(".*.new"))


def test_the_tables_hold_every_row_and_the_settings(tmp_path, entries):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[1]), error_row(entries[0], ValueError("of\ntwo lines"))])
        assert {path.name for path in folder.finish()} == {"results.csv", "results.parquet"}
    table = parquet.read_table(out / "results.parquet")
    assert table.column_names == list(COLUMNS)
    assert json.loads(table.schema.metadata[b"fuscore"])["weights_hash"] == "sha256:0"
    assert table.column("method").to_pylist() == ["x", "y"]  # sorted
    assert table.column("score").to_pylist() == [None, 3.0]
    assert table.column("error").to_pylist() == ["of two lines", None]
    assert not [path for path in out.iterdir() if path.suffix == ".new"]


def test_every_form_of_a_table_reads_alike(tmp_path, entries):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[1]), error_row(entries[0], ValueError("broken"))])
        folder.finish()
    whole = read_results(out / "results.parquet")
    assert whole.settings == json.loads(SETTINGS.to_json())
    for path in (out, out / "results.csv"):
        found = read_results(path)
        pd.testing.assert_frame_equal(found.table, whole.table, check_dtype=False)
    assert read_results(out).settings == whole.settings
    assert read_results(out / "results.csv").settings == {}


def test_rows_of_before_a_column_was_there_are_read(tmp_path, entries):
    out = tmp_path / "out"
    with RunFolder(out, SETTINGS) as folder:
        folder.append([row(entries[0])])
    old = json.loads((out / JOURNAL_FILE).read_text())
    for name in LATER:
        del old[name]
    (out / JOURNAL_FILE).write_text(json.dumps(old) + "\n")
    with RunFolder(out, SETTINGS) as folder:
        assert folder.rows == [row(entries[0])]
    begin_session(out, 1)
    part = Bucket(out, 0, 1).add([row(entries[0])], SETTINGS.to_json())
    parquet.write_table(parquet.read_table(part, partitioning=None).drop(list(LATER)), part)
    table = read_results(out).table
    assert list(table) == list(COLUMNS)
    assert table[list(LATER)].isna().all().all()


def test_names_that_are_no_text_are_shown_as_escapes(tmp_path):
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9.png")
    entry = Entry(
        os.fsdecode(b"caf\xe9"), "NA", path, path, path
    )  # a name pandas takes for nothing
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        folder.append([row(entry)])
        folder.finish()
    with RunFolder(tmp_path / "out", SETTINGS) as folder:
        assert not folder.waiting([entry])
    for file in ("results.csv", "results.parquet"):
        found = read_results(tmp_path / "out" / file).table
        assert found.loc[0, "scene"] == "caf\\xe9"
        assert found.loc[0, "method"] == "NA"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "scene,method\nx,y\n", "without score, std"),
        ("a.csv", "scene,method,score,std\n", "empty table"),
        ("a.csv", "scene,method,score,std\nx,y,1,1\nx,y,2,1\n", "x, y twice"),
        ("a.csv", "scene,method,score,std\nx,y,high,1\n", "Cannot read"),
        ("a.parquet", "no parquet", "Cannot read"),
        ("missing", None, "not there"),
        (".", None, "Expected a run folder or Parquet files"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_results(tmp_path / name)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 99}', "not json"])
def test_a_foreign_run_json_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="run's settings"):
        RunFolder(tmp_path, SETTINGS).__enter__()
