"""A recipe -> ratings -> features -> weights -> checkpoint: the whole embedded model, one call.

Each step leaves its result in the work folder, and is not repeated as long as its options stay.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fuscore_metric.backbones.lite.cells import AGREEMENT, REFERENCES, STATISTICS
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.lite.projector import Projector
from fuscore_metric.backbones.lite.relations import RELATIONS
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.calibration import Predictions, calibrate, plot_calibration
from fuscore_training.embedded.acceptance import check_acceptance
from fuscore_training.embedded.adversary import prepare_adversarial
from fuscore_training.embedded.batches import make_loader
from fuscore_training.embedded.features import FeatureCache, build_features
from fuscore_training.embedded.fit_cached import fit, predict_cached
from fuscore_training.embedded.initialise import VISION_SOURCE, new_lite_llama
from fuscore_training.evaluate import evaluate
from fuscore_training.export import make_fuscore, store_as
from fuscore_training.labels.learned_pairs import learned_pairs
from fuscore_training.labels.panel import read_panel
from fuscore_training.labels.proxy_ratings import find_scenes, make_proxy_ratings
from fuscore_training.labels.viewer_ladders import make_ladders
from fuscore_training.ratings import RatingsTable, read_ratings, split_by_scene
from fuscore_training.recipe import EmbeddedFineTuneRecipe, EmbeddedRecipe
from fuscore_training.split import Split, read_split

log = logging.getLogger(__name__)

ROW = "row"
"""Column with a row's place in the whole table, and so in the feature cache."""
VIEWED = "Damage: by visible change, scaled by people's opinions."
UNDAMAGED = ("method", "plain")
"""Kinds of ratings of pictures that nothing was done to."""


@dataclass(frozen=True)
class PreparedData:
    """What training and testing read, made once for any number of runs.

    Attributes:
        table: All ratings, with a column `row`.
        split: Held-out scenes and methods; None if scenes were drawn.
        parts: Ratings by split name.
        cache: Features of all ratings.
    """

    table: RatingsTable
    split: Split | None
    parts: dict[str, RatingsTable]
    cache: FeatureCache

    @property
    def held_out(self) -> str:
        """The part to measure on: the test scenes, or the validation scenes.

        Those serve where no picture of a test scene was rated, as with viewers.
        """
        return "test" if len(self.parts["test"]) else "val"

    def rows(self, part: str) -> list[int]:
        """Places of a part's ratings in the whole table."""
        return list(map(int, self.parts[part].frame[ROW]))


def prepare(recipe: EmbeddedRecipe, *, data: Path, work: Path) -> PreparedData:
    """Make ratings and features, or open those of an earlier run with the same options.

    Args:
        recipe: Options.
        data: Folder of real source pairs and fusions, see `proxy_ratings`.
        work: Folder for everything in between; may be gigabytes.
    """
    split = read_split(Path(recipe.split)) if recipe.split else None
    table = make_ratings(recipe, data=data, work=work)
    frame = table.frame.assign(**{ROW: np.arange(len(table))})
    table = RatingsTable(frame, table.label_kind, table.description)
    parts = split.apply(table) if split else split_by_scene(table, seed=recipe.seed)
    parts["train"] = in_pairs(parts["train"])
    log.info("rows: %s", {name: len(part) for name, part in parts.items()})
    cache = cached_features(table, _new(recipe, work), work, key=str(recipe.proxy))
    return PreparedData(table, split, parts, cache)


def train(recipe: EmbeddedRecipe, prepared: PreparedData, work: Path) -> LiteLlama:
    """Fit a new backbone; it comes back with the best weights on the validation scenes."""
    backbone = _new(recipe, work)
    some = np.random.default_rng(recipe.seed).choice(prepared.rows("train"), 1000)
    backbone.standardise(prepared.cache.encoded(some))
    fit_to(prepared, backbone, recipe, work)
    return backbone


def fit_to(
    prepared: PreparedData,
    backbone: LiteLlama,
    recipe: EmbeddedRecipe | EmbeddedFineTuneRecipe,
    work: Path,
) -> None:
    """Train a backbone in place; its statistics are standardised already."""
    for name, projector in backbone.projectors.items():
        noise = recipe.whole_noise if name == "whole" else recipe.feature_noise
        cast(Projector, projector).noise = noise
    parts, cache, rows = prepared.parts, prepared.cache, prepared.rows
    loader = make_loader(parts["train"], rows("train"), cache, recipe.labels, recipe.batches)
    adversarial = prepare_adversarial(recipe.adversarial, backbone, parts["train"].frame)
    fit(backbone, loader, parts["val"], rows("val"), cache, work / "fit", recipe.fit, adversarial)


