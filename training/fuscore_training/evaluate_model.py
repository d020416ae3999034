"""Weights + a ratings table -> an evaluation, through the public scoring path."""

from __future__ import annotations

from fuscore_metric.model import FuScore
from fuscore_metric.prompts import build_prompt
from fuscore_metric.scoring import predict
from fuscore_training.evaluate import Evaluation, evaluate
from fuscore_training.ratings import RatingsError, RatingsTable

ROWS_AT_ONCE = 64
"""Rows whose images are held in memory at a time."""


def evaluate_model(
    table: RatingsTable,
    weights: str = "embedded",
    *,
    held_out: bool = False,
    aspect: str = "overall",
    batch_size: int = 8,
) -> Evaluation:
    """Score every triple of a table and compare with its ratings.

    Args:
        table: Ratings.
        weights: "embedded", a checkpoint directory, or a hub id.
        held_out: Keep only the scenes that the weights' `fuscore.json` lists as never seen.
        aspect: What to ask for, and the column to compare with.
        batch_size: Triples computed at once.

    Raises:
        RatingsError: The table has no ratings of the aspect, or no scene is left.
    """
    build_prompt(aspect)
    if aspect not in table.frame:
        raise RatingsError(f"Expected ratings with a column {aspect!r}, got none")
    model = FuScore.from_pretrained(weights)
    frame = table.frame
    if held_out:
        frame = frame[frame["scene"].isin(model.spec.metrics.get("held_out_scenes", []))]
    if frame.empty:
        raise RatingsError(f"no row of a scene that {model.spec.name} never saw")
    scores: list[float] = []
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        triples = (part[name].tolist() for name in ("ir", "vis", "fused"))
        scores += predict(
            *triples, model=model, aspect=aspect, batch_size=batch_size
        ).score.tolist()
    return evaluate(scores, frame[aspect], frame["scene"], frame["method"])
