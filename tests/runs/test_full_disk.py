"""A full disk, or one that may only be read: results stay readable, and a run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fuscore_metric import CheckpointError, FuScore, InputError, cli
from fuscore_metric.results.parts import Bucket, begin_session, read_parts
from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import Entry, error_row
from tests.helpers import ROOT
from tests.helpers.faults import forked, remount, tmpfs
from tests.helpers.hub_server import hub_fixture  # noqa: F401
from tests.helpers.runs import ROWS, command, goes_on, journal, one_line, triple_options


@pytest.mark.parametrize(
    "pages", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4))]
)
def test_a_full_disk(rank, tmp_path, pages):
    with tmpfs(tmp_path / "disk", "64k") as disk:
        out, ballast = disk / "out", disk / "ballast"
        ballast.write_bytes(bytes((16 - pages) * 4096))
        done = forked(rank(out))
        one_line(done, "No space left on device", "make room there", "the same command goes on")
        rows = journal(out)
        # A page for run.json, two for the rows, more for each table.
        least, most = {1: (0, 0), 2: (1, ROWS - 1), 3: (ROWS, ROWS), 4: (ROWS, ROWS)}[pages]
        assert least <= len(rows) <= most
        if rows:
            assert len(read_results(out).table) == len(rows)
        assert not list(out.glob(".*.new"))
        assert forked(rank(out)).status == 2  # still full
        assert journal(out) == rows
        if pages % 2:
            ballast.unlink()
        else:
            remount(disk, "size=1m")
        goes_on(rank(out), out, len(rows))


def test_a_full_disk_leaves_whole_parts(tmp_path):
    entries = [Entry(str(n), "x", "ir", "vis", "fused") for n in range(400)]
    rows = [error_row(entry, ValueError(os.urandom(100).hex())) for entry in entries]
    with tmpfs(tmp_path / "disk", "48k") as disk:
        plan = begin_session(disk, 1)
        bucket = Bucket(disk, 0, plan.session)
        bucket.add(rows[:3], "{}")
        with pytest.raises(InputError, match=r"No space left on device\. .* make room there"):
            bucket.add(rows[3:], "{}")
        assert read_parts(disk)["scene"].to_pylist() == ["0", "1", "2"]
        assert [path.suffix for path in disk.rglob("*") if path.is_file()].count(".new") == 0
        remount(disk, "size=1m")
        bucket.add(rows[3:], "{}")
        assert read_parts(disk).num_rows == 400


def test_a_full_disk_under_a_picture(images, weights, tmp_path):
    with tmpfs(tmp_path / "disk", "16k") as disk:
        (disk / "ballast").write_bytes(bytes(16 * 1024))
        done = forked(
            command("explain", *triple_options(images, weights), "--out", disk / "map.png")
        )
        one_line(done, "Cannot write `out`", "No space left on device")
        assert not (disk / "map.png").exists()


@pytest.mark.slow
def test_a_full_disk_under_a_report(rank, tmp_path):
    out = tmp_path / "out"
    assert forked(rank(out)).status == 0
    with tmpfs(tmp_path / "disk", "64k") as disk:
        page = disk / "report.html"
        page.write_text("an earlier one")
        (disk / "ballast").write_bytes(bytes(48 * 1024))
        options = ["--scenes", 0, "--no-attribution"]
        done = forked(command("report", out, "-o", page, *options))
        assert done.status == 2
        assert "No space left on device" in " ".join(done.err.split())
        assert page.read_text() == "an earlier one"
        assert {path.name for path in disk.iterdir()} == {"report.html", "ballast"}
        remount(disk, "size=148k")  # for the page, not for all figures
        done = forked(command("report", out, "-o", page, *options, "--figures", disk / "figures"))
        one_line(done, "No space left on device")
        remount(disk, "size=1m")
        done = forked(command("report", out, "-o", page, *options))
        assert done.status == 0, done.err
        assert page.read_text().startswith("<!doctype html>")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    "given",
    [
        "rank",
        "score --json",
        *(pytest.param(line, marks=pytest.mark.slow) for line in ("rank --format json", "score")),
    ],
)
def test_an_output_that_cannot_be_written(rank, images, weights, tmp_path, given):
    name, *options = given.split()
    if name == "rank":
        run = rank(tmp_path / "out", *options)
    else:
        run = command("score", *triple_options(images, weights), *options)
    done = forked(run, stdout=Path("/dev/full"))
    one_line(done, "No space left on device")
    if name == "rank":  # what was computed is there
        goes_on(rank(tmp_path / "out"), tmp_path / "out", ROWS)


def test_a_folder_of_results_that_may_only_be_read(rank, tmp_path):
    with tmpfs(tmp_path / "disk", "1m") as disk:
        assert forked(rank(disk / "out")).status == 0
        table = read_results(disk / "out").table
        remount(disk, "ro")
        for out in (disk / "out", disk / "new"):
            words = "Read-only file system", "give another folder as --out"
            one_line(forked(rank(out)), *words)
            one_line(forked(rank(out, "--overwrite")), *words)
        pd.testing.assert_frame_equal(read_results(disk / "out").table, table)
        done = forked(command("compare", "a", "b", "--results", disk / "out"))
        assert done.status == 0, done.err
        remount(disk, "rw")
        goes_on(rank(disk / "out"), disk / "out", ROWS)


@pytest.mark.slow
def test_a_score_writes_nothing(images, tmp_path):
    # In a mount namespace of its own, where nothing can be written but temporary files: torch
    # wants a folder for them when it is imported.
    script = f"""
mount --rbind / / && mount -o remount,bind,ro / && mount -t tmpfs none {tmp_path} &&
! touch /var/tmp/x && "$@" && test -z "$(find {tmp_path} -type f)"
"""
    shell = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    example = Path(cli.__file__).parents[1] / "assets" / "example"
    files = {"ir": "ir.png", "vis": "vis.png", "fused": "fused_good.png"}
    named = [part for name, file in files.items() for part in (f"--{name}", example / file)]
    line = [*shell, sys.executable, "-m", "fuscore_metric.cli", "score", *named, "--json"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": "/nonexistent",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [str(part) for part in line], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= json.loads(done.stdout)["results"][0]["score"] <= 5


def test_a_cache_of_the_hub_that_may_only_be_read(hub, weights, tmp_path):
    home = tmp_path / "hf_home"
    with tmpfs(home, "4m"):
        hub.put("owner/tiny", weights)
        expected = FuScore.from_pretrained("owner/tiny").spec
        remount(home, "ro")
        assert FuScore.from_pretrained("owner/tiny").spec == expected
        assert FuScore.from_pretrained("owner/tiny", local_files_only=True).spec == expected
        hub.put("owner/other", weights)
        with pytest.raises(CheckpointError, match="Read-only file system") as caught:
            FuScore.from_pretrained("owner/other")
        assert str(home) in str(caught.value)
