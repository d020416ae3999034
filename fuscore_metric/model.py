"""FuScore: (ir, vis, fused) -> level logits -> probabilities -> score, for tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fuscore_metric.attribution import DEFAULT_STEPS, attribute
from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.base import Backbone
from fuscore_metric.checkpoint import EMBEDDED, CheckpointError, FuScoreSpec, locate, read_spec
from fuscore_metric.images import check_batches
from fuscore_metric.levels import (
    SCORE_RANGE,
    expected_score,
    level_probabilities,
    preference,
    score_variance,
)
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


# What readers of files, of JSON and of state dicts raise at damaged or foreign weights.
_LOADING_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class FuScoreOutput:
    """What FuScore says of a batch of N triples, in float32 whatever the model's dtype.

    Asked for all aspects at once, every field has an axis more: (N, A), in the order of
    `fuscore_metric.prompts.ASPECTS`.

    Attributes:
        score: (N,) expected level in [1, 5], higher is better.
        std: (N,) standard deviation of the level: the model's own uncertainty, in score units.
        probabilities: (N, 5) of bad, poor, fair, good, excellent.
        level_logits: (N, 5) before the softmax.
    """

    score: Tensor
    std: Tensor
    probabilities: Tensor
    level_logits: Tensor

    @property
    def variance(self) -> Tensor:
        """(N,) variance of the level, as `levels.preference` takes it."""
        return score_variance(self.probabilities)

    @classmethod
    def from_logits(cls, level_logits: Tensor) -> Self:
        """Make the output of (N, 5) level logits of any dtype."""
        probabilities = level_probabilities(level_logits)
        # The square root's slope is infinite at 0, which a certain answer reaches.
        std = score_variance(probabilities).clamp_min(1e-12).sqrt()
        return cls(expected_score(probabilities), std, probabilities, level_logits.float())


class FuScore(nn.Module):
    """A frozen, differentiable judge of infrared-visible image fusion.

    Always in eval mode, also inside a parent that is switched to training; its parameters do not
    require gradients, its inputs may.

    Args:
        backbone: The multimodal LLM.
        spec: What its weights are and were trained on.
    """

    higher_is_better = True
    is_differentiable = True
    score_range = SCORE_RANGE

    def __init__(self, backbone: Backbone, spec: FuScoreSpec) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.spec = spec
        self.train(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = EMBEDDED,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load weights.

        Args:
            name_or_path: "embedded" (comes with the package), a directory, or a hub id.
            revision: Hub revision; pin a commit hash for scores that must not change.
            device: Where to compute; the CPU by default.
            dtype: float32 (default) or bfloat16; float16 only for families known to be safe in it.
            local_files_only: Never download.

        Raises:
            CheckpointError: No such weights, or weights that this version cannot use.
            ValueError: The device cannot be used here.
        """
        directory = locate(str(name_or_path), revision=revision, local_files_only=local_files_only)
        spec = read_spec(directory)
        family = backbone_class(spec.family)
        dtype, place = _checked_dtype(dtype, family), check_device(device or "cpu")
        try:
            backbone = family.load(directory, spec.preprocessing, dtype=dtype)
        except (CheckpointError, torch.OutOfMemoryError, ImportError):
            raise
        except _LOADING_ERRORS as error:
            raise CheckpointError(
                f"Cannot load the weights in {str(directory)!r}: {' '.join(str(error).split())}"
            ) from error
        return cls(backbone.to(place), spec)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads: safetensors and `fuscore.json`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.backbone.save(directory)
        self.spec.save(directory)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.backbone.dtype

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: a judge does not change with its parent's mode."""
        del mode
        return super().train(False)

    def forward(
        self, ir: Tensor, vis: Tensor, fused: Tensor, aspect: str = DEFAULT_ASPECT
    ) -> FuScoreOutput:
        """Judge a batch of triples; differentiable with respect to all three images.

        Values are not looked at: that would cost a device synchronisation a step. They should lie
        in [0, 1]; `fuscore_metric.score` checks them.

        Args:
            ir: (N, 3, H, W) float in [0, 1], on the model's device.
            vis: (N, 3, H, W), likewise.
            fused: (N, 3, H, W), likewise.
            aspect: One of `fuscore_metric.prompts.ASPECTS`, or "all": the images are read once
                for all five, and every result has a second axis in that order, (N, A, ...).

        Raises:
            InputError: A shape or dtype is wrong, or the three differ in shape.
            ValueError: The aspect is unknown.
        """
        check_batches(ir=ir, vis=vis, fused=fused)
        # The weights' dtype decides what is computed in which; a caller's autocast would override.
        with torch.autocast(fused.device.type, enabled=False):
            encoded = self.backbone.encode(ir, vis, fused)
            if aspect == ALL_ASPECTS:
                logits = self.backbone.aspect_logits(encoded, ASPECTS)
            else:
                logits = self.backbone.level_logits(encoded, aspect)
            return FuScoreOutput.from_logits(logits)

    def attribution(
        self,
        ir: Tensor,
        vis: Tensor,
        fused: Tensor,
        aspect: str = DEFAULT_ASPECT,
        *,
        steps: int = DEFAULT_STEPS,
        baseline: Tensor | None = None,
    ) -> Tensor:
        """Show where `fused` lost its score: see `fuscore_metric.attribution.attribute`.

        Returns:
            (N, H, W) float32 >= 0: points of score lost per pixel, smoothed.

        Raises:
            InputError: A shape or dtype is wrong, or the images differ in shape.
            ValueError: An unknown aspect, or `steps` below 1.
        """
        return attribute(self, ir, vis, fused, aspect=aspect, steps=steps, baseline=baseline)

    def preference(self, a: FuScoreOutput, b: FuScoreOutput) -> Tensor:
        """Probability that a person prefers a to b, calibrated by the weights' temperature.

        Args:
            a: What this model said of N triples.
            b: What it said of N others, or of one; of the same or other scenes.

        Returns:
            (N,) in [0, 1]; (N, A) for outputs of all aspects.
        """
        return preference(
            a.score, b.score, a.variance, b.variance, temperature=self.spec.temperature
        )


def check_device(device: str | torch.device) -> torch.device:
    """Return a device that works here.

    Raises:
        ValueError: PyTorch does not know it, or cannot use it on this machine.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected `device` that works here, got {str(device)!r}: {reason}"
        ) from error


def _checked_dtype(dtype: str | torch.dtype | None, family: type[Backbone]) -> torch.dtype:
    wanted = _DTYPES.get(dtype) if isinstance(dtype, str) else (dtype or torch.float32)
    if wanted is None or wanted not in _DTYPES.values():
        raise ValueError(f"Expected `dtype` to be one of {', '.join(_DTYPES)}, got {dtype!r}")
    if wanted == torch.float16 and not family.fp16:
        raise CheckpointError(
            f"Expected float32 or bfloat16 for family {family.family}, got float16: "
            "its activations overflow in float16"
        )
    return wanted
