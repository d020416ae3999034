"""Tiny random LLaVA models with each kind of vision tower, built in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from benchmarks.tiny_qwen import VOCABULARY, pieces
from fuscore_metric.backbones.lite.config import DEFAULT_PREPROCESSING
from fuscore_metric.backbones.llava.architecture import LlavaWithStatistics
from fuscore_metric.backbones.llava.llava import Llava

TOWERS = ("clip", "siglip", "dinov2")
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<image>")
STATISTICS = {**DEFAULT_PREPROCESSING, "grid": 2, "relations": True}
SMALL = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
"""For towers that take any size; 4 to 16 tokens."""

# Larger spreads than the usual 0.02: logits of order 1, so that a wrong input shows.
_SPREAD = 0.2


@lru_cache(maxsize=2)
def tokenizer(*, split_excellent: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE; level words are single after a space.

    Args:
        split_excellent: Leave " excellent" in two pieces.
    """
    vocabulary, merges = pieces(split_excellent=split_excellent)
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    found: PreTrainedTokenizerFast = make(tokenizer_object=made)
    found.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    return found


def tiny_model(
    tower: str = "dinov2",
    *,
    seed: int = 0,
    width: int = 1,
    layers: int | list[int] | None = None,
    statistics: bool = False,
) -> LlavaWithStatistics:
    """A random model in eval mode; its head is tied.

    Args:
        tower: One of `TOWERS`.
        seed: Seed of the weights.
        width: Factor of every width.
        layers: `vision_feature_layer`; by default two of them.
        statistics: Whether it has cell statistics, with an untrained network.
    """
    torch.manual_seed(seed)
    vision: dict[str, Any] = {
        "hidden_size": 16 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "initializer_range": _SPREAD,
    }
    fixed: dict[str, Any] = {"intermediate_size": 24 * width, "image_size": 56, "patch_size": 14}
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32 * width,
        intermediate_size=48 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=_SPREAD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    made: Any = {
        "clip": lambda: CLIPVisionConfig(**vision, **fixed),
        "siglip": lambda: SiglipVisionConfig(**vision, **fixed),
        "dinov2": lambda: Dinov2Config(**vision, mlp_ratio=2, image_size=42, patch_size=14),
    }
    make_config: Any = LlavaConfig
    config = make_config(
        vision_config=made[tower](),
        text_config=text,
        image_token_index=tokenizer().convert_tokens_to_ids("<image>"),
        vision_feature_layer=[1, 3] if layers is None else layers,
        vision_feature_select_strategy="full" if tower == "siglip" else "default",
        tie_word_embeddings=True,
        **({"statistics": STATISTICS} if statistics else {}),
    )
    model: Any = LlavaWithStatistics(config)
    made_model: LlavaWithStatistics = model.eval()
    return made_model


def tiny_backbone(
    tower: str = "dinov2",
    *,
    seed: int = 0,
    width: int = 1,
    layers: int | list[int] | None = None,
    statistics: bool = False,
    **preprocessing: Any,
) -> Llava:
    """The backbone around `tiny_model`."""
    model = tiny_model(tower, seed=seed, width=width, layers=layers, statistics=statistics)
    small = SMALL if tower == "dinov2" else {}
    return Llava(model, tokenizer(), {**small, **preprocessing})
