"""The Ray engine on a cluster of two actors: whatever is killed, no row is lost or comes twice."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from shutil import rmtree

import pyarrow as pa
import pytest
from pyarrow import parquet

from fuscore_metric.results.read import read_results
from fuscore_metric.runs import on_ray
from tests.helpers import ROOT
from tests.helpers.runs import RAY_METHODS, make_triples, parts, raw_rows, run_on_ray


def many_links(folder, scenes=60):
    """A manifest of many triples of few images."""
    make_triples(folder, 1)
    rows = []
    for scene in range(1, scenes):
        for name in ("ir", "vis", *RAY_METHODS):
            os.link(folder / name / "00.png", folder / name / f"{scene:02}.png")
    for scene in range(scenes):
        files = {name: f"{name}/{scene:02}.png" for name in ("ir", "vis")}
        rows += [files | {"fused": f"{method}/{scene:02}.png"} for method in RAY_METHODS]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    return folder / "m.parquet"


def descendants(ancestor: int) -> dict[int, str]:
    """Command lines of the processes that a process started, and of those they started."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status, line = (
                    (entry / name).read_text(errors="replace") for name in ("stat", "cmdline")
                )
                names[int(entry.name)] = line.replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, parent = status.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)

    def is_below(pid):
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return {pid: names[pid] for pid in parents if pid != ancestor and is_below(pid)}


def scorers(ancestor: int) -> set[int]:
    return {
        pid
        for pid, name in descendants(ancestor).items()
        if name.startswith("ray::") and "Scorer" in name
    }


def wait_for(ready, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_the_rows_of_killed_actors_are_computed_by_others(cluster, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "PART_SECONDS", 0)
    manifest, out, killed = many_links(tmp_path), tmp_path / "out", []

    def kill_one_after_another():
        for some in (10, 40):
            wait_for(lambda some=some: len(parts(out)) >= some)
            victim = min(scorers(os.getpid()) - set(killed))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            wait_for(lambda victim=victim: victim not in scorers(os.getpid()))
            killed_at.append(len(parts(out)))

    killed_at = []
    killer = threading.Thread(target=kill_one_after_another)
    killer.start()
    run_on_ray(weights, manifest, out)
    killer.join(timeout=60)
    assert len(killed_at) == 2
    assert killed_at[1] < 110, "all was done before the second was killed"
    keys = Counter((row["scene"], row["method"]) for row in raw_rows(out))
    assert len(keys) == 240
    assert set(keys.values()) == {1}
    table = read_results(out).table
    assert table["error"].isna().all()
    assert len(table) == 240


DRIVER = """
import sys
from pathlib import Path
from fuscore_metric.runs import on_ray
from tests.helpers.runs import run_on_ray

on_ray.PART_SECONDS = 0
weights, manifest, out = map(Path, sys.argv[1:])
run_on_ray(weights, manifest, out)
"""


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on(cluster, weights, tmp_path):
    manifest, out = many_links(tmp_path), tmp_path / "out"
    line = [sys.executable, "-c", DRIVER, *map(str, (weights, manifest, out))]
    # A cluster of its own, without ours.
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="r", dir="/tmp")
    with subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as driver:
        wait_for(lambda: driver.poll() is not None or len(parts(out)) >= 20)
        assert driver.poll() is None, driver.stderr.read().decode()
        started = descendants(driver.pid)
        driver.kill()
    # Two helpers of Ray's look for their parent for more than a minute before they leave.
    agents = {pid for pid, name in started.items() if name.startswith("ray::") and "Agent" in name}
    wait_for(lambda: not any(is_running(pid) for pid in started.keys() - agents), 60)
    for pid in filter(is_running, agents):
        os.kill(pid, signal.SIGKILL)
    rmtree(environment["RAY_TMPDIR"], ignore_errors=True)
    before = {path: path.read_bytes() for path in parts(out)}
    done = len(raw_rows(out))
    assert 20 <= done < 240
    assert not (out / "results.parquet").exists()
    assert len(read_results(out).table) == done

    run_on_ray(weights, manifest, out)
    assert {path: path.read_bytes() for path in parts(out) if path in before} == before
    keys = Counter((row["scene"], row["method"]) for row in raw_rows(out))
    assert len(keys) == len(read_results(out / "results.parquet").table) == 240
    assert set(keys.values()) == {1}


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
