"""Batches -> trained weights: transformers' Trainer with the three-part loss.

The same for the embedded model on cached features and for big models on images, in one process or
several. Batches and the validation of a model are given from outside.
"""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_training.evaluate import Evaluation
from fuscore_training.losses import LossWeights, tripartite_loss

log = logging.getLogger(__name__)

ExtraLoss: TypeAlias = tuple[float, Callable[[nn.Module, dict[str, Any], Tensor], Tensor]]
"""Weight and term."""


@dataclass(frozen=True)
class FitOptions:
    """How the weights are fitted.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Highest, after the warm-up; falls to 0 along a cosine.
        weight_decay: AdamW's.
        warmup: Share of the steps.
        evaluate_every: Steps between evaluations on validation scenes; the best weights are kept.
        patience: Evaluations without a better SRCC after which training stops; 0 for never.
        log_every: Steps between log lines, at most; they fall on the evaluations too, so that a run
            that is resumed logs what it would have logged.
        accumulate: Batches whose gradients are summed for one step; pairs are within a batch.
        weights: Weights of the three parts of the loss.
        sub_scores: Weight of the sub-scores' loss beside that of the overall quality.
        consistency: Weight of the squared difference between the scores of a triple's two views.
        seed: Seed of dropout and the like.
    """

    steps: int = 6000
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    evaluate_every: int = 500
    patience: int = 0
    log_every: int = 50
    accumulate: int = 1
    weights: LossWeights = field(default_factory=LossWeights)
    sub_scores: float = 0.5
    consistency: float = 5.0
    seed: int = 0


Images = list[dict[str, Tensor]]
"""Triples by source pair: `ir` and `vis` (1, 3, H, W), `fused` (M, 3, H, W), all in [0, 1]."""


