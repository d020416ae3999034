"""One's own ratings -> the embedded weights, fine-tuned -> checkpoint: minutes on a CPU.

Images go through the frozen vision part once; then only the small Llama and the projectors train,
from the weights and with the standardisation that they have.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.checkpoints.locate import fingerprint, locate
from fuscore_metric.checkpoints.spec import EMBEDDED, FuScoreSpec, read_spec
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.calibration import calibrate
from fuscore_training.embedded.fit_cached import predict_cached
from fuscore_training.embedded.run import (
    ROW,
    PreparedData,
    cached_features,
    fit_to,
    in_pairs,
    predictions,
)
from fuscore_training.evaluate import MIN_POINTS
from fuscore_training.export import make_fuscore, store_as
from fuscore_training.labels.learned_pairs import learned_pairs
from fuscore_training.large.fine_tune import held_out_metrics
from fuscore_training.ratings import (
    PATH_COLUMNS,
    RatingsError,
    RatingsTable,
    read_ratings,
    split_by_scene,
)
from fuscore_training.recipe import EmbeddedFineTuneRecipe, RecipeError

log = logging.getLogger(__name__)

SHARES = {"train": 0.8, "val": 0.2, "test": 0.0}
"""Shares of the rows of a table without a `split` of its own."""
LEAST_CALIBRATION_SCENES = 5
"""Validation scenes from which on the temperature is fitted; with fewer it stays the base's."""


@dataclass(frozen=True)
class FineTuned:
    """What came of a fine-tuning.

    Attributes:
        spec: The content of the checkpoint's `fuscore.json`.
        out: The checkpoint.
        before: Metrics of the weights that it started from, on the scenes of `after`.
        after: Metrics of the new weights on the validation scenes, or on the test scenes if the
            table's `split` names some.
    """

    spec: FuScoreSpec
    out: Path
    before: dict[str, Any]
    after: dict[str, Any]

    def summary(self) -> str:
        """The result for people, in a few lines."""
        part = "test" if self.spec.metrics["measured_on"] == "test" else "validation"
        counts = self.after["counts"]
        lines = [f"On the {counts['scenes']} {part} scenes ({counts['rows']} ratings):"]
        for name, words in (("srcc", "SRCC"), ("within_srcc", "SRCC within scenes")):
            old, new = (_shown(found[name]) for found in (self.before, self.after))
            lines.append(f"  {words}: {old} before, {new} after.")
        if (self.after["srcc"]["value"] or 0) <= (self.before["srcc"]["value"] or 0):
            lines.append("The new weights follow these ratings no better than those before.")
        calibration, temperature = self.spec.metrics["calibration"], self.spec.temperature
        if "skipped" in calibration:
            lines.append(f"The temperature stays {temperature:.2f}: {calibration['skipped']}.")
        else:
            lines.append(f"The temperature is {temperature:.2f}, fitted on the validation scenes.")
        lines.append(
            f"The weights {self.spec.name!r} are in {self.out}, {self.spec.label_statement()}. Use "
            f"them: fuscore score --model {self.out} --ir IR --vis VIS --fused FUSED"
        )
        return "\n".join(lines)


def fine_tune_embedded(recipe: EmbeddedFineTuneRecipe, *, work: Path, out: Path) -> FineTuned:
    """Fine-tune weights of the embedded family and write their checkpoint.

    Args:
        recipe: Options.
        work: Folder for features and logs.
        out: Checkpoint directory to write, which `FuScore.from_pretrained` loads.

    Raises:
        RatingsError: The ratings break a rule, or there are too few of them.
        RecipeError: There are no ratings, or the base is not of the embedded family.
        CheckpointError: The base cannot be found or used.
    """
    if not recipe.ratings:
        raise RecipeError("Expected ratings: `--ratings TABLE`, or `ratings` in the recipe")
    directory = locate(recipe.base)
    base = read_spec(directory)
    if base.family != LiteLlama.family:
        raise RecipeError(
            f"Expected `base` of the embedded family, got {recipe.base!r} of {base.family}: to "
            "fine-tune a big model, say `base:` and under it `model: NAME`"
        )
    table = read_ratings(recipe.ratings)
    table = replace(table, frame=table.frame.assign(**{ROW: np.arange(len(table))}))
    parts = split_ratings(table, seed=recipe.seed)
    backbone = LiteLlama.load(directory, base.preprocessing).eval()
    key = f"{fingerprint(directory)} {_state_of_images(table)}"
    prepared = PreparedData(table, None, parts, cached_features(table, backbone, work, key=key))

    before = _metrics(backbone, prepared)
    fit_to(prepared, backbone, recipe, work)
    store_as(backbone, torch.float16)  # what is measured is what is stored
    store_as(backbone, torch.float32)
    after = _metrics(backbone, prepared)

    calibration, temperature = _calibration(backbone, prepared, base)
    learned = set(parts["train"].frame["scene"])
    fresh = {*base.metrics.get("held_out_scenes", ()), *table.frame["scene"]} - learned
    methods = set(base.metrics.get("held_out_methods", ())) - set(parts["train"].frame["method"])
    store_as(backbone, torch.float16)
    fuscore = make_fuscore(
        backbone,
        name=recipe.name,
        table=replace(table, description=_origin(table, base)),
        base=base.base,
        data=[*base.data, Path(recipe.ratings).name],
        training_pairs=_training_pairs(parts["train"], base),
        temperature=temperature,
        metrics={
            f"held_out_{table.label_kind}": after,
            "before_fine_tuning": before,
            "calibration": calibration,
            "measured_on": prepared.held_out,
            "held_out_scenes": sorted(fresh),
            "held_out_methods": sorted(methods),
        },
    )
    fuscore.spec = replace(
        fuscore.spec,
        base_model=recipe.base if recipe.base == EMBEDDED else str(directory.resolve()),
        base_revision=fingerprint(directory),
    )
    fuscore.save_pretrained(out)
    return FineTuned(fuscore.spec, out, before, after)


