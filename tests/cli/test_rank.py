"""`fuscore rank` as a user meets it: folders in, tables and a leaderboard out, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from fuscore_metric import score
from fuscore_metric.results.read import read_results
from fuscore_metric.runs.interrupts import Interrupts
from tests.helpers.tiny_model import tiny_fuscore

METHODS = ("good", "soft", "ours")
SCENES = 80
ROWS = SCENES * len(METHODS)
"""Many, so that a run takes seconds in which it can be stopped."""


@pytest.fixture
def scenes(tmp_path, make_data) -> Path:
    """ir/, vis/ and a folder a method; many scenes are links to few images."""
    made = make_data(tmp_path / "made", 1) / "VIFB"
    for number in range(SCENES):
        for place in ("ir", "vis", *METHODS):
            source = made / place if place in ("ir", "vis") else made / "fused" / "good"
            target = tmp_path / "data" / ("methods" if place in METHODS else "") / place
            target.mkdir(parents=True, exist_ok=True)
            os.link(source / "00.png", target / f"{number:03d}.png")
    return tmp_path / "data"


def command(scenes, weights, out, *options):
    folders = (scenes / "ir", scenes / "vis", scenes / "methods")
    named = zip(("--ir", "--vis", "--methods-root"), folders, strict=True)
    given = [part for pair in named for part in pair]
    return ["rank", *given, "--model", weights, "--out", out, *options]


def process(scenes, weights, out, *options):
    """The line that starts it in a process of its own."""
    line = [sys.executable, "-m", "fuscore_metric.cli", *command(scenes, weights, out, *options)]
    return list(map(str, line))


@pytest.fixture
def rank(run):
    return lambda *given: run(*command(*given))


def keep(scenes, count):
    """Leave the first scenes only."""
    for path in scenes.rglob("*.png"):
        if int(path.stem) >= count:
            path.unlink()


def test_folders_become_tables_and_a_leaderboard(rank, scenes, weights, tmp_path):
    keep(scenes, 6)
    (scenes / "methods" / "soft" / "005.png").unlink()
    cut = scenes / "methods" / "ours" / "004.png"
    content = cut.read_bytes()
    cut.unlink()  # the other scenes are links to the same file
    cut.write_bytes(content[: len(content) // 2])
    (scenes / "methods" / "@eaDir").mkdir()
    out = tmp_path / "out"
    done = rank(scenes, weights, out)
    assert done.status == 1
    assert "soft: no fused image of 1 scene: 005" in done.err
    assert "failed: 004, ours: " in done.err
    assert "methods/@eaDir" in done.err
    assert "1 of 17 triples have no score" in done.err
    assert all(method in done.out for method in METHODS)
    assert "no ratings" in done.out  # what these weights were trained on

    (row, *_) = pd.read_csv(out / "leaderboard.csv").itertuples()
    assert {"thermal_retention", "low", "statement"} <= set(row._fields)
    assert all((out / f"leaderboard.{end}").stat().st_size for end in ("json", "tex", "md"))

    found = read_results(str(out))
    assert found.settings["aspect"] == "all"
    table = pd.read_csv(out / "results.csv").set_index(["scene", "method"])
    assert len(table) == 17
    assert table["error"].notna().sum() == 1
    row = table.loc[1, "good"]
    from fuscore_metric import FuScore

    expected = score(row["ir"], row["vis"], row["fused"], model=FuScore.from_pretrained(weights))
    assert row["score"] == pytest.approx(expected.item(), abs=1e-5)
    assert {"thermal_retention", "texture_preservation", "artifacts", "sharpness"} <= set(table)


def test_strict_stops_before_anything_is_computed(rank, scenes, weights, tmp_path):
    (scenes / "vis" / "007.png").unlink()
    done = rank(scenes, weights, tmp_path / "out", "--strict")
    assert done.status == 2
    assert "ir: no vis image of 1 scene: 007" in done.err
    assert "--strict" in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def journal(out):
    path = out / "rows.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def kill_midway(line, out, number, rows=20):
    """Start a run and send it a signal when some rows are there; returns what it had written."""
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 90
        while len(journal(out)) < rows:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert len(journal(out)) < ROWS, "all was done before the signal came"
    return process.returncode, journal(out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_at_any_moment_it_goes_on(rank, scenes, weights, tmp_path, number):
    out = tmp_path / "out"
    line = process(scenes, weights, out, "--batch-size", 1)
    status, before = kill_midway(line, out, number)
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
        assert len(read_results(out).table) == len(before)  # readable as it is
    else:
        assert status == 130
        assert len(pd.read_csv(out / "results.csv")) == len(before)
    done = rank(scenes, weights, out, "--batch-size", 1)
    assert done.status == 0, done.err
    assert f"{len(before)} of {ROWS} triples are in" in done.err
    after = journal(out)
    assert after[: len(before)] == before  # nothing was computed again
    keys = Counter((row["scene"], row["method"]) for row in map(json.loads, after))
    assert len(keys) == ROWS
    assert set(keys.values()) == {1}
    assert len(pd.read_parquet(out / "results.parquet")) == ROWS


def test_another_aspect_or_model_does_not_go_on(rank, scenes, weights, tmp_path):
    keep(scenes, 3)
    out = tmp_path / "out"
    assert rank(scenes, weights, out).status == 0
    before = journal(out)
    done = rank(scenes, weights, out, "--aspect", "sharpness")
    assert done.status == 2
    assert "aspect sharpness, was all" in done.err
    tiny_fuscore(tmp_path, seed=1).save_pretrained(tmp_path / "other")
    done = rank(scenes, tmp_path / "other", out)
    assert done.status == 2
    assert "weights_hash" in done.err
    assert journal(out) == before
    assert rank(scenes, tmp_path / "other", out, "--overwrite", "--format", "csv").status == 0
    assert len(journal(out)) == 9
    assert journal(out) != before


def test_a_method_can_be_added_and_compared_without_the_others(run, scenes, weights, tmp_path):
    keep(scenes, 3)
    out, line = tmp_path / "out", command(scenes, weights, tmp_path / "out", "--format", "json")
    place = line.index("--methods-root")
    for methods in (["good", "soft"], ["ours", "soft"]):
        folders = [scenes / "methods" / name for name in methods]
        line[place : place + 3 if "--methods" in line else place + 2] = ["--methods", *folders]
        done = run(*line)
        assert done.status == 0, done.err
        board = json.loads(done.out)
        assert {entry["method"] for entry in board["methods"]} == set(methods)
    assert len(journal(out)) == len(read_results(out).table) == 9


def test_measures_are_columns_of_the_leaderboard(rank, scenes, weights, tmp_path):
    keep(scenes, 2)
    out = tmp_path / "out"
    assert rank(scenes, weights, out, "--measures", "SD").status == 0
    before = journal(out)
    done = rank(scenes, weights, out, "--measures", "SF,SD", "--format", "markdown")
    assert done.status == 0, done.err
    assert "6 of 6 triples lack measures only" in done.err
    assert done.out.splitlines()[0].endswith("| SD ↑ | SF ↑ |")
    assert len(journal(out)) == 2 * len(before)
    table = pd.read_csv(out / "results.csv")
    board = pd.read_csv(out / "leaderboard.csv").set_index("method")
    for name in ("SD", "SF"):
        means = table.groupby("method")[name].mean()
        assert board[name].to_dict() == pytest.approx(means.to_dict())
    shown = rank(scenes, weights, out)  # asked for none, it shows those that are there
    assert "SD" in shown.out.splitlines()[0]
    assert "6 of 6 triples are in" in shown.err


@pytest.mark.real_data
def test_real_methods_in_a_believable_order(run, real_data, tmp_path):
    folder = (real_data / "VIFB").resolve()
    for method in ("SeAFusion", "MGFF", "CBF"):
        (tmp_path / "methods").mkdir(exist_ok=True)
        (tmp_path / "methods" / method).symlink_to(folder / "fused" / method)
    line = ["--ir", folder / "ir", "--vis", folder / "vis", "--methods-root", tmp_path / "methods"]
    out = ["--out", tmp_path / "out", "--format", "json"]
    done = run("rank", *line, *out)
    assert done.status == 0, done.err
    board = json.loads(done.out)
    assert board["methods"][-1]["method"] == "CBF"  # blotches all over
    table = read_results(tmp_path / "out").table
    assert len(table) == 63
    assert table["error"].isna().all()


def test_a_signal_waits_while_rows_are_written():
    interrupts, done = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.raised():  # noqa: PT012
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # Python's handlers run between two of its instructions
            done.append("written")
        done.append("never")
    assert done == ["written"]
    with pytest.raises(KeyboardInterrupt), Interrupts().raised():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
