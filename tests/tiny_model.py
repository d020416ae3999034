"""A tiny untrained FuScore of the embedded family, made in a fraction of a second."""

from pathlib import Path

import torch
from fuscore_training.initialise import build_words

from fuscore_metric.backbones.lite_llama import LiteLlama
from fuscore_metric.checkpoint import FuScoreSpec
from fuscore_metric.model import FuScore

LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tiny_backbone(folder: Path, seed: int = 0) -> LiteLlama:
    torch.manual_seed(seed)
    return LiteLlama(build_words(folder / "words.json"), llama=LLAMA).eval()


def tiny_spec(backbone: LiteLlama) -> FuScoreSpec:
    return FuScoreSpec("tiny", backbone.family, backbone.preprocessing, "none")


def tiny_fuscore(folder: Path, seed: int = 0) -> FuScore:
    backbone = tiny_backbone(folder, seed)
    return FuScore(backbone, tiny_spec(backbone))
