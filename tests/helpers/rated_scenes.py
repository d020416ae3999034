"""Synthetic scenes with ratings, and a tiny base model: what fine-tuning reads."""

from pathlib import Path

import numpy as np
import pandas as pd
from fuscore_training.ratings import SCORE_COLUMNS, RatingsTable, write_ratings
from PIL import Image
from scipy import ndimage

from benchmarks import tiny_llava
from benchmarks.tiny_qwen import SMALL, tiny_backbone
from tests.helpers.scenes import synthetic_pair

SPLITS = [*["train"] * 8, "val", "val", "test", "test"]
METHODS = {"average": 3.0, "maximum": 4.2, "blurred": 1.6, "noisy": 2.3}


def write_rated_scenes(folder: Path, side: int = 64) -> Path:
    """Images and `ratings.csv`: each scene with four methods, of two image sizes."""
    rows = []
    for number in range(len(SPLITS)):
        ir, vis = synthetic_pair(number, side, side if number % 2 else side * 2)
        noise = np.random.default_rng(number).normal(size=ir.shape)
        images = {"ir": ir, "vis": vis} | {
            "average": (ir + vis) / 2,
            "maximum": np.maximum(ir, vis),
            "blurred": ndimage.gaussian_filter((ir + vis) / 2, 3),
            "noisy": (ir + vis) / 2 + 0.2 * noise,
        }
        for name, image in images.items():
            path = folder / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8)).save(path)
        for method, level in METHODS.items():
            files = {what: str(folder / what / f"{number:02d}.png") for what in ("ir", "vis")}
            score = level + 0.05 * (number % 5)
            scores = {name: score + 0.1 * n for n, name in enumerate(SCORE_COLUMNS)}
            fused = str(folder / method / f"{number:02d}.png")
            rows.append(
                {
                    "scene": f"{number:02d}",
                    "method": method,
                    **files,
                    "fused": fused,
                    **scores,
                    "split": SPLITS[number],
                }
            )
    table = RatingsTable(pd.DataFrame(rows), "proxy", "made up for tests")
    write_ratings(table, folder / "ratings.csv")
    return folder / "ratings.csv"


def write_base(folder: Path, family: str, *, width: int = 1) -> Path:
    """A tiny random model in transformers' own format, as a base model lies on disk."""
    if family == "llava":
        tiny_llava.tiny_backbone(width=width, statistics=True).save(folder)
    else:
        tiny_backbone(family, width=width).save(folder)
    return folder


def recipe_content(base: Path, ratings: Path, **fit: object) -> dict[str, object]:
    """A recipe for a run of seconds."""
    return {
        "name": "tiny",
        "base": {"model": str(base), "dtype": "float32"},
        "ratings": str(ratings),
        "preprocessing": SMALL,
        "tune": {"rank": 4},
        "batches": {"scenes_per_batch": 2, "methods_per_scene": 2, "workers": 0},
        "fit": {
            "steps": 6,
            "learning_rate": 0.003,
            "evaluate_every": 2,
            "log_every": 1,
            "consistency": 0.0,
            **fit,
        },
    }
