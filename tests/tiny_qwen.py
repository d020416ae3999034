"""Tiny random Qwen-VL models with a tokenizer of Qwen's own kind, built in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.qwen_vl import QwenVL
from fuscore_metric.levels import LEVEL_WORDS

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = 509
"""Rows of the embedding: more than the tokenizer has, as in the real ones, and no other size."""

# Sides of 1 to 4 merge windows (28 or 32 pixels): a few dozen tokens, so tests stay fast.
SMALL = {"min_pixels": 56 * 56, "max_pixels": 128 * 128}


@lru_cache(maxsize=2)
def tokenizer(*, split_excellent: bool = False) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen's own word splitting; level words are single after a space.

    Args:
        split_excellent: Leave " excellent" in two pieces.
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:?.,<|>_ĠĊ"
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for word in LEVEL_WORDS:
        piece = "Ġ"
        for letter in word:
            if not (split_excellent and piece + letter == "Ġexcellent"):
                merges.append((piece, letter))
            piece += letter
            vocabulary.setdefault(piece, len(vocabulary))
    made = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    made.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    return made


def tiny_model(family: str, *, seed: int = 0) -> Any:
    """A random model of some 90,000 parameters, in eval mode; Qwen3's head is tied."""
    torch.manual_seed(seed)
    made = _qwen2_5() if family == "qwen2_5_vl" else _qwen3()
    return made.eval()


def tiny_backbone(family: str, *, seed: int = 0, **preprocessing: Any) -> QwenVL:
    """The backbone around `tiny_model`; every parameter is trainable."""
    made = backbone_class(family)(
        tiny_model(family, seed=seed), tokenizer(), {**SMALL, **preprocessing}
    )
    assert isinstance(made, QwenVL)
    return made


def _special_ids() -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer().convert_tokens_to_ids(token) for name, token in names.items()}


# A larger spread than the usual 0.02: logits of order 1, so that a wrong input shows.
_SPREAD = 0.2
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": _SPREAD,
}
_VISION = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "initializer_range": _SPREAD,
}


def _qwen2_5() -> Qwen2_5_VLForConditionalGeneration:
    # mrope_section sums to half the head: 8 / 2.
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    # Windows of 2 x 2 tokens, full attention in the second layer only.
    windows = {"window_size": 56, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": rope, "bos_token_id": None, "eos_token_id": None},
        vision_config={**_VISION, **windows},
        tie_word_embeddings=False,
        **_special_ids(),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3() -> Qwen3VLForConditionalGeneration:
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config={**_TEXT, "rope_parameters": rope, "head_dim": 8},
        vision_config={
            **_VISION,
            "num_position_embeddings": 25,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        **_special_ids(),
    )
    return Qwen3VLForConditionalGeneration(config)
