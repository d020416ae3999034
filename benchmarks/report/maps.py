"""What maps of where score was lost cost: python -m benchmarks.report.maps --data ../shared/data.

The report maps the best and the worst fusion of a scene. Two ways take turns in one run: 8 steps,
each map by itself, as it was at first, and what the report does now. CPU time, so that other
programs on the machine matter little.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.clock import caption
from fuscore_metric import FuScore
from fuscore_metric.attribution import DEFAULT_STEPS
from fuscore_metric.images.convert import as_images

STEPS_BEFORE = 8
METHODS = ("SwinFusion", "CBF")


def main() -> None:
    """Time both ways on scenes of VIFB and print medians over scenes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=8)
    given = parser.parse_args()
    folder = given.data / "VIFB"
    model = FuScore.from_pretrained(device="cpu")
    files = [file.name for file in sorted((folder / "ir").iterdir())[: given.scenes]]
    before, now = zip(*(_taken(model, folder, name) for name in files), strict=True)
    ratios = [a / b for a, b in zip(before, now, strict=True)]
    print(caption(f"{len(files)} scenes of VIFB, two maps of each, medians"))
    print(f"{STEPS_BEFORE} steps, each map by itself: {median(before):.2f} s of CPU a scene")
    print(f"{DEFAULT_STEPS} steps, sources read once: {median(now):.2f} s of CPU a scene")
    print(f"{median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


def _taken(model: FuScore, folder: Path, name: str) -> tuple[float, float]:
    """CPU seconds of a scene's two maps, as they were made before and now."""
    paths = [folder / place / name for place in ("ir", "vis")]
    paths += [folder / "fused" / method / name for method in METHODS]
    ir, vis, *fused = (torch.stack(as_images(path, "fused")) for path in paths)
    start = time.process_time()
    for one in fused:
        model.attribution(ir, vis, one, steps=STEPS_BEFORE)
    middle = time.process_time()
    model.attribution(ir, vis, torch.cat(fused))
    return middle - start, time.process_time() - middle


if __name__ == "__main__":
    main()
