"""What each part of the objective is worth: the same short run with parts of it, several seeds."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuscore_metric.prompts import DEFAULT_ASPECT
from fuscore_training.embedded.fit_cached import predict_cached
from fuscore_training.embedded.run import (
    UNDAMAGED,
    PreparedData,
    prepare,
    second_view_change,
    train,
)
from fuscore_training.evaluate import Evaluation, evaluate
from fuscore_training.losses import LossWeights
from fuscore_training.recipe import EmbeddedRecipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """What differs from the recipe.

    Attributes:
        labels: Over the recipe's options of labels.
        weights: Of the three parts of the loss.
        consistency: Whether the recipe's term of the two views counts.
    """

    weights: LossWeights
    labels: dict[str, Any] = field(default_factory=dict)
    consistency: bool = False


VARIANTS = {
    "KL, one-hot labels": Variant(LossWeights(1, 0, 0), {"one_hot": True}),
    "KL, soft labels": Variant(LossWeights(1, 0, 0)),
    "KL + within": Variant(LossWeights(1, 1, 0)),
    "KL + cross": Variant(LossWeights(1, 0, 1)),
    "KL + within + cross": Variant(LossWeights(1, 1, 1)),
    "the same, all labels equally wide": Variant(LossWeights(1, 1, 1), {"kappa": 0.0}),
    "all, and consistency": Variant(LossWeights(1, 1, 1), consistency=True),
}
"""By name. Labels of one width: `kappa` 0, so that disagreement of sub-scores widens none."""
UNDAMAGED_MEASURES = ("undamaged_srcc", "undamaged_within_srcc")
MEASURES = ("srcc", "plcc", "within_srcc", "pairwise", "error", "mirror", *UNDAMAGED_MEASURES)


def ablate(
    recipe: EmbeddedRecipe, *, data: Path, work: Path, steps: int, seeds: int, out: Path
) -> pd.DataFrame:
    """Train every variant with every seed and measure on the held-out scenes.

    A finished run is a line of `out`; runs of the same recipe that are there are not repeated.

    Args:
        recipe: Everything but steps, seeds, label kind and loss weights.
        data: As for `run`.
        work: As for `run`.
        steps: Of each run; a reduced schedule.
        seeds: Runs of each variant.
        out: JSON lines.

    Returns:
        One row per run: `variant`, `seed` and `MEASURES`; see `_measure`.
    """
    prepared = prepare(recipe, data=data, work=work)
    digest = sha256(repr(recipe).encode()).hexdigest()[:16]
    done = [line for line in _read(out) if (line["recipe"], line["steps"]) == (digest, steps)]
    for seed in range(seeds):
        for name in VARIANTS:
            key = {"variant": name, "seed": seed, "steps": steps, "recipe": digest}
            if any(key.items() <= line.items() for line in done):
                continue
            started = time.monotonic()
            found = _measure(_variant(recipe, name, seed, steps), prepared, work / "ablation")
            done.append(key | found | {"seconds": round(time.monotonic() - started)})
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            log.info("%s", done[-1])
    return pd.DataFrame(done)


def summary(runs: pd.DataFrame) -> str:
    """Mean and standard deviation over the seeds: a markdown table, one line per variant."""
    lines = [f"| objective | {' | '.join(MEASURES)} |", "|---" * (len(MEASURES) + 1) + "|"]
    for name in VARIANTS:
        rows = runs[runs["variant"] == name]
        cells = [f"{rows[m].mean():.3f} ± {rows[m].std(ddof=1):.3f}" for m in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _variant(recipe: EmbeddedRecipe, name: str, seed: int, steps: int) -> EmbeddedRecipe:
    variant = VARIANTS[name]
    fit = replace(
        recipe.fit,
        steps=steps,
        evaluate_every=steps,
        weights=variant.weights,
        consistency=recipe.fit.consistency if variant.consistency else 0.0,
        seed=seed,
    )
    # Repeated triples cost time even at weight 0, and are left in: each run sees the same batches.
    return replace(
        recipe,
        seed=seed,
        fit=fit,
        labels=replace(recipe.labels, **variant.labels),
        batches=replace(recipe.batches, seed=seed),
        # Their worth shows under attacks, which these measures do not contain.
        adversarial=replace(recipe.adversarial, weight=0.0),
    )


def _measure(recipe: EmbeddedRecipe, prepared: PreparedData, work: Path) -> dict[str, Any]:
    """Agreement on the held-out scenes; `error` is the mean of |score - rating|."""
    backbone = train(recipe, prepared, work)
    part = prepared.held_out
    frame, rows = prepared.parts[part].frame, prepared.rows(part)
    score, _ = predict_cached(backbone, prepared.cache, rows)
    found = _agreement(score, frame)
    undamaged = frame["kind"].isin(UNDAMAGED).to_numpy()
    raw = _agreement(score[undamaged], frame[undamaged])
    return {
        "srcc": found.srcc.value,
        "plcc": found.plcc.value,
        "within_srcc": found.within_srcc.value,
        "pairwise": found.pairwise_accuracy.value,
        "error": float(np.abs(score - frame[DEFAULT_ASPECT].to_numpy()).mean()),
        "mirror": second_view_change(backbone, prepared, score),
        "undamaged_srcc": raw.srcc.value,
        "undamaged_within_srcc": raw.within_srcc.value,
    }


def _agreement(score: NDArray[np.float64], frame: pd.DataFrame) -> Evaluation:
    return evaluate(score, frame[DEFAULT_ASPECT], frame["scene"], frame["method"], n_boot=0)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
