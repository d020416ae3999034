"""`fuscore compare` as a user runs it: two folders, or two methods of a table."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuscore_metric.leaderboard.comparison import compare
from fuscore_metric.results.read import read_results
from tests.test_leaderboard import results
from tests.tiny_model import tiny_fuscore

pytestmark = pytest.mark.slow


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuscore_metric.cli", "compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "COLUMNS": "80"} | environment,
    )


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


SCORED = ("m/ours", "m/theirs", "--ir", "ir", "--vis", "vis", "--weights", "weights")


def test_two_folders_are_scored_and_compared_and_not_scored_again(data):
    done = run(*SCORED, "--format", "json", cwd=data)
    assert done.returncode == 0, done.stderr
    assert "without a partner: theirs: no fused image of 1 scene: s3" in done.stderr
    read = json.loads(done.stdout)
    found = read_results(data / "fuscore-results")
    expected = compare(found.table, "ours", "theirs", temperature=found.settings["temperature"])
    assert read["difference"] == expected.difference
    assert [s["scene"] for s in read["scenes"]] == [s.scene for s in expected.scenes]
    assert read["settings"]["label_kind"] == "none"
    again = run(*SCORED, "--format", "json", cwd=data)
    assert "5 of 5 triples are in" in again.stderr
    assert again.stdout == done.stdout
    # The same from the run folder, and from its table, without images.
    for path in ("fuscore-results", "fuscore-results/results.parquet"):
        kept = run("ours", "theirs", "--results", path, "--format", "json", cwd=data)
        assert json.loads(kept.stdout) == read


def test_a_bad_file_is_status_1_and_the_rest_is_compared(data):
    (data / "m" / "theirs" / "s2.png").write_text("not an image")
    done = run(*SCORED, cwd=data)
    assert done.returncode == 1
    assert "failed: s2, theirs" in done.stderr
    assert "ours against theirs on 1 scene" in done.stdout
    (data / "m" / "theirs" / "s1.png").write_text("not an image")
    done = run(*SCORED, "--overwrite", cwd=data)
    assert done.returncode == 1
    assert "2 of 5 triples have no score" in done.stderr
    assert done.stdout == ""


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
def test_formats_list_as_many_scenes_as_asked_for(table, output_format, word):
    options = ("--results", "results.csv", "--format", output_format, "--limit", 4)
    done = run("LP_SR", "B", *options, cwd=table)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
    assert "26 more scenes not shown." in done.stdout
    assert "Weights and labels unknown" in done.stdout


def test_csv_has_every_scene(table):
    done = run("LP_SR", "B", "--results", "results.csv", "--format", "csv", cwd=table)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 30
    assert {(row["a"], row["b"]) for row in rows} == {("LP_SR", "B")}


def test_names_are_paired_by_a_rule(data):
    for path in (data / "m" / "ours").iterdir():
        path.rename(path.with_stem(f"{path.stem}_ours"))
    done = run(*SCORED, "--pair", r"(s\d)", "--format", "csv", cwd=data)
    assert len(done.stdout.splitlines()) == 3, done.stderr


def test_a_narrow_terminal(table):
    done = run("LP_SR", "B", "--results", "results.csv", cwd=table, COLUMNS="50", NO_COLOR="1")
    assert max(map(len, done.stdout.splitlines())) <= 50
    assert "\x1b" not in done.stdout


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
def test_bad_use_is_status_2(table, arguments, word):
    done = run(*arguments, cwd=table)
    assert done.returncode == 2, done.stdout
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_help_has_examples(table):
    done = run("--help", cwd=table)
    assert done.returncode == 0
    assert "Example: fuscore compare ours U2Fusion --results" in " ".join(done.stdout.split())
