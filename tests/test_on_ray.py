"""The Ray engine on a cluster of two actors: the local engine's rows, whatever is killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv, parquet

from fuscore_metric import CheckpointError, FuScore, InputError
from fuscore_metric.cli._run import Scoring
from fuscore_metric.engines import on_ray
from fuscore_metric.engines.local import score_entries
from fuscore_metric.engines.on_ray import Job, Scorer, score_manifest
from fuscore_metric.manifest import read_manifest, read_table
from fuscore_metric.results.parts import Plan, begin_session, read_parts
from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import COLUMNS, FILES
from fuscore_metric.results.run_folder import RunFolder
from tests.tiny_model import tiny_fuscore

METHODS = "abcd"
KEYS = ["scene", "method"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny_fuscore(folder).save_pretrained(folder / "tiny")
    return folder / "tiny"


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


def make_data(folder, scenes=6):
    """Source pairs of two sizes with four fusions each, in a manifest of relative paths."""
    rng = np.random.default_rng(0)
    rows = []
    for scene in range(scenes):
        size = (40, 48) if scene % 2 else (36, 64)
        for name in ("ir", "vis", *METHODS):
            path = folder / name / f"{scene:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        rows += [
            {
                "ir": f"ir/{scene:02}.png",
                "vis": f"vis/{scene:02}.png",
                "fused": f"{m}/{scene:02}.png",
            }
            for m in METHODS
        ]
    # Triples of a pair are far apart, as in a manifest made method by method.
    rows.sort(key=lambda row: row["fused"])
    csv.write_csv(pa.Table.from_pylist(rows), folder / "m.csv")
    return folder / "m.csv"


def scoring(weights, aspect="all"):
    return Scoring(str(weights), None, aspect, "cpu", None, batch_size=2)


def settings(weights, manifest, aspect="all"):
    return scoring(weights, aspect).describe(ir=str(manifest), vis=str(manifest))


def run(weights, manifest, out, aspect="all", **options):
    return score_manifest(
        manifest,
        out,
        settings(weights, manifest, aspect),
        scoring(weights, aspect),
        **{"actors": 2} | options,
    )


def raw_rows(out) -> list[dict]:
    """Rows of all parts, also of what would be left out because it comes twice."""
    found = (parquet.read_table(path, partitioning=None) for path in parts(out))
    return [row for table in found for row in table.to_pylist()]


def parts(out) -> list[Path]:
    return sorted((out / "parts").glob("*/*.parquet"))


def spoil(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def assert_same_rows(table, manifest, weights, aspect):
    entries = read_manifest(manifest)
    model = FuScore.from_pretrained(weights)
    local = [row for rows in score_entries(entries, model, aspect=aspect) for row in rows]
    expected = pd.DataFrame(local, columns=list(COLUMNS)).set_index(KEYS).sort_index()
    got = table.set_index(KEYS).sort_index()
    assert list(got) == list(expected)
    assert list(got.index) == list(expected.index)
    for name in (*FILES, "error"):
        assert got[name].fillna("").tolist() == expected[name].fillna("").tolist()
    for name in set(expected) - {*FILES, "error", "seconds"}:
        difference = got[name].astype(float) - expected[name].astype(float)
        assert got[name].isna().tolist() == expected[name].isna().tolist()
        assert difference.abs().max() <= 1e-5 or difference.isna().all()


# Without a cluster: what an actor does.


def job(weights, manifest, out, buckets=2):
    out.mkdir(exist_ok=True)
    found, how = settings(weights, manifest), scoring(weights)
    fields = {name: getattr(how, name) for name in ("weights", "revision", "aspect", "device")}
    return Job(
        folder=out,
        plan=begin_session(out, buckets),
        settings=found.to_json(),
        weights_hash=found.weights_hash,
        dtype=None,
        batch_size=2,
        thermal_range=None,
        threads=1,
        part_seconds=0,
        **fields,
    )


def work(job, manifest):
    """Every bucket by one actor; returns rows of [rows, known]."""
    numbered = on_ray._number(read_table(manifest), job.plan)
    scorer, counts = Scorer(job), []
    for number in sorted(set(numbered["bucket"].to_pylist())):
        mask = pa.array([n == number for n in numbered["bucket"].to_pylist()])
        counts += [t.to_pylist()[0] for t in scorer(numbered.filter(mask))]
    return counts


def test_an_actor_reads_a_source_pair_once(weights, data, tmp_path, monkeypatch):
    read, counts = FuScore.read, []
    monkeypatch.setattr(
        FuScore, "read", lambda self, *pair: counts.append(len(pair[0])) or read(self, *pair)
    )
    done = work(job(weights, data, tmp_path / "out"), data)
    assert sum(count["rows"] for count in done) == 24
    assert sum(counts) == 6
    assert_same_rows(read_parts(tmp_path / "out").to_pandas(), data, weights, "all")


def test_work_done_twice_in_a_session_is_there_once(weights, data, tmp_path):
    first = job(weights, data, tmp_path / "out")
    work(first, data)
    rows, before = raw_rows(tmp_path / "out"), parts(tmp_path / "out")
    assert all(count["known"] == count["rows"] for count in work(first, data))
    before[0].unlink()  # as if the actor had died before it was written
    assert sum(c["rows"] - c["known"] for c in work(first, data)) == 2
    assert parts(tmp_path / "out") == before
    keys = Counter((row["scene"], row["method"]) for row in raw_rows(tmp_path / "out"))
    assert len(rows) == len(keys) == 24
    assert set(keys.values()) == {1}


def test_errors_and_changed_files_are_tried_again_in_the_next_session(weights, data, tmp_path):
    fused, whole = data.parent / "a" / "00.png", (data.parent / "a" / "00.png").read_bytes()
    spoil(fused)
    first = job(weights, data, tmp_path / "out")
    work(first, data)
    assert sum(c["rows"] - c["known"] for c in work(first, data)) == 0  # an actor was restarted
    table = read_parts(tmp_path / "out").to_pandas().set_index(KEYS)
    assert table["error"].notna().tolist().count(True) == 1
    assert table.loc[("00", "a"), "score"] != table.loc[("00", "a"), "score"]

    fused.write_bytes(whole)
    Image.new("RGB", (48, 40)).save(data.parent / "b" / "01.png")
    second = job(weights, data, tmp_path / "out", buckets=17)  # what the first said stays
    assert second.plan == Plan(buckets=2, session=2)
    assert sum(c["rows"] - c["known"] for c in work(second, data)) == 2
    assert len(raw_rows(tmp_path / "out")) == 26
    assert_same_rows(read_parts(tmp_path / "out").to_pandas(), data, weights, "all")


def test_an_actor_refuses_other_weights(weights, data, tmp_path):
    other = replace(job(weights, data, tmp_path / "out"), weights_hash="sha256:0")
    with pytest.raises(CheckpointError, match="sha256:0"):
        Scorer(other)


def test_buckets_are_even_and_the_same_in_every_process():
    plan = Plan(buckets=64, session=1)
    counts = Counter(plan.bucket(f"ir/{n:06}.png", f"vis/{n:06}.png") for n in range(64_000))
    assert len(counts) == 64
    assert 800 < min(counts.values()) < max(counts.values()) < 1200
    # Another number would make runs that were stopped compute what they have.
    assert Plan(1000, 1).bucket("ir/a.png", "vis/a.png") == 265


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 0}, "one actor at least"),
        ({"actors": (3, 2)}, "one actor at least"),
        ({"cpus_per_actor": 0}, "CPUs"),
        ({"gpus_per_actor": 0.5}, "device cpu and 0.5 GPUs"),
    ],
)
def test_impossible_resources_are_refused_first(weights, data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(weights, data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# With a cluster.


@pytest.fixture(scope="module")
def cluster():
    """Two actors' worth of CPUs and some for reading, on the loopback interface."""
    before = {name: os.environ.get(name) for name in on_ray.LOCAL_ENVIRONMENT}
    os.environ.update(on_ray.LOCAL_ENVIRONMENT)
    import ray

    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # Ray's sockets need a short path
    ray.init(
        num_cpus=4,
        object_store_memory=200 * 10**6,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    rmtree(folder, ignore_errors=True)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["all", "sharpness"])
