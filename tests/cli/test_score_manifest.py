"""`fuscore score-manifest` as a user runs it, mostly in this process."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import arguments
from tests.helpers.commands import fuscore


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ir", "x"], ["--ir"]),
        (["x.png"], ["x.png"]),
        (["--json"], ["--json"]),
        (["--engine", "abacus"], ["--engine", "local, ray"]),
        (["--actors", "2"], ["--actors", "--engine ray"]),
        (["--engine", "ray", "--actors", "0"], ["--actors"]),
        (["--gpus-per-actor", "0.5"], ["--gpus-per-actor", "--engine ray"]),
        (["--aspect", "beauty"], ["--aspect"]),
        (["--batch-size", "0"], ["--batch-size"]),
        ([], ["nothing.csv", "not there"]),
    ],
)
def test_options_that_do_not_go_with_a_manifest(run, tmp_path, options, words):
    status, out, err = run("score-manifest", "nothing.csv", "--out", tmp_path / "out", *options)
    assert (status, out) == (2, "")
    assert all(word in err for word in words), err
    assert not (tmp_path / "out").exists()


def test_the_old_name_of_the_command_for_manifests_still_works(run, files, manifest, tmp_path):
    options = ["--model", files["model"], "--out"]
    status, _, err = run("score", "--manifest", manifest, *options, tmp_path / "old")
    assert status == 1
    assert "is called fuscore score-manifest TABLE now" in err
    assert run("score", *options, tmp_path / "old", f"--manifest={manifest}")[0] == 1
    status, _, err = run("score-manifest", manifest, *options, tmp_path / "old")
    assert status == 1
    assert "2 of 3 triples are in" in err
    assert "is called" not in err


def test_a_missing_extra_is_named_before_anything_is_computed(run, monkeypatch, tmp_path):
    for package, option, extra in (
        ("pyarrow", (), "[report]"),
        ("ray", ("--engine", "ray"), "[ray]"),
    ):
        monkeypatch.setattr(
            "fuscore_metric.optional.installed", lambda name, gone=package: name != gone
        )
        status, _, err = run("score-manifest", tmp_path / "triples.csv", *option)
        assert status == 2
        assert f"needs {package}: pip install 'fuscore-metric{extra}'" in err
        assert len(err.splitlines()) == 1


@pytest.fixture
def manifest(files, tmp_path) -> Path:
    """Three methods of a scene; the third one's image is none."""
    path = tmp_path / "triples.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene", "method", "ir", "vis", "fused"])
        for method, fused in (("one", "fused"), ("two", "other"), ("three", "text")):
            writer.writerow(["s", method, files["ir"], files["vis"], files[fused]])
    return path


def results(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_a_manifest_becomes_a_run_folder_and_goes_on(run, files, manifest, tmp_path):
    given = ["score-manifest", manifest, "--model", files["model"], "--batch-size", 2]
    status, out, err = run(*given, "--out", tmp_path / "out")
    assert (status, out) == (1, "")
    assert f"3 rows in {tmp_path / 'out' / 'results.csv'}" in err
    assert "failed: s, three: " in err
    assert "1 of 3 triples have no score" in err
    rows = results(tmp_path / "out")
    assert rows["three"]["error"]
    _, alone, _ = run(*arguments(files), files["other"], "--json")
    for method, result in zip(("one", "two"), json.loads(alone)["results"], strict=True):
        assert float(rows[method]["score"]) == pytest.approx(result["score"], abs=1e-5)

    files["text"].rename(files["text"].with_suffix(".away"))
    files["text"].write_bytes(files["fused"].read_bytes())
    status, _, err = run(*given, "--out", tmp_path / "out")
    files["text"].with_suffix(".away").replace(files["text"])
    assert status == 0, err
    assert "2 of 3 triples are in" in err


def test_a_thermal_range_holds_for_files_and_for_a_run(run, files, tmp_path):
    degrees = np.linspace(-10, 50, 64 * 80, dtype=np.float32).reshape(64, 80)
    Image.fromarray(degrees).save(tmp_path / "ir.tiff")
    given = arguments(files, ir=tmp_path / "ir.tiff")
    assert "give `thermal_range`" in run(*given)[2]
    limits = ["--thermal-range", -5, 40]
    status, alone, err = run(*given, "--json", *limits)
    assert status == 0, err
    assert run(*given, "--thermal-range", 40, 5)[0] == 2
    assert run(*given, "--thermal-range", 0, "inf")[0] == 2

    with (tmp_path / "triples.csv").open("w") as file:
        file.write(f"ir,vis,fused\n{tmp_path / 'ir.tiff'},{files['vis']},{files['fused']}\n")
    given = ["score-manifest", tmp_path / "triples.csv", "--model", files["model"]]
    given += ["--out", tmp_path / "out"]
    assert run(*given, *limits)[0] == 0
    (row,) = results(tmp_path / "out").values()
    (expected,) = json.loads(alone)["results"]
    assert float(row["score"]) == pytest.approx(expected["score"], abs=1e-5)
    assert "1 of 1 triples are in" in run(*given, *limits)[2]
    status, _, err = run(*given, "--thermal-range", 0, 40)
    assert status == 2
    assert "thermal_range" in err


def test_measures_are_added_to_the_run_of_a_manifest(run, files, manifest, tmp_path):
    given = ["score-manifest", manifest, "--model", files["model"], "--out", tmp_path / "out"]
    run(*given)
    before = results(tmp_path / "out")
    status, _, err = run(*given, "--measures", "all")
    assert status == 1
    assert "2 of 3 triples lack measures only" in err
    rows = results(tmp_path / "out")
    for method, row in rows.items():
        assert before[method].items() <= row.items()
        assert bool(row["SD"]) == bool(row["score"])


@pytest.mark.slow
def test_ray_gives_the_rows_and_the_status_of_the_local_engine(run, files, manifest, tmp_path):
    given = ["score-manifest", manifest, "--model", files["model"]]
    assert run(*given, "--out", tmp_path / "local")[0] == 1
    done = fuscore(*given, "--out", tmp_path / "ray", "--engine", "ray", "--actors", 2)
    assert done.returncode == 1, done.stderr
    assert not done.stdout
    assert f"3 rows in {tmp_path / 'ray' / 'results.parquet'}" in done.stderr
    assert "failed: s, three: " in done.stderr
    assert "1 of 3 triples have no score" in done.stderr
    here, there = results(tmp_path / "local"), results(tmp_path / "ray")
    assert here.keys() == there.keys()
    for method, row in here.items():
        other = there[method]
        assert (row["error"], row["fused"]) == (other["error"], other["fused"])
        if not row["error"]:
            assert float(row["score"]) == pytest.approx(float(other["score"]), abs=1e-4)
