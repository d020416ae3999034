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
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL
from fuscore_metric.prompts import LEVEL_WORDS

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
    vocabulary, merges = pieces(split_excellent=split_excellent)
    made = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    made.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    return made


def pieces(*, split_excellent: bool = False) -> tuple[dict[str, int], list[Any]]:
    """Vocabulary and merges of a byte-level BPE: letters, and the level words after a space."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:?.,<|>_ĠĊ"
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges: list[Any] = []  # pairs; transformers names another type
    for word in LEVEL_WORDS:
        piece = "Ġ"
        for letter in word:
            if not (split_excellent and piece + letter == "Ġexcellent"):
                merges.append((piece, letter))
            piece += letter
            vocabulary.setdefault(piece, len(vocabulary))
    return vocabulary, merges


def tiny_model(family: str, *, seed: int = 0, width: int = 1, vocabulary: int = VOCABULARY) -> Any:
    """A random model of some 90,000 parameters, in eval mode; Qwen3's head is tied.

    Args:
        family: One of `FAMILIES`.
        seed: Seed of the weights.
        width: Factor of every width but the patches'.
        vocabulary: Rows of the embedding.
    """
    torch.manual_seed(seed)
    make = _qwen2_5 if family == "qwen2_5_vl" else _qwen3
    made: Any = make(width, vocabulary)
    return made.eval()


def tiny_backbone(
    family: str,
    *,
    seed: int = 0,
    width: int = 1,
    vocabulary: int = VOCABULARY,
    **preprocessing: Any,
) -> QwenVL:
    """The backbone around `tiny_model`; every parameter is trainable."""
    model = tiny_model(family, seed=seed, width=width, vocabulary=vocabulary)
    return qwen_class(family)(model, tokenizer(), {**SMALL, **preprocessing})


def qwen_class(family: str) -> type[QwenVL]:
    """The backbone of a family, which is made from a model and its tokenizer."""
    found = backbone_class(family)
    assert issubclass(found, QwenVL)
    return found


def special_ids() -> dict[str, Any]:
    """Ids of the tokens around and of images, as configurations name them."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer().convert_tokens_to_ids(token) for name, token in names.items()}


# A larger spread than the usual 0.02: logits of order 1, so that a wrong input shows.
_SPREAD = 0.2


def _text(width: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32 * width,
        "intermediate_size": 48 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": _SPREAD / width**0.5,
    }


def _vision(width: int) -> dict[str, Any]:
    return {
        "depth": 3,
        "hidden_size": 16 * width,
        "intermediate_size": 24 * width,
        "num_heads": 2,
        "out_hidden_size": 32 * width,
        "initializer_range": _SPREAD / width**0.5,
    }


def _rope(width: int) -> dict[str, Any]:
    # mrope_section sums to half the head: 8 / 2.
    sections = [2 * width, width, width]
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}


def _qwen2_5(width: int, vocabulary: int) -> Qwen2_5_VLForConditionalGeneration:
    # Windows of 2 x 2 tokens, full attention in the second layer only.
    windows = {"window_size": 56, "fullatt_block_indexes": [1]}
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = Qwen2_5_VLConfig(
        text_config={**_text(width, vocabulary), "rope_parameters": _rope(width), **ends},
        vision_config={**_vision(width), **windows},
        tie_word_embeddings=False,
        **special_ids(),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3(width: int, vocabulary: int) -> Qwen3VLForConditionalGeneration:
    rope = {**_rope(width), "mrope_interleaved": True}
    deepstack = {"num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(
        text_config={**_text(width, vocabulary), "rope_parameters": rope, "head_dim": 8 * width},
        vision_config={**_vision(width), **deepstack},
        tie_word_embeddings=True,
        **special_ids(),
    )
    return Qwen3VLForConditionalGeneration(config)
