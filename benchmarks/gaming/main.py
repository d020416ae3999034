"""How far is FuScore gamed by known tricks, and what does the reward's guard leave of it?

    python -m benchmarks.gaming.main --data ../shared/data --out runs/gaming

Every trick of `tricks.py` at every strength on three undamaged fusions of each test scene, then the
gradient attack of `adversary.py` on some. Rows of a scene are kept in `--out`, in a folder named
after the weights: the same command goes on where it stopped. As many processes as cores, one
thread each. Leaves `results.md`, `strengths.md` and `results.json` there, once all is there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from fuscore_training.labels.proxy_ratings import Scene, find_scenes
from fuscore_training.split import read_split

from benchmarks import REPOSITORY
from benchmarks.accuracy.triples import evenly, ladder_scenes
from benchmarks.gaming.measuring import Row, adversarial, cheap_tricks, guarded, label_changes
from benchmarks.gaming.report import guard_table, read_rows, strength_table, summarise, tables
from fuscore_metric import FuScore
from fuscore_metric.checkpoints.locate import find_checkpoint

PARTS: dict[str, Callable[[Scene, FuScore], list[Row]]] = {
    "tricks": cheap_tricks,
    "adversarial": adversarial,
    "labels": label_changes,
    "guards": guarded,
}
"""The last is for choosing: on validation scenes (`--scenes val --part guards`)."""


def work_on(task: tuple[str, Scene], *, weights: str, out: Path) -> Path:
    """One part of one scene, unless it was done before; returns the file of its rows."""
    part, scene = task
    file = out / part / f"{scene.name.replace('/', '_')}.csv"
    if not file.exists():
        torch.set_num_threads(1)
        rows = PARTS[part](scene, FuScore.from_pretrained(weights, device="cpu"))
        file.parent.mkdir(parents=True, exist_ok=True)
        partly = file.with_suffix(".partly")
        pd.DataFrame(rows).to_csv(partly, index=False)
        partly.replace(file)
    return file


def scenes_of(options: argparse.Namespace) -> dict[str, list[Scene]]:
    """Scenes by part, mixed: what is there when the time is up should not be one data set."""
    names = getattr(read_split(options.split), options.scenes)
    scenes = [scene for scene in find_scenes(options.data) if scene.name in names]
    attacked = evenly(ladder_scenes(scenes), options.attacked)
    mixed = sorted(scenes, key=lambda scene: sha256(scene.name.encode()).digest())
    return {"tricks": mixed, "adversarial": attacked, "labels": mixed, "guards": attacked}


def run(options: argparse.Namespace) -> None:
    """Compute what is missing, until the time is up."""
    began = time.monotonic()
    weights = find_checkpoint(options.model).weights / "model.safetensors"
    digest = sha256(weights.read_bytes()).hexdigest()
    out = options.out / f"{options.scenes}-{digest[:12]}"
    scenes = scenes_of(options)
    parts = [options.part] if options.part else list(PARTS)[:-1]
    tasks = [(part, scene) for part in parts for scene in scenes[part]]
    work = partial(work_on, weights=options.model, out=out)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(work, task) for task in tasks]
        for number, job in enumerate(waiting):
            left = 60 * options.minutes - (time.monotonic() - began)
            try:
                job.result(max(left, 0.1))
            except TimeoutError:
                print(f"time is up after {number} of {len(tasks)}; the same command goes on")
                pool.shutdown(wait=True, cancel_futures=True)
                return
    print(f"all {len(tasks)} there: {out}")
    if options.part == "guards":
        print(guard_table(read_rows(out / "guards")))
    elif not options.part:
        summary = {"weights": options.model, "sha256": digest} | summarise(out)
        (out / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
        (out / "results.md").write_text(tables(summary))
        (out / "strengths.md").write_text(strength_table(summary["tricks"]) + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of real source pairs")
    add("--out", type=Path, required=True, help="folder of results")
    add("--split", type=Path, default=REPOSITORY / "training" / "recipes" / "split.yaml")
    add("--scenes", choices=("test", "val"), default="test")
    add("--model", default="embedded", help="or a checkpoint directory")
    add("--part", choices=PARTS, help="one part alone")
    add("--attacked", type=int, default=12, help="scenes attacked by gradient")
    add("--minutes", type=float, default=600, help="stop after so long, to go on later")
    add("--workers", type=int, default=os.cpu_count())
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(parse())