def split_ratings(table: RatingsTable, *, seed: int) -> dict[str, RatingsTable]:
    """Split by scene into what is trained on and what is measured on.

    A column `split` is obeyed. Training leaves out source pairs with a single fusion: there is
    nothing to compare it with.

    Raises:
        RatingsError: Too few scenes, fusions or ratings for either.
    """
    given = "split" in table.frame
    parts = split_by_scene(table, fractions=None if given else SHARES, seed=seed)
    pairs, rows = parts["train"].source_pairs.nunique(), len(parts["train"])
    parts["train"] = in_pairs(parts["train"])
    left = parts["train"].source_pairs.nunique()
    if left < 2:
        raise RatingsError(
            "Expected training scenes with at least 2 source pairs of 2 or more rated fusions, "
            f"got {left} such pairs (of {pairs} in all): rate more scenes, or more fusions of each"
        )
    if left < pairs:
        log.warning(
            "left out %d of %d training ratings: the only one of their source pair",
            *(rows - len(parts["train"]), rows),
        )
    if (count := len(parts["val"])) < MIN_POINTS:
        raise RatingsError(
            f"Expected at least {MIN_POINTS} ratings of validation scenes, got {count}: rate more "
            "scenes, or name some of them in a column `split`"
        )
    log.info("rows: %s", {name: len(part) for name, part in parts.items()})
    return parts


def _metrics(backbone: LiteLlama, prepared: PreparedData) -> dict[str, Any]:
    part = prepared.parts[prepared.held_out]
    aspects = list(ASPECTS) if part.has_sub_scores else [DEFAULT_ASPECT]
    scores, _ = predict_cached(
        backbone, prepared.cache, prepared.rows(prepared.held_out), aspects=ASPECTS
    )
    asked: NDArray[np.float64] = scores[:, [ASPECTS.index(aspect) for aspect in aspects]]
    return held_out_metrics(asked, aspects, part)


def _calibration(
    backbone: LiteLlama, prepared: PreparedData, base: FuScoreSpec
) -> tuple[dict[str, Any], float]:
    """The temperature, and what it does or why it was not fitted."""
    count = prepared.parts["val"].frame["scene"].nunique()
    if count < LEAST_CALIBRATION_SCENES:
        reason = f"fitting it takes {LEAST_CALIBRATION_SCENES} validation scenes, got {count}"
        return {"skipped": reason}, base.temperature
    try:
        found = calibrate(
            predictions(backbone, prepared, "val"),
            predictions(backbone, prepared, prepared.held_out),
        )
    except ValueError as error:  # no reason to lose the weights
        return {"skipped": str(error)}, base.temperature
    return found.summary(), found.temperature


def _origin(table: RatingsTable, base: FuScoreSpec) -> str:
    own = table.description.rstrip(". ")
    return f"{own + '. ' if own else ''}Fine-tuned from {base.name}, {base.full_label_statement()}."


def _training_pairs(train: RatingsTable, base: FuScoreSpec) -> list[str]:
    """Hashes of all that the weights learned from; none if that is not known of the base."""
    known = base.training_pairs
    return [*known, *learned_pairs(train.frame, known=known)] if known else []


def _state_of_images(table: RatingsTable) -> str:
    """Tell two contents of the same files apart, by sizes and times."""
    files = sorted({path for column in PATH_COLUMNS for path in table.frame[column]})
    states = [(path, *_state(Path(path))) for path in files]
    return sha256(json.dumps(states).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _shown(statistic: dict[str, Any]) -> str:
    return "undefined" if statistic["value"] is None else f"{statistic['value']:.3f}"
