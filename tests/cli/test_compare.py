"""`fuscore compare` as a user runs it: two folders, or two methods of a table."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuscore_metric.leaderboard.comparison import compare
from fuscore_metric.results.read import read_results
from tests.helpers.results_tables import results
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture
def compared(run, monkeypatch):
    """Run `fuscore compare` in a folder."""

    def compared(*arguments: object, cwd: Path, columns: int = 80):
        monkeypatch.chdir(cwd)
        return run("compare", *arguments, columns=columns)

    return compared


@pytest.fixture
def data(tmp_path) -> Path:
    """Three scenes of sources and two methods, one of which lacks a scene, and tiny weights."""
    tiny_fuscore(tmp_path).save_pretrained(tmp_path / "weights")
    rng = np.random.default_rng(0)
    for place in ("ir", "vis", "m/ours", "m/theirs"):
        (tmp_path / place).mkdir(parents=True)
        for scene in ("s1", "s2", "s3"):
            pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{scene}.png")
    (tmp_path / "m" / "theirs" / "s3.png").unlink()
    return tmp_path


SCORED = ("m/ours", "m/theirs", "--ir", "ir", "--vis", "vis", "--model", "weights")


def test_two_folders_are_scored_and_compared_and_not_scored_again(compared, data):
    done = compared(*SCORED, "--format", "json", cwd=data)
    assert done.status == 0, done.err
    assert "without a partner: theirs: no fused image of 1 scene: s3" in done.err
    read = json.loads(done.out)
    found = read_results(data / "fuscore-results")
    expected = compare(found.table, "ours", "theirs", temperature=found.settings["temperature"])
    assert read["difference"] == expected.difference
    assert [s["scene"] for s in read["scenes"]] == [s.scene for s in expected.scenes]
    assert read["settings"]["label_kind"] == "none"
    again = compared(*SCORED, "--format", "json", cwd=data)
    assert "5 of 5 triples are in" in again.err
    assert again.out == done.out
    # The same from the run folder, and from its table, without images.
    for path in ("fuscore-results", "fuscore-results/results.parquet"):
        kept = compared("ours", "theirs", "--results", path, "--format", "json", cwd=data)
        assert json.loads(kept.out) == read


def test_a_bad_file_is_status_1_and_the_rest_is_compared(compared, data):
    (data / "m" / "theirs" / "s2.png").write_text("not an image")
    done = compared(*SCORED, cwd=data)
    assert done.status == 1
    assert "failed: s2, theirs" in done.err
    assert "ours against theirs on 1 scene" in done.out
    (data / "m" / "theirs" / "s1.png").write_text("not an image")
    done = compared(*SCORED, "--overwrite", cwd=data)
    assert done.status == 1
    assert "2 of 5 triples have no score" in done.err
    assert done.out == ""


@pytest.fixture
def table(tmp_path) -> Path:
    scores = np.random.default_rng(0).uniform(1, 5, (2, 30)).round(2)
    frame = results({"LP_SR": list(scores[0]), "B": list(scores[1])})
    frame.to_csv(tmp_path / "results.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("output_format", "word"),
    [("text", "LP_SR against B on 30 scenes"), ("markdown", r"LP\_SR"), ("latex", r"\toprule")],
)
def test_formats_list_as_many_scenes_as_asked_for(compared, table, output_format, word):
    options = ("--results", "results.csv", "--format", output_format, "--limit", 4)
    done = compared("LP_SR", "B", *options, cwd=table)
    assert done.status == 0, done.err
    assert word in done.out
    assert "26 more scenes not shown." in done.out
    assert "Weights and labels unknown" in done.out


def test_csv_has_every_scene(compared, table):
    done = compared("LP_SR", "B", "--results", "results.csv", "--format", "csv", cwd=table)
    rows = list(csv.DictReader(done.out.splitlines()))
    assert len(rows) == 30
    assert {(row["a"], row["b"]) for row in rows} == {("LP_SR", "B")}


def test_names_are_paired_by_a_rule(compared, data):
    for path in (data / "m" / "ours").iterdir():
        path.rename(path.with_stem(f"{path.stem}_ours"))
    done = compared(*SCORED, "--pair", r"(s\d)", "--format", "csv", cwd=data)
    assert len(done.out.splitlines()) == 3, done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("LP_SR",), "B"),
        (("LP_SR", "B"), "--results"),
        (("LP_SR", "B", "--ir", "ir"), "--ir and --vis"),
        (("LP_SR", "B", "--results", "results.csv", "--ir", "ir"), "--results"),
        (("LP_SR", "C", "--results", "results.csv"), "'C'"),
        (("B", "B", "--results", "results.csv"), "twice"),
        (("LP_SR", "B", "--results", "nothing.csv"), "nothing.csv"),
        (("LP_SR", "B", "--results", "results.csv", "--format", "xml"), "--format"),
        (("a", "a", "--ir", "ir", "--vis", "vis"), "twice"),
        (("a", "b", "--ir", "ir", "--vis", "vis"), "ir"),
    ],
)
def test_bad_use_is_status_2(compared, table, arguments, word):
    done = compared(*arguments, cwd=table)
    assert done.status == 2, done.out
    assert word in done.err
