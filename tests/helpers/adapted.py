"""Tiny models with an adapter."""

from dataclasses import replace
from pathlib import Path

import torch
from fuscore_training.large.tuning import TuneOptions, tune

from benchmarks.tiny_qwen import SMALL
from fuscore_metric import FuScore, FuScoreSpec
from fuscore_metric.backbones import backbone_class
from fuscore_metric.checkpoints.locate import fingerprint


def images(seed: int = 0, count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, 64, 96, generator=generator) for _ in range(3)]


def make_adapted(base: Path, family: str) -> FuScore:
    """A model with a LoRA that does something in every layer, language and vision."""
    backbone = backbone_class(family).from_base(base, preprocessing=SMALL)
    tune(backbone, TuneOptions(vision="lora", rank=4, dropout=0.0, checkpointing=False))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    spec = FuScoreSpec("adapted", family, backbone.preprocessing, "model", weights="adapter")
    pinned = replace(spec, base_model=str(base), base_revision=fingerprint(base))
    return FuScore(backbone, pinned)


def logits(model: FuScore) -> torch.Tensor:
    with torch.no_grad():
        return model(*images()).level_logits
