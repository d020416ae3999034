"""Faults while many triples are scored: results stay readable, it is said what to do, it goes on.

Elsewhere: a worker that is killed in test_on_ray.py, a hub that is down in test_hub.py, kill -9 and
signals to whole commands in test_cli_rank.py and test_terminal.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats  # noqa: F401 - imported here, so that forked commands need not
import torch
from PIL import Image
from pyarrow import csv, parquet  # noqa: F401

from fuscore_metric import CheckpointError, FuScore, InputError, cli
from fuscore_metric.backbones.lite_llama import LiteLlama
from fuscore_metric.results.parts import Bucket, begin_session, read_parts
from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import Entry, error_row
from tests.faults import Lines, forked, remount, tmpfs, without_root
from tests.hub_server import hub_fixture  # noqa: F401
from tests.tiny_model import tiny_fuscore

METHODS, SCENES = ("a", "b"), 3
ROWS = len(METHODS) * SCENES


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny_fuscore(folder).save_pretrained(folder / "tiny")
    return folder / "tiny"


def write_images(folder, scenes, size):
    rng = np.random.default_rng(0)
    for place in ("ir", "vis", *(f"methods/{name}" for name in METHODS)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for scene in scenes:
            pixels = rng.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{scene}.png")


@pytest.fixture
def images(tmp_path) -> Path:
    write_images(tmp_path / "data", range(SCENES), (40, 48))
    return tmp_path / "data"


@pytest.fixture
def rank(images, weights):
    """`fuscore rank` with its run folder, one triple at a time."""

    def command(out, *options, **folders):
        line = ["fuscore", "rank", "--out", out, "--batch-size", 1]
        for name, place in (("ir", "ir"), ("vis", "vis"), ("methods-root", "methods")):
            line += [f"--{name}", folders.get(name, images / place)]
        given = [*line, "--weights", folders.get("weights", weights), *options]

        def run():
            sys.argv = [str(part) for part in given]
            cli.main()

        return run

    return command


def journal(out):
    """The rows in it: every line is whole."""
    path = out / "rows.jsonl"
    content = path.read_bytes() if path.exists() else b""
    assert content.endswith(b"\n") or not content
    return [json.loads(line) for line in content.splitlines()]


def one_line(done, *words):
    """What a command said that ended for a reason of the user's or the machine's."""
    last = done.err.splitlines()[-1]
    assert done.status == 2, done.err
    assert last.startswith("fuscore: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in last
    return last


def goes_on(run, out, known):
    """The same command again: what was known is not computed again, and all is there once."""
    before = journal(out)
    done = forked(run)
    assert done.status == 0, done.err
    if known:
        assert f"{known} of {ROWS} triples are in" in done.err
    after = journal(out)
    assert after[: len(before)] == before
    keys = Counter((row["scene"], row["method"]) for row in after if row["error"] is None)
    assert set(keys.values()) == {1}
    table = pd.read_csv(out / "results.csv")
    assert len(table) == len(keys) == ROWS
    assert table["error"].isna().all()
    assert len(pd.read_parquet(out / "results.parquet")) == ROWS
    assert not list(out.glob(".*.new"))


# A full disk


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


def fuscore(*arguments):
    def run():
        sys.argv = ["fuscore", *map(str, arguments)]
        cli.main()

    return run


def triple(images, weights):
    files = {"ir": images / "ir", "vis": images / "vis", "fused": images / "methods" / "a"}
    named = [part for name, folder in files.items() for part in (f"--{name}", folder / "0.png")]
    return [*named, "--weights", weights]


def test_a_full_disk_under_a_picture(images, weights, tmp_path):
    with tmpfs(tmp_path / "disk", "16k") as disk:
        (disk / "ballast").write_bytes(bytes(16 * 1024))
        done = forked(fuscore("explain", *triple(images, weights), "--out", disk / "map.png"))
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
        done = forked(fuscore("report", out, "-o", page, *options))
        assert done.status == 2
        assert "No space left on device" in " ".join(done.err.split())
        assert page.read_text() == "an earlier one"
        assert {path.name for path in disk.iterdir()} == {"report.html", "ballast"}
        remount(disk, "size=148k")  # for the page, not for all figures
        done = forked(fuscore("report", out, "-o", page, *options, "--figures", disk / "figures"))
        one_line(done, "No space left on device")
        remount(disk, "size=1m")
        done = forked(fuscore("report", out, "-o", page, *options))
        assert done.status == 0, done.err
        assert page.read_text().startswith("<!doctype html>")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    "command",
    [
        "rank",
        "score --json",
        *(pytest.param(line, marks=pytest.mark.slow) for line in ("rank --format json", "score")),
    ],
)
def test_an_output_that_cannot_be_written(rank, images, weights, tmp_path, command):
    name, *options = command.split()
    if name == "rank":
        run = rank(tmp_path / "out", *options)
    else:
        run = fuscore("score", *triple(images, weights), *options)
    done = forked(run, stdout=Path("/dev/full"))
    one_line(done, "No space left on device")
    if name == "rank":  # what was computed is there
        goes_on(rank(tmp_path / "out"), tmp_path / "out", ROWS)


# Nothing may be written


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
        done = forked(fuscore("compare", "a", "b", "--results", disk / "out"))
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
        "PYTHONPATH": str(Path(__file__).parents[1]),
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


# Nothing may be read


def test_a_folder_that_may_not_be_read(rank, images, tmp_path):
    for name in ("ir", "methods/a"):
        (images / name).chmod(0)
        done = forked(without_root(rank(tmp_path / "out")))
        assert done.status == 2
        # Of an option's own value the command line says it.
        words = {"ir": "is not readable"}.get(name, "Cannot read the folder of a, ")
        assert words in done.err.splitlines()[-1]
        assert str(images / name) in done.err.splitlines()[-1]
        (images / name).chmod(0o755)
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_a_row(rank, images, tmp_path):
    out, path = tmp_path / "out", images / "methods" / "a" / "1.png"
    path.chmod(0)
    done = forked(without_root(rank(out)))
    assert done.status == 1
    assert f"failed: 1, a: Expected `fused` as a readable image, got {str(path)!r}" in done.err
    assert [row["error"] is None for row in journal(out)].count(False) == 1
    assert len(journal(out)) == ROWS
    path.chmod(0o644)
    goes_on(rank(out), out, ROWS - 1)


def test_weights_that_may_not_be_read(rank, weights, tmp_path):
    for path in (weights, weights / "model.safetensors", weights / "fuscore.json"):
        mode = path.stat().st_mode
        path.chmod(0)
        try:
            one_line(forked(without_root(rank(tmp_path / "out"))), str(weights), "denied")
        finally:
            path.chmod(mode)


@pytest.mark.parametrize(
    "name", ["rows.jsonl", *(pytest.param(n, marks=pytest.mark.slow) for n in (".", "run.json"))]
)
def test_results_that_may_not_be_read_or_written(rank, tmp_path, name):
    out = tmp_path / "out"
    assert forked(rank(out)).status == 0
    before = journal(out)
    for mode in (0, 0o555 if name == "." else 0o444):
        (out / name).chmod(mode)
        done = forked(without_root(rank(out)))
        if name == "run.json" and mode:
            assert done.status == 0  # it is only read
        elif name == "." and not mode:
            assert done.status == 2
            assert done.err.endswith(f"{str(out)!r} is not readable.\n")
        else:
            one_line(done, "Permission denied")
        (out / name).chmod(0o755)
    assert journal(out) == before
    goes_on(rank(out), out, ROWS)


def test_tables_that_may_not_be_removed_stay(rank, tmp_path):
    with tmpfs(tmp_path / "disk", "1m") as disk:
        out = disk / "out"
        assert forked(rank(out)).status == 0
        out.chmod(0o555)
        (out / ".lock").chmod(0o666)
        one_line(forked(without_root(rank(out, "--overwrite"))), "Permission denied")
        out.chmod(0o755)
        goes_on(rank(out), out, ROWS)


# Not enough memory


@pytest.fixture
def little_memory(monkeypatch):
    """Enough for images of 40x48, not for those of 768x1024; the error is PyTorch's own.

    A limit of the process (`RLIMIT_AS`) was tried: how much fits below it depends on the versions
    of everything, and on what the process did before.
    """
    look = LiteLlama._statistics

    def looked(self, images, references=()):
        if images.shape[-1] > 500:
            torch.empty(1 << 60, dtype=torch.uint8)  # 1 EiB
        return look(self, images, references)

    monkeypatch.setattr(LiteLlama, "_statistics", looked)


def test_too_little_memory_for_one_scene(rank, images, tmp_path, little_memory, monkeypatch):
    write_images(images, [SCENES], (768, 1024))
    out = tmp_path / "out"
    options = ["--batch-size", 2]
    done = forked(rank(out, *options))
    assert done.status == 1, done.err
    assert "out of memory with 2 triples at once, going on with 1" in done.err
    rows = {(row["scene"], row["method"]): row for row in journal(out)}
    failed = [row for row in rows.values() if row["error"] is not None]
    assert {row["scene"] for row in failed} == {str(SCENES)}
    for row in failed:
        assert row["error"].startswith("out of memory with this triple alone; smaller images or")
    assert len(rows) == ROWS + len(METHODS)
    monkeypatch.undo()
    done = forked(rank(out, *options))
    assert done.status == 0, done.err
    assert f"{ROWS} of {ROWS + len(METHODS)} triples are in" in done.err
    assert read_results(out).table["error"].isna().all()


def test_too_little_memory_for_a_single_image(images, weights, little_memory):
    write_images(images, [0], (768, 1024))
    done = forked(fuscore("score", *triple(images, weights)))
    one_line(done, "out of memory with this triple alone; smaller images or more memory help")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: no")])
def test_too_little_memory_for_anything_else_is_one_line(rank, tmp_path, monkeypatch, error):
    def lacking(*_, **__):
        raise error

    monkeypatch.setattr(cli.rank, "show_leaderboard", lacking)
    one_line(forked(rank(tmp_path / "out")), "out of memory")
    monkeypatch.undo()
    goes_on(rank(tmp_path / "out"), tmp_path / "out", ROWS)


def test_our_own_mistakes_are_no_lack_of_memory():
    assert cli._message(RuntimeError("a bug")) is None


# A clock that is wrong


@pytest.mark.parametrize("years", [-200, pytest.param(70, marks=pytest.mark.slow)])
def test_a_clock_that_is_moved(rank, images, tmp_path, monkeypatch, years):
    out, now = tmp_path / "out", time.time()
    when = 0.0 if years < 0 else now + years * 365 * 86400
    files = sorted(images.rglob("*.png"))
    for path in files[::2]:  # some from before 1970, or of a time to come
        os.utime(path, (years * 1e7, years * 1e7) if years < 0 else (when, when))
    clock = iter(range(10**6))

    def moved():
        """Goes back by an hour at every look."""
        return when - 3600 * next(clock)

    monkeypatch.setattr(time, "time", moved)
    assert forked(rank(out)).status == 0
    assert all(0 <= row["seconds"] < 60 for row in journal(out))
    goes_on(rank(out), out, ROWS)
    monkeypatch.undo()
    goes_on(rank(out), out, ROWS)
    changed = images / "methods" / "a" / "0.png"
    before = changed.stat()
    os.utime(changed, ns=(0, before.st_mtime_ns - 1000))  # an older file in its place
    done = forked(rank(out))
    assert done.status == 0
    assert f"{ROWS - 1} of {ROWS} triples are in" in done.err


# Signals

LINES = Lines("backbones", "spec_fields", "strict_json", "stored_weights")


def assert_stopped_well(rank, folder, places, number):
    """Stop a run at each of some places of its course."""
    total = LINES.count(rank(folder / "whole"))
    expected = table_of(folder / "whole")
    statuses = Counter()
    for place in places(total):
        out = folder / f"{place}"
        done = forked(LINES.stopped(rank(out), place, number))
        statuses[done.status] += 1
        assert "Traceback" not in done.err, (place, done.err)
        rows = journal(out)
        if (out / "results.csv").exists():
            assert len(pd.read_csv(out / "results.csv")) <= len(rows)
        goes_on(rank(out), out, None)
        assert journal(out)[: len(rows)] == rows
        assert table_of(out) == expected
    return statuses


def table_of(out):
    rows = read_results(out).table.drop(columns="seconds").round(5)
    return rows.astype(object).where(rows.notna(), None).values.tolist()


def spread(count, first):
    """That many places, evenly over a run; others for another `first`."""
    return lambda total: [round(first + n * (total - first - 1) / count) for n in range(count)]


def test_ctrl_c_at_any_moment(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(2, 1500), signal.SIGINT)
    assert found == {130: 2}


@pytest.mark.slow
def test_ctrl_c_at_many_moments(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(30, 10), signal.SIGINT)
    assert found == {130: 30}


@pytest.mark.slow
def test_kill_at_many_moments(rank, tmp_path):
    found = assert_stopped_well(rank, tmp_path, spread(20, 50), signal.SIGTERM)
    # While rows are made as for Ctrl-C; before and after, the system's way.
    assert set(found) == {130, -signal.SIGTERM}
    assert sum(found.values()) == 20