class LevelReader(nn.Module):
    """What the Trainer trains: triples and aspects -> level logits (N, A, 5).

    All goes through one `forward`: wrappers for several processes support nothing else.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        # Where accelerate looks for the layers that FSDP is to cut.
        self._no_split_modules = list(getattr(backbone, "layer_classes", ()))

    def forward(self, triples: Encoded | Images, aspects: Sequence[str]) -> Tensor:
        """Read the level logits, in the order of the triples.

        Args:
            triples: Cached features of N triples, or images by source pair, each pair read once.
            aspects: A of `ASPECTS`.
        """
        if isinstance(triples, dict):
            return self.backbone.aspect_logits(triples, aspects)
        parts = [self.backbone.encode(**images) for images in triples]
        return torch.cat([self.backbone.aspect_logits(part, aspects) for part in parts])


class FuScoreTrainer(Trainer):
    """Trainer with the three-part loss, our batches, and rank correlations for validation.

    Checkpoints hold what is trained, not the frozen rest.

    Args:
        loader: Training batches of this process, each already a whole S x M batch.
        validate: Given the reader, as wrapped as it is, returns the evaluation of its weights; the
            same on all processes.
        options: Weights of the loss terms.
        extra_losses: Further terms of the loss by name, with their weight: given the model, a batch
            and the scores (N, A) of its triples with their graph, each returns a scalar.
        model: A `LevelReader`.
        args: The Trainer's own arguments, as `training_arguments` makes them.
    """

    def __init__(
        self,
        *,
        loader: DataLoader[int],
        validate: Callable[[nn.Module], Evaluation],
        options: FitOptions,
        extra_losses: Mapping[str, ExtraLoss] | None = None,
        model: LevelReader,
        args: TrainingArguments,
    ) -> None:
        # The Trainer wants an evaluation set; what is evaluated is up to `validate`.
        rows = loader.dataset
        super().__init__(model=model, args=args, train_dataset=rows, eval_dataset=rows)
        self.remove_callback(PrinterCallback)  # it prints; `log` logs
        self.add_callback(_EpochOfSampler(loader))
        if options.patience:
            self.add_callback(EarlyStoppingCallback(options.patience))
        self.loader, self.validate, self.options = loader, validate, options
        self.extra_losses = extra_losses or {}
        self.trained = {name for name, p in model.named_parameters() if p.requires_grad}
        self.terms: dict[str, list[Tensor]] = defaultdict(list)

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
        """Three-part loss of each aspect, and what else moves a score; each part is logged."""
        logits = model(inputs["triples"], inputs["aspects"])  # (N + T, A, 5)
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
        difference = scores[count:] - scores[inputs["repeated"]]  # (T, A); a batch may have none
        repeated = difference.square().sum() / max(1, difference.numel())
        total = total + self.options.consistency * repeated
        parts["consistency"] = repeated.detach()
        for name, (weight, extra) in self.extra_losses.items():
            value = extra(model, inputs, scores[:count])
            total = total + weight * value
            parts[name] = value.detach()
        for name, value in parts.items():
            self.terms[name].append(value)  # on its device: no synchronisation in every step
        return (total, logits) if return_outputs else total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss part since the last log, over all processes."""
        if self.terms:
            means = torch.stack([torch.stack(seen).mean() for seen in self.terms.values()])
            accelerator: Any = self.accelerator
            values = accelerator.reduce(means, reduction="mean").tolist()
            names = (f"loss_{name}" for name in self.terms)
            logs = logs | dict(zip(names, values, strict=True))
            self.terms.clear()
        if self.is_world_process_zero():
            shown = {name: float(f"{value:.4g}") for name, value in logs.items()}
            log.info("step %d of %d: %s", self.state.global_step, self.state.max_steps, shown)
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Rank correlations on the validation scenes."""
        self.reader.eval()
        found = self.validate(self.reader)
        self.reader.train()
        metrics = {
            f"eval_{name}": statistic.value for name, statistic in found.statistics().items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @property
    def reader(self) -> nn.Module:
        """The reader as it is now: sharded over processes once training has begun so."""
        return cast(nn.Module, self.model)

    def trained_state(self, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The trained weights alone, by name, of a whole state dict; by default of the model."""
        if state is None:
            # By parameter, not by state dict: tied weights are there once, as safetensors wants.
            state = {name: p.detach() for name, p in self.reader.named_parameters()}
        return {name: state[name].contiguous() for name in sorted(self.trained)}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, self.trained_state(state_dict))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The Trainer loads leniently and warns of every frozen weight that it did not find.
        if lost := [*(self.trained & set(load_result.missing_keys)), *load_result.unexpected_keys]:
            raise ValueError(
                f"Expected a checkpoint of this run's weights, {len(lost)} do not fit, "
                f"such as {min(lost)}: was it made with another recipe?"
            )


class _EpochOfSampler(TrainerCallback):
    """Tell our sampler the epoch; the Trainer does so only for loaders that it made itself."""

    def __init__(self, loader: DataLoader[int]) -> None:
        self.loader = loader

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.loader.batch_sampler.set_epoch(int(state.epoch or 0))  # type: ignore[union-attr]


def training_arguments(
    out: Path, options: FitOptions, *, batch_size: int = 1, mixed: bool = False
) -> TrainingArguments:
    """The Trainer's own arguments; making them joins the processes that accelerate has started.

    Args:
        out: Checkpoints; TensorBoard logs go to `out / "tensorboard"`.
        options: Schedule.
        batch_size: Triples in a batch; told to libraries that want to know.
        mixed: Compute in bfloat16 on float32 weights.
    """
    # The environment is the only way to set the folder; the Trainer has no argument for it.
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "tensorboard")
    return TrainingArguments(
        output_dir=str(out),
        max_steps=options.steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * options.steps),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        adam_beta2=0.98,
        bf16=mixed,
        eval_strategy="steps",
        eval_steps=options.evaluate_every,
        save_strategy="steps",
        save_steps=options.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_srcc",
        greater_is_better=True,
        logging_steps=math.gcd(options.log_every, options.evaluate_every),
        report_to=["tensorboard"],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        seed=options.seed,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