def _new(recipe: EmbeddedRecipe, work: Path) -> LiteLlama:
    return new_lite_llama(
        work / "words",
        seed=recipe.seed,
        llama=recipe.llama,
        preprocessing=recipe.preprocessing,
        relations=recipe.relations,
    )


def run(recipe: EmbeddedRecipe, *, data: Path, work: Path, out: Path) -> dict[str, Any]:
    """Train an embedded model and write its checkpoint.

    Args:
        recipe: Options.
        data: Folder of real source pairs and fusions, see `proxy_ratings`.
        work: Folder for everything in between; may be gigabytes.
        out: Checkpoint directory to write.

    Returns:
        The metrics on the test scenes, as stored in `fuscore.json`.
    """
    prepared = prepare(recipe, data=data, work=work)
    return publish(train(recipe, prepared, work), recipe, prepared, data=data, work=work, out=out)


def publish(
    backbone: LiteLlama,
    recipe: EmbeddedRecipe,
    prepared: PreparedData,
    *,
    data: Path,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Calibrate and measure a trained backbone, and write its checkpoint.

    Also writes `calibration.json` and `calibration.png` into the work folder. Arguments and result
    as of `run`.
    """
    # The checkpoint is stored in float16 to stay small; what is measured is what is stored.
    store_as(backbone, torch.float16)
    store_as(backbone, torch.float32)
    calibration = calibrate(
        predictions(backbone, prepared, "val"),
        predictions(backbone, prepared, prepared.held_out),
    )
    fuscore = make_fuscore(
        backbone,
        name=recipe.name,
        table=prepared.table,
        base=[VISION_SOURCE],
        data=sorted({scene.split("/")[0] for scene in prepared.table.frame["scene"]}),
        temperature=calibration.temperature,
        metrics={},
        training_pairs=learned_pairs(prepared.parts["train"].frame),
    )
    measured_on = prepared.parts[prepared.held_out].frame["scene"]
    held_out = sorted({*measured_on, *(prepared.split.test if prepared.split else ())})
    metrics = held_out_metrics(backbone, prepared)
    metrics["calibration"] = calibration.summary()
    scenes = [scene for scene in find_scenes(data) if scene.name in held_out]
    metrics["acceptance"] = asdict(check_acceptance(fuscore, scenes))
    methods = list(prepared.split.held_out_methods) if prepared.split else []
    fuscore.spec.metrics.update(
        metrics,
        measured_on=prepared.held_out,
        held_out_scenes=held_out,
        held_out_methods=methods,
    )
    store_as(backbone, torch.float16)
    fuscore.save_pretrained(out)
    # Last, as a plot that cannot be drawn must not cost the weights.
    (work / "calibration.json").write_text(json.dumps(asdict(calibration), indent=2) + "\n")
    plot_calibration(calibration, work / "calibration.png")
    return metrics


def make_ratings(recipe: EmbeddedRecipe, *, data: Path, work: Path) -> RatingsTable:
    """The ratings that a recipe asks for, and the pictures that they are of.

    Args:
        recipe: Options.
        data: Folder of real source pairs and fusions, see `proxy_ratings`.
        work: Folder for pictures that are made.
    """
    work.mkdir(parents=True, exist_ok=True)
    make = _viewers_ratings if recipe.viewers else _proxy_ratings
    return make(recipe, data, work)


def _proxy_ratings(recipe: EmbeddedRecipe, data: Path, work: Path) -> RatingsTable:
    key = json.dumps({"proxy": asdict(recipe.proxy), "data": str(data.resolve())})
    stored = work / "proxy_options.json"
    if stored.exists() and stored.read_text() == key:
        table = read_ratings(work / "ratings.parquet")
    else:
        table = make_proxy_ratings(data, work, recipe.proxy)
        stored.write_text(key)
    return table


def _viewers_ratings(recipe: EmbeddedRecipe, data: Path, work: Path) -> RatingsTable:
    """Viewers' ratings, and damage by visible change."""
    ratings, stored = Path(recipe.viewers), work / "ladders.parquet"
    panel = read_panel(ratings, data, work / "viewed")
    files = [path.read_bytes() for path in sorted(ratings.glob("*.csv"))]
    inputs = {"ratings": sha256(b"".join(files)).hexdigest(), "data": str(data.resolve())}
    options = json.dumps({"ladders": asdict(recipe.ladders), **inputs})
    key = work / "ladder_options.json"
    if key.exists() and key.read_text() == options:
        ladders = pd.read_parquet(stored)
    else:
        ladders = make_ladders(panel, ratings, work / "ladders", recipe.ladders).frame
        ladders.to_parquet(stored)
        key.write_text(options)
    joined = pd.concat([panel.frame, ladders], ignore_index=True)
    joined["other_scene"] = joined["other_scene"].fillna("")
    return RatingsTable(joined, "model", f"{panel.description} {VIEWED}")


def in_pairs(table: RatingsTable) -> RatingsTable:
    """The rows of source pairs with at least two: a batch compares the fusions of a source pair."""
    pairs = table.source_pairs
    rows = pairs.groupby(pairs).transform("size") > 1
    return replace(table, frame=table.frame[rows].reset_index(drop=True))


def cached_features(
    table: RatingsTable, backbone: LiteLlama, work: Path, *, key: str
) -> FeatureCache:
    """Features of a table, made in the work folder or found there.

    Args:
        table: Ratings.
        backbone: Its vision part is used.
        work: Folder of the run.
        key: What the features depend on beside the paths of the images and the backbone's options.
    """
    files = pd.util.hash_pandas_object(table.frame[["ir", "vis", "fused"]]).to_numpy()
    layout = f"{REFERENCES} {STATISTICS} {AGREEMENT} {RELATIONS}"
    key = f"{backbone.preprocessing} {layout} {sha256(files.tobytes()).hexdigest()} {key}"
    return build_features(table, backbone, work / "features", key=key)


def predictions(backbone: LiteLlama, prepared: PreparedData, part: str) -> Predictions:
    """Overall scores of a part beside its ratings."""
    frame = prepared.parts[part].frame
    score, std = predict_cached(backbone, prepared.cache, prepared.rows(part))
    return Predictions(score, std, frame["overall"].to_numpy(), frame["scene"].to_numpy())


def held_out_metrics(backbone: LiteLlama, prepared: PreparedData) -> dict[str, Any]:
    """Agreement with the held-out ratings: all rows, parts of them, and by aspect."""
    part = prepared.held_out
    frame = prepared.parts[part].frame
    scores, _ = predict_cached(backbone, prepared.cache, prepared.rows(part), aspects=ASPECTS)
    undamaged = frame["kind"].isin(UNDAMAGED).to_numpy()
    chosen = {"": np.ones(len(frame), dtype=bool), "_undamaged": undamaged}
    if prepared.split:
        unseen = prepared.split.is_held_out(frame).to_numpy()
        chosen |= {"_held_out_methods": unseen, "_undamaged_held_out_methods": unseen & undamaged}
    overall = scores[:, ASPECTS.index(DEFAULT_ASPECT)]
    metrics: dict[str, Any] = {}
    for name, rows in chosen.items():
        if not rows.any():
            continue  # no method is held out of the validation scenes' ratings: they have none
        some = frame[rows]
        found = evaluate(overall[rows], some["overall"], some["scene"], some["method"])
        metrics[f"held_out_{prepared.table.label_kind}{name}"] = json.loads(found.to_json())
    return metrics | {
        "aspect_srcc": aspect_table(scores, frame),
        "second_view_change": second_view_change(backbone, prepared, overall),
    }


def second_view_change(
    backbone: LiteLlama, prepared: PreparedData, scores: NDArray[np.float64]
) -> float:
    """How far mirroring and a cut of a few pixels move the scores (N,) of undamaged held-out ones.

    Returns:
        Mean change over the mean standard deviation between a scene's undamaged fusions.
    """
    part = prepared.held_out
    frame = prepared.parts[part].frame
    other, _ = predict_cached(backbone, prepared.cache, prepared.rows(part), view=1)
    undamaged = frame["kind"].isin(UNDAMAGED).to_numpy()
    shown = pd.DataFrame({"scene": frame["scene"], "score": scores})[undamaged]
    spread = shown.groupby("scene")["score"].std().mean()
    return float(np.abs(scores - other)[undamaged].mean() / spread)


def aspect_table(scores: NDArray[np.float64], frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """SRCC of each aspect's scores, (N, A) columns of `scores`, with each aspect's ratings."""
    return {
        asked: {
            rated: round(float(spearmanr(scores[:, n], frame[rated]).statistic), 4)
            for rated in ASPECTS
        }
        for n, asked in enumerate(ASPECTS)
    }
