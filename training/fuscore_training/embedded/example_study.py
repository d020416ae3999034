"""The packaged example, cut into scenes, with made-up opinions: what a study's files look like.

    python -m fuscore_training.embedded.example_study runs/try

It is there to try fine-tuning, and is no data to learn from: the pictures are parts of one rendered
scene, and the opinions are invented.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

FUSIONS = {"good": 4.0, "average": 3.0, "noisy": 2.0, "blurred": 1.5}
"""The example's fusions and what the made-up raters think of them, 1 to 5."""
RATERS = ("anna", "ben", "chen")
SIDE = 160
"""Pixels of a scene's sides; the example has room for twelve."""


def write_example_study(folder: Path) -> Path:
    """Write the pictures of twelve scenes and `opinions.csv`, as `import-mos` reads it.

    Returns:
        The table has one row per opinion of a rater on the overall quality of one fused image.
    """
    example = Path(str(files("fuscore_metric") / "assets" / "example"))
    images = {name: Image.open(example / f"{name}.png") for name in ("ir", "vis")}
    images |= {name: Image.open(example / f"fused_{name}.png") for name in FUSIONS}
    width, height = images["ir"].size
    corners = [(x, y) for y in range(0, height, SIDE) for x in range(0, width, SIDE)]
    rng, rows = np.random.default_rng(0), []
    for number, (x, y) in enumerate(corners):
        paths = {name: f"{name}/{number:02d}.png" for name in images}
        for name, image in images.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            image.crop((x, y, x + SIDE, y + SIDE)).save(folder / paths[name])
        for method, quality in FUSIONS.items():
            for rater in RATERS:
                row = {"scene": f"{number:02d}", "method": method, "rater": rater}
                row |= {"ir": paths["ir"], "vis": paths["vis"], "fused": paths[method]}
                opinion = int(np.clip(np.rint(quality + rng.normal(0, 0.6)), 1, 5))
                rows.append(row | {"overall": opinion})
    pd.DataFrame(rows).to_csv(folder / "opinions.csv", index=False)
    return folder / "opinions.csv"


def main() -> None:
    """Write the study into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write a made-up study of the packaged example.")
    parser.add_argument("folder", type=Path, help="folder to write")
    sys.stdout.write(f"{write_example_study(parser.parse_args().folder)}\n")


if __name__ == "__main__":
    main()
