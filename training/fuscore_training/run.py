"""A recipe -> ratings -> features -> weights -> checkpoint: the whole embedded model, one call.

Each step leaves its result in the work folder, and is not repeated as long as its options stay.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fuscore_metric.backbones.lite_llama import LiteLlama
from fuscore_training.acceptance import check_acceptance
from fuscore_training.datasets import make_loader
from fuscore_training.evaluate import evaluate
from fuscore_training.export import make_fuscore
from fuscore_training.features import FeatureCache, build_features
from fuscore_training.initialise import VISION_SOURCE, new_lite_llama
from fuscore_training.proxy_ratings import find_scenes, make_proxy_ratings
from fuscore_training.ratings import RatingsTable, read_ratings, split_by_scene
from fuscore_training.recipe import Recipe
from fuscore_training.trainer import fit, predict_cached

log = logging.getLogger(__name__)

ROW = "row"
"""Column with a row's place in the whole table, and so in the feature cache."""


def run(recipe: Recipe, *, data: Path, work: Path, out: Path) -> dict[str, Any]:
    """Train an embedded model and write its checkpoint.

    Args:
        recipe: Options.
        data: Folder of real source pairs and fusions, see `proxy_ratings`.
        work: Folder for everything in between; may be gigabytes.
        out: Checkpoint directory to write.

    Returns:
        The metrics on the test scenes, as stored in `fuscore.json`.
    """
    table = _ratings(recipe, data, work)
    parts = split_by_scene(table, seed=recipe.seed)
    rows = {name: part.frame[ROW].tolist() for name, part in parts.items()}
    log.info("rows: %s", {name: len(found) for name, found in rows.items()})
    backbone = new_lite_llama(
        work / "words", seed=recipe.seed, llama=recipe.llama, preprocessing=recipe.preprocessing
    )
    cache = _features(recipe, table, backbone, work)
    some = np.random.default_rng(recipe.seed).choice(rows["train"], 1000).tolist()
    backbone.standardise(cache.encoded(some))
    loader = make_loader(parts["train"], rows["train"], cache, recipe.labels, recipe.batches)
    fit(backbone, loader, parts["val"], rows["val"], cache, work / "fit", recipe.fit)
    # The checkpoint is stored in float16 to stay small; what is measured is what is stored.
    backbone.half().float()
    held_out = sorted(parts["test"].frame["scene"].unique())
    fuscore = make_fuscore(
        backbone,
        name=recipe.name,
        table=table,
        base=[VISION_SOURCE],
        data=sorted({scene.split("/")[0] for scene in table.frame["scene"]}),
        metrics={},
    )
    metrics = _test_metrics(backbone, cache, parts["test"], rows["test"])
    scenes = [scene for scene in find_scenes(data) if scene.name in held_out]
    metrics["acceptance"] = asdict(check_acceptance(fuscore, scenes))
    fuscore.spec.metrics.update(metrics, held_out_scenes=held_out)
    backbone.half()
    fuscore.save_pretrained(out)
    return metrics


def _ratings(recipe: Recipe, data: Path, work: Path) -> RatingsTable:
    key = json.dumps({"proxy": asdict(recipe.proxy), "data": str(data.resolve())})
    stored = work / "proxy_options.json"
    if stored.exists() and stored.read_text() == key:
        table = read_ratings(work / "ratings.parquet")
    else:
        work.mkdir(parents=True, exist_ok=True)
        table = make_proxy_ratings(data, work, recipe.proxy)
        stored.write_text(key)
    frame = table.frame.assign(**{ROW: np.arange(len(table))})
    return RatingsTable(frame, table.label_kind, table.description)


def _features(recipe: Recipe, table: RatingsTable, backbone: LiteLlama, work: Path) -> FeatureCache:
    files = pd.util.hash_pandas_object(table.frame[["ir", "vis", "fused"]]).to_numpy()
    key = f"{backbone.preprocessing} {sha256(files.tobytes()).hexdigest()} {recipe.proxy}"
    return build_features(table, backbone, work / "features", key=key)


def _test_metrics(
    backbone: LiteLlama, cache: FeatureCache, test: RatingsTable, rows: list[int]
) -> dict[str, Any]:
    """Agreement with the held-out proxy ratings, for all rows and for undamaged fusions alone."""
    scores, _ = predict_cached(backbone, cache, rows)
    frame = test.frame
    metrics = {}
    for name, chosen in {
        "held_out_proxy": np.ones(len(frame), dtype=bool),
        "held_out_proxy_undamaged": frame["kind"].isin(["method", "plain"]).to_numpy(),
    }.items():
        part = frame[chosen]
        found = evaluate(scores[chosen], part["overall"], part["scene"], part["method"])
        metrics[name] = json.loads(found.to_json())
    return metrics
