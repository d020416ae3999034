"""Batches -> a trained backbone: transformers' Trainer with the three-part loss."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.levels import expected_score, level_probabilities, score_variance
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT
from fuscore_training.evaluate import Evaluation, evaluate
from fuscore_training.features import FeatureCache
from fuscore_training.losses import LossWeights, tripartite_loss
from fuscore_training.ratings import RatingsTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """How the weights are fitted.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Highest, after the warm-up; falls to 0 along a cosine.
        weight_decay: AdamW's.
        warmup: Share of the steps.
        evaluate_every: Steps between looks at the validation scenes; the best weights are kept.
        weights: Weights of the three parts of the loss.
        sub_scores: Weight of the sub-scores' loss beside that of the overall quality.
        twins: Weight of the squared difference between the scores of a triple's two views.
        seed: Seed of dropout and the like.
    """

    steps: int = 6000
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    evaluate_every: int = 500
    weights: LossWeights = field(default_factory=LossWeights)
    sub_scores: float = 0.5
    twins: float = 5.0
    seed: int = 0


class LevelReader(nn.Module):
    """What the Trainer trains: encoded triples and aspects -> level logits (N, A, 5)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, encoded: Encoded, aspects: Sequence[str]) -> Tensor:
        """Read the level logits."""
        return self.backbone.aspect_logits(encoded, aspects)


def predict_cached(
    backbone: Backbone,
    cache: FeatureCache,
    rows: Sequence[int],
    *,
    aspect: str = DEFAULT_ASPECT,
    view: int = 0,
    batch_size: int = 64,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and standard deviations of cached rows.

    Args:
        backbone: The model.
        cache: Encoded triples.
        rows: N rows of the cache.
        aspect: One of `ASPECTS`, or "all".
        view: 1 for the mirrored view of each triple.
        batch_size: Triples computed at once.

    Returns:
        (N,) scores in [1, 5] and (N,) standard deviations; (N, A) of "all".
    """
    aspects = ASPECTS if aspect == ALL_ASPECTS else (aspect,)
    scores, variances = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            encoded = cache.encoded(chosen, views=np.full(len(chosen), view))
            probabilities = level_probabilities(backbone.aspect_logits(encoded, aspects))
            scores.append(expected_score(probabilities))
            variances.append(score_variance(probabilities))
    score, std = torch.cat(scores).double(), torch.cat(variances).double().sqrt()
    if aspect != ALL_ASPECTS:
        score, std = score[:, 0], std[:, 0]
    return score.numpy(), std.numpy()


class FuScoreTrainer(Trainer):
    """Trainer with the three-part loss, our batches, and rank correlations for validation.

    Args:
        loader: Training batches, each already a whole S x M batch.
        validate: Returns the evaluation of the current weights.
        options: Weights of the loss terms.
        model: A `LevelReader`.
        args: The Trainer's own arguments.
    """

    def __init__(
        self,
        *,
        loader: DataLoader[int],
        validate: Callable[[], Evaluation],
        options: FitOptions,
        model: LevelReader,
        args: TrainingArguments,
    ) -> None:
        # The Trainer wants an evaluation set; what is evaluated is up to `validate`.
        rows = loader.dataset
        super().__init__(model=model, args=args, train_dataset=rows, eval_dataset=rows)
        self.reader = model
        self.add_callback(_EpochOfSampler(loader))
        self.loader, self.validate, self.options = loader, validate, options
        self.terms: dict[str, list[float]] = defaultdict(list)

    def get_train_dataloader(self) -> DataLoader[int]:
        """Our batches as they are: sharding or shuffling them again would break the pairs."""
        return self.loader

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Three-part loss of each aspect, and the disagreement of twins; each part is logged."""
        logits = model(inputs["encoded"], inputs["aspects"])  # (N + T, A, 5)
        count = len(inputs["source_ids"])
        parts: dict[str, Tensor] = defaultdict(lambda: logits.new_zeros(()))
        total = logits.new_zeros(())
        for number, (mu, sigma) in enumerate(zip(inputs["mu"], inputs["sigma"], strict=True)):
            terms = tripartite_loss(
                logits[:count, number],
                mu,
                sigma,
                inputs["source_ids"],
                weights=self.options.weights,
            )
            share = self.options.sub_scores / (len(inputs["mu"]) - 1) if number else 1.0
            total = total + share * terms.total
            for name in ("dist", "within", "cross"):
                parts[name] = parts[name] + share * getattr(terms, name).detach()
        scores = expected_score(level_probabilities(logits))  # (N + T, A)
        difference = scores[count:] - scores[inputs["twins"]]  # (T, A); a batch may have none
        twins = difference.square().sum() / max(1, difference.numel())
        total = total + self.options.twins * twins
        for name, value in (parts | {"twins": twins.detach()}).items():
            self.terms[name].append(float(value))
        return (total, logits) if return_outputs else total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss part since the last log."""
        parts = {f"loss_{name}": float(np.mean(seen)) for name, seen in self.terms.items()}
        self.terms.clear()
        super().log(logs | parts, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Rank correlations on the validation scenes."""
        self.reader.eval()
        found = self.validate()
        self.reader.train()
        metrics = {
            f"eval_{name}": statistic.value for name, statistic in found.statistics().items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class _EpochOfSampler(TrainerCallback):
    """Tell our sampler the epoch; the Trainer does so only for loaders that it made itself."""

    def __init__(self, loader: DataLoader[int]) -> None:
        self.loader = loader

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.loader.batch_sampler.set_epoch(int(state.epoch or 0))  # type: ignore[union-attr]


def fit(
    backbone: Backbone,
    loader: DataLoader[int],
    validation: RatingsTable,
    validation_rows: Sequence[int],
    cache: FeatureCache,
    out: Path,
    options: FitOptions,
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
    """

    def validate() -> Evaluation:
        scores, _ = predict_cached(backbone, cache, validation_rows)
        frame = validation.frame
        return evaluate(scores, frame["overall"], frame["scene"], frame["method"], n_boot=20)

    trainer = FuScoreTrainer(
        model=LevelReader(backbone),
        args=_arguments(out, options),
        loader=loader,
        validate=validate,
        options=options,
    )
    trainer.train()
    backbone.eval()


def _arguments(out: Path, options: FitOptions) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(out),
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * options.steps),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        adam_beta2=0.98,
        eval_strategy="steps",
        eval_steps=options.evaluate_every,
        save_strategy="steps",
        save_steps=options.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_srcc",
        greater_is_better=True,
        logging_steps=50,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        seed=options.seed,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
