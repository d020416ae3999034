"""Real fusions -> seconds of the local engine and of Ray with two actors, by turns in one run.

Both get the same manifest and write the same run folders. Fixed costs, such as starting Ray and
loading the model, are those of a run of two triples and are taken off.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet

from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import Entry
from fuscore_metric.results.run_folder import RunFolder
from fuscore_metric.runs.folders import match_folders, method_folders
from fuscore_metric.runs.manifest import read_manifest
from fuscore_metric.runs.on_ray import score_manifest
from fuscore_metric.runs.scoring import Scoring, score_into

SCORING = Scoring("embedded", None, "overall", "cpu", None, batch_size=8)


def write_manifest(entries: list[Entry], path: Path) -> Path:
    """Method by method, so that an engine must bring source pairs together itself."""
    names = ("scene", "method", "ir", "vis", "fused")
    by_method = sorted(entries, key=lambda entry: (entry.method, entry.scene))
    rows = [{name: getattr(entry, name) for name in names} for entry in by_method]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def local(manifest: Path, out: Path) -> float:
    """Seconds of one process with all threads."""
    begun = time.perf_counter()
    settings = SCORING.describe(ir=str(manifest), vis=str(manifest))
    with RunFolder(out, settings) as folder:
        score_into(folder, read_manifest(manifest), SCORING)
    return time.perf_counter() - begun


def on_ray(manifest: Path, out: Path) -> float:
    """Seconds of a cluster of two actors on this machine, from its start to its end."""
    settings = SCORING.describe(ir=str(manifest), vis=str(manifest))
    begun = time.perf_counter()
    score_manifest(manifest, out, settings, SCORING, actors=2)
    return time.perf_counter() - begun


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--scenes", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where to leave Ray's run folder")
    arguments = parser.parse_args()
    folder = arguments.data / "VIFB"
    methods, _ = method_folders([], folder / "fused")
    matched = match_folders(folder / "ir", folder / "vis", methods).entries
    scenes = sorted({entry.scene for entry in matched})[: arguments.scenes]
    entries = [entry for entry in matched if entry.scene in scenes]
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        manifests = {
            "all": write_manifest(entries, root / "all.parquet"),
            "two": write_manifest(entries[:2], root / "two.parquet"),
        }
        for turn in range(arguments.rounds):
            for size, manifest in manifests.items():
                for name, run in (("local", local), ("Ray", on_ray)):
                    taken = run(manifest, root / f"{name}-{size}-{turn}")
                    seconds.setdefault((name, size), []).append(taken)
        tables = [read_results(root / f"{name}-all-0").table for name in ("local", "Ray")]
        scores = [table.sort_values(["scene", "method"])["score"].to_numpy() for table in tables]
        if arguments.keep is not None:
            shutil.copytree(root / "Ray-all-0", arguments.keep)
    least = {key: min(values) for key, values in seconds.items()}
    rates = {
        name: (len(entries) - 2) / (least[name, "all"] - least[name, "two"])
        for name in ("local", "Ray")
    }
    print(
        f"{len(entries)} triples of {len(scenes)} source pairs, {torch.get_num_threads()} threads, "
        f"embedded, overall, least of {arguments.rounds} rounds\n"
    )
    print("| engine | whole run, s | two triples, s | triples per second beside fixed costs |")
    print("|---|---|---|---|")
    for name, what in (("local", "local, one process"), ("Ray", "Ray, two actors of one thread")):
        print(
            f"| {what} | {least[name, 'all']:.1f} | {least[name, 'two']:.1f} | {rates[name]:.1f} |"
        )
    print(f"\nRay over local: {rates['Ray'] / rates['local']:.2f}")
    print(f"greatest difference of scores: {abs(scores[0] - scores[1]).max():.1e}")


if __name__ == "__main__":
    main()