def test_the_rows_are_those_of_the_local_engine(cluster, weights, data, tmp_path, aspect):
    spoil(data.parent / "c" / "02.png")
    (data.parent / "vis" / "05.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(weights, data, out, aspect) == out / "results.parquet"
    found = read_results(out)
    assert_same_rows(found.table, data, weights, aspect)
    assert found.table["error"].notna().sum() == 5
    assert found.settings["aspect"] == aspect
    assert len(raw_rows(out)) == 24
    buckets = Counter(row["ir"] for path in parts(out) for row in sources_in(path))
    assert set(buckets.values()) == {1}  # a pair is in one bucket
    for path in (out / "results.parquet", out / "results.csv"):
        pd.testing.assert_frame_equal(read_results(path).table, found.table, check_dtype=False)
    assert read_results(out / "results.parquet").settings == found.settings
    assert parquet.read_schema(parts(out)[0]).metadata[b"fuscore"].decode() == (
        (out / "run.json").read_text().strip()
    )


def sources_in(path):
    pairs = {(row["ir"], row["vis"]) for row in parquet.read_table(path).to_pylist()}
    return [{"ir": ir, "vis": vis} for ir, vis in pairs]


@pytest.mark.slow
def test_other_settings_or_another_engine_do_not_go_on(cluster, weights, data, tmp_path):
    out = tmp_path / "out"
    run(weights, data, out)
    before = parts(out)
    with pytest.raises(InputError, match="aspect sharpness, was all"):
        run(weights, data, out, "sharpness")
    with (
        pytest.raises(InputError, match="another engine in parts"),
        RunFolder(out, settings(weights, data)),
    ):
        pass
    assert parts(out) == before
    run(weights, data, out)  # nothing is left to do
    assert parts(out) == before
    run(weights, data, out, "sharpness", overwrite=True)
    assert read_results(out).table["artifacts"].isna().all()
    with RunFolder(tmp_path / "local", settings(weights, data)), pytest.raises(InputError):
        run(weights, data, tmp_path / "local")  # the other process writes
    with pytest.raises(InputError, match=r"another engine in rows\.jsonl"):
        run(weights, data, tmp_path / "local")


@pytest.mark.slow
def test_manifests_of_other_programs_are_read_alike(cluster, data):
    rows = csv.read_csv(data).rename_columns(["IR", "Vis", "FUSED"])
    tabs, lines = data.with_suffix(".tsv"), data.with_suffix(".jsonl")
    csv.write_csv(rows, tabs, csv.WriteOptions(delimiter="\t"))
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    parquet.write_table(rows, data.with_suffix(".parquet"))
    expected = sorted(map(str, read_table(data).to_pylist()))
    for path in (tabs, lines, data.with_suffix(".parquet")):
        assert sorted(map(str, on_ray._read(path).take_all())) == expected


@pytest.mark.slow
def test_a_manifest_too_large_for_the_driver_is_checked_by_ray(
    cluster, weights, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_ray, "FEW_ROWS", 0)
    monkeypatch.setattr(on_ray, "FEW_BYTES", 0)
    monkeypatch.setattr(on_ray, "MOST_PARTITIONS", 8)
    monkeypatch.setattr(on_ray, "read_table", None)  # the driver does not read it
    out = tmp_path / "out"
    assert run(weights, data, out) == out / "parts"
    assert not (out / "results.parquet").exists()
    assert_same_rows(read_results(out).table, data, weights, "all")

    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError, match=r"scene '00', method 'a' in 2 rows"):
        run(weights, data, tmp_path / "twice")
    data.write_text("\n".join([*lines, "ir/x.png,,a/x.png"]) + "\n")
    with pytest.raises(InputError, match="`vis` in every row"):
        run(weights, data, tmp_path / "null")


