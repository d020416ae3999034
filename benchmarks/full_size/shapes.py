"""Shapes of published Qwen-VL models, for models of those classes with random or no weights.

Written down from the models' public descriptions; none of the weights or files were reachable. The
total that their pages state is checked in `tests/benchmarks/test_full_size.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from benchmarks.tiny_qwen import special_ids


@dataclass(frozen=True)
class Shape:
    """A model by its numbers.

    Attributes:
        family: Key of `fuscore_metric.backbones.FAMILIES`.
        stated: Parameters in billions, as its page states them; 0 if it states none.
        text: Over the language model's defaults.
        vision: Over the vision tower's defaults.
        tied: Whether the head is the embedding.
    """

    family: str
    stated: float
    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool = False

    def config(self) -> Any:
        """The transformers configuration."""
        kind = Qwen2_5_VLConfig if self.family == "qwen2_5_vl" else Qwen3VLConfig
        return kind(
            text_config=self.text,
            vision_config=self.vision,
            tie_word_embeddings=self.tied,
            **special_ids(),
        )

    def model(self, *, device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> Any:
        """A model of this shape, its weights random, or nowhere on the meta device."""
        classes = {
            "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
            "qwen3_vl": Qwen3VLForConditionalGeneration,
        }
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                return classes[self.family](self.config())
        finally:
            torch.set_default_dtype(before)


def _rope(theta: float, sections: list[int], **more: Any) -> dict[str, Any]:
    found = {"rope_type": "default", "rope_theta": theta, "mrope_section": sections, **more}
    return {"rope_parameters": found}


_QWEN3_TEXT = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    **_rope(5e6, [24, 20, 20], mrope_interleaved=True),
}

SHAPES = {
    "Qwen2.5-VL-7B": Shape(
        family="qwen2_5_vl",
        stated=8.29,
        text={
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            **_rope(1e6, [16, 24, 24]),
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    ),
    "Qwen3-VL-8B": Shape(
        family="qwen3_vl",
        stated=8.77,
        text={
            **_QWEN3_TEXT,
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
        vision={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    ),
    "Qwen3-VL-2B": Shape(
        family="qwen3_vl",
        stated=2.13,
        text={
            **_QWEN3_TEXT,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
        vision={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tied=True,
    ),
}
