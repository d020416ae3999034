"""A tiny untrained FuScore of the embedded family, made in a fraction of a second."""

from pathlib import Path

import torch
from fuscore_training.embedded.initialise import build_words

from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.checkpoints.spec import FuScoreSpec
from fuscore_metric.model import FuScore

LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tiny_backbone(folder: Path, seed: int = 0, *, relations: bool = False) -> LiteLlama:
    torch.manual_seed(seed)
    words = build_words(folder / "words.json")
    return LiteLlama(words, llama=LLAMA, relations=relations).eval()


def tiny_spec(backbone: LiteLlama) -> FuScoreSpec:
    return FuScoreSpec("tiny", backbone.family, backbone.preprocessing, "none")


def tiny_fuscore(folder: Path, seed: int = 0, *, relations: bool = False) -> FuScore:
    backbone = tiny_backbone(folder, seed, relations=relations)
    return FuScore(backbone, tiny_spec(backbone))
