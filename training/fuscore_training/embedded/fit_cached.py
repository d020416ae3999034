"""Cached features -> a trained embedded backbone; the vision part is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from fuscore_metric.backbones.base import Backbone
from fuscore_metric.levels import expected_score, level_probabilities, score_variance
from fuscore_metric.prompts import Asked
from fuscore_training.embedded.adversary import AdversarialFeatures
from fuscore_training.embedded.features import FeatureCache
from fuscore_training.evaluate import Evaluation, evaluate
from fuscore_training.ratings import RatingsTable
from fuscore_training.trainer import FitOptions, FuScoreTrainer, LevelReader, training_arguments


def predict_cached(
    backbone: Backbone,
    cache: FeatureCache,
    rows: Sequence[int],
    *,
    aspects: Sequence[str] | None = None,
    view: int = 0,
    batch_size: int = 64,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and standard deviations of cached rows.

    Args:
        backbone: The model.
        cache: Encoded triples.
        rows: N rows of the cache.
        aspects: A of `ASPECTS`; None for `overall` alone, without an axis for it.
        view: 1 for the mirrored view of each triple.
        batch_size: Triples computed at once.

    Returns:
        (N,) scores in [1, 5] and (N,) standard deviations; (N, A) for `aspects`.
    """
    asked = Asked.of(None, aspects)
    device = next(backbone.parameters()).device  # the Trainer takes a GPU where there is one
    scores, variances = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            encoded = cache.encoded(chosen, views=np.full(len(chosen), view))
            encoded = {name: value.to(device) for name, value in encoded.items()}
            probabilities = level_probabilities(backbone.aspect_logits(encoded, asked.aspects))
            scores.append(expected_score(probabilities))
            variances.append(score_variance(probabilities))
    score, std = torch.cat(scores).double().cpu(), torch.cat(variances).double().sqrt().cpu()
    if asked.alone:
        score, std = score[:, 0], std[:, 0]
    return score.numpy(), std.numpy()


def fit(
    backbone: Backbone,
    loader: DataLoader[int],
    validation: RatingsTable,
    validation_rows: Sequence[int],
    cache: FeatureCache,
    out: Path,
    options: FitOptions,
    adversarial: AdversarialFeatures | None = None,
) -> None:
    """Train a backbone in place and leave it with the best weights on the validation scenes.

    Args:
        backbone: Its parameters that require gradients are trained.
        loader: Training batches.
        validation: Ratings of the validation scenes.
        validation_rows: Where they are in `cache`.
        cache: Encoded triples.
        out: Checkpoints and logs.
        options: Schedule and loss weights.
        adversarial: Trains against attacks on the features.
    """

    def validate(_: nn.Module) -> Evaluation:
        scores = predict_cached(backbone, cache, validation_rows)[0]
        frame = validation.frame
        return evaluate(scores, frame["overall"], frame["scene"], frame["method"], n_boot=20)

    trainer = FuScoreTrainer(
        model=LevelReader(backbone),
        args=training_arguments(out, options),
        loader=loader,
        validate=validate,
        options=options,
        extra_losses={"adversarial": (adversarial.options.weight, adversarial.loss)}
        if adversarial
        else None,
    )
    trainer.train()
    backbone.eval()
