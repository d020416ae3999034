"""A base model, rated pictures and a recipe: what two steps of fine-tuning need."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.gpu.kit import Kit
from benchmarks.tiny_qwen import SMALL, tiny_backbone

SPLITS = ("train",) * 4 + ("val",) * 2 + ("test",) * 2
"""Of the scenes, each with `METHODS` fusions."""
METHODS = 3
STEPS = 2


def write_run(folder: Path, kit: Kit, *, full: bool) -> Path:
    """Write everything into a folder.

    Args:
        folder: Where to.
        kit: Makes the pictures.
        full: Train all weights, in float32 computed in bfloat16, and not a LoRA.

    Returns:
        The recipe.
    """
    import yaml

    tiny_backbone("qwen3_vl").save(folder / "base")
    what = ("language", "projector", "vision")
    recipe = {
        "name": "tiny",
        "base": {"model": str(folder / "base"), "dtype": "float32", "mixed": True},
        "ratings": str(_write_ratings(folder, kit)),
        "preprocessing": SMALL,
        "tune": dict.fromkeys(what, "full") if full else {"rank": 4},
        "batches": {"scenes_per_batch": 2, "methods_per_scene": 2, "workers": 0},
        "fit": {"steps": STEPS, "evaluate_every": STEPS, "log_every": 1, "consistency": 0.0},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _write_ratings(folder: Path, kit: Kit) -> Path:
    """Rated fusions of random pictures."""
    import pandas as pd
    from fuscore_training.ratings import SCORE_COLUMNS, RatingsTable, write_ratings

    rows = []
    for number, split in enumerate(SPLITS):
        place = folder / f"{number}"
        place.mkdir()
        ir, vis = kit.pictures(1, 2 * number), kit.pictures(1, 2 * number + 1)
        share = torch.linspace(0, 1, METHODS, device=ir.device).view(-1, 1, 1, 1)
        for method, files in enumerate(kit.files((ir, vis, share * ir + (1 - share) * vis), place)):
            level = 1 + 3 * method / METHODS + 0.05 * number
            paths = dict(zip(("ir", "vis", "fused"), map(str, files), strict=True))
            named = {"scene": f"{number}", "method": f"{method}", "split": split, **paths}
            rows.append({**named, **dict.fromkeys(SCORE_COLUMNS, level)})
    table = RatingsTable(pd.DataFrame(rows), "proxy", "random pictures")
    write_ratings(table, folder / "ratings.csv")
    return folder / "ratings.csv"