@pytest.mark.slow
def test_weights_that_are_others_on_a_node_are_one_clear_error(cluster, weights, data, tmp_path):
    found = replace(settings(weights, data), weights_hash="sha256:0")
    with pytest.raises(CheckpointError, match="an actor found sha256:"):
        score_manifest(data, tmp_path / "out", found, scoring(weights), actors=2)


def many_links(folder, scenes=60):
    """A manifest of many triples of few images."""
    make_data(folder, 1)
    rows = []
    for scene in range(1, scenes):
        for name in ("ir", "vis", *METHODS):
            os.link(folder / name / "00.png", folder / name / f"{scene:02}.png")
    for scene in range(scenes):
        files = {name: f"{name}/{scene:02}.png" for name in ("ir", "vis")}
        rows += [files | {"fused": f"{method}/{scene:02}.png"} for method in METHODS]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    return folder / "m.parquet"


def descendants(ancestor: int) -> dict[int, str]:
    """Command lines of the processes that a process started, and of those they started."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
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
    run(weights, manifest, out)
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
from fuscore_metric.engines import on_ray
from tests import test_on_ray

on_ray.PART_SECONDS = 0
weights, manifest, out = map(Path, sys.argv[1:])
test_on_ray.run(weights, manifest, out)
"""


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on(cluster, weights, tmp_path):
    manifest, out = many_links(tmp_path), tmp_path / "out"
    line = [sys.executable, "-c", DRIVER, *map(str, (weights, manifest, out))]
    root = Path(__file__).parents[1]
    # A cluster of its own, without ours.
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="r", dir="/tmp")
    with subprocess.Popen(line, cwd=root, env=environment, stderr=subprocess.PIPE) as driver:
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

    run(weights, manifest, out)
    assert {path: path.read_bytes() for path in parts(out) if path in before} == before
    keys = Counter((row["scene"], row["method"]) for row in raw_rows(out))
    assert len(keys) == len(read_results(out / "results.parquet").table) == 240
    assert set(keys.values()) == {1}


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
