"""The models that are timed: the embedded one, and a random Qwen-VL of a tenth of a billion.

No real Qwen weights are needed to learn how long a shape takes, so the second is random, with a
small tokenizer of Qwen's own kind; its scores mean nothing. `python -m benchmarks.speed.models`
prints how many parameters each part has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from fuscore_training.large.tuning import part_of

from benchmarks.full_size.shapes import Shape
from benchmarks.tiny_qwen import SMALL, VOCABULARY, qwen_class, tiny_backbone, tokenizer
from fuscore_metric import FuScore, FuScoreSpec
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL

TENTH = Shape(
    family="qwen3_vl",
    stated=0,
    text={
        "vocab_size": VOCABULARY,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 10,
        "num_key_value_heads": 5,
        "head_dim": 64,
        # Twice the usual spread: logits of order 1, so that a wrong score shows.
        "initializer_range": 0.04,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
    },
    vision={
        "depth": 12,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_heads": 6,
        "out_hidden_size": 640,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [3, 6, 9],
        "initializer_range": 0.04,
    },
    tied=True,
)
"""A Qwen3-VL with every part of the real ones; a word embedding of 509 rows, so hardly any."""


def embedded(dtype: torch.dtype = torch.float32) -> FuScore:
    """The weights that come with the package."""
    return FuScore.from_pretrained(dtype=str(dtype).removeprefix("torch."))


def tenth(dtype: torch.dtype = torch.float32, **preprocessing: int) -> FuScore:
    """A random Qwen3-VL of 0.1 billion parameters, with the default pixel budget unless given."""
    torch.manual_seed(0)
    model = TENTH.model(device="cpu", dtype=torch.float32).eval()
    backbone = qwen_class(TENTH.family)(model, tokenizer(), preprocessing).to(dtype)
    return FuScore(backbone, FuScoreSpec("0.1 B", TENTH.family, backbone.preprocessing, "none"))


def tiny(dtype: torch.dtype = torch.float32) -> FuScore:
    """A random Qwen3-VL of 90,000 parameters and few tokens per image, to try the scripts on."""
    backbone = tiny_backbone("qwen3_vl", **SMALL).to(dtype)
    return FuScore(backbone, FuScoreSpec("tiny", "qwen3_vl", backbone.preprocessing, "none"))


MODELS: dict[str, Callable[..., FuScore]] = {"embedded": embedded, "0.1B": tenth, "tiny": tiny}


def parameters(model: FuScore) -> dict[str, int]:
    """Parameters of a Qwen-VL by part, and of its word embedding, which is also its head."""
    assert isinstance(model.backbone, QwenVL)
    found: dict[str, int] = {}
    for name, parameter in model.backbone.model.named_parameters():
        part = "words" if "embed_tokens" in name else part_of(name)
        found[part] = found.get(part, 0) + parameter.numel()
    return found


def main() -> None:
    """Print the parameters."""
    count = sum(p.numel() for p in embedded().parameters())
    print(f"embedded: {count:,} parameters")
    parts = parameters(tenth())
    print(f"0.1B: {sum(parts.values()):,} parameters")
    for part, number in parts.items():
        print(f"  {part}: {number:,}")


if __name__ == "__main__":
    main()
