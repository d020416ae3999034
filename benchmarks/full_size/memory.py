"""Parameters and memory of 7-8B models, without weights: python -m benchmarks.full_size.memory.

Everything is counted on the meta device, through FuScore's own path for pixels, prompt, level
logits, LoRA and loss. A real run needs more: fragments, kernels' workspaces, CUDA itself.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from fuscore_training.large.tuning import PARTS, TuneOptions, part_of, tune
from fuscore_training.trainer import LevelReader
from torch import Tensor

from benchmarks.full_size.counting import LiveBytes, fused_attention
from benchmarks.full_size.shapes import SHAPES, Shape
from benchmarks.tiny_qwen import qwen_class, tokenizer
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL
from fuscore_metric.leaderboard.markup import markdown_table

GIB = 2**30
SIZE = (480, 640)
"""Most fusion test sets'."""
MODELS = ("Qwen2.5-VL-7B", "Qwen3-VL-8B")


def without_weights(shape: Shape, *, dtype: torch.dtype = torch.bfloat16) -> QwenVL:
    """A backbone without weights; its grids stay on the CPU, as their values decide on shapes."""
    family: Any = qwen_class(shape.family)

    class WithoutWeights(family):  # type: ignore[misc]
        def pixels(self, images: Tensor) -> tuple[Tensor, Tensor]:
            patches, grid = super().pixels(images)
            _, real = super().pixels(torch.empty(1, 3, *images.shape[-2:]))
            return patches, real.expand(len(grid), -1)

    made: QwenVL = WithoutWeights(shape.model(dtype=dtype), tokenizer())
    return made


def images(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """A batch without pixels."""
    return torch.empty(count, 3, *size, device="meta")


def parameters(backbone: QwenVL) -> dict[str, int]:
    """Parameters of each part."""
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in backbone.model.named_parameters():
        found[part_of(name)] += parameter.numel()
    return found


def scoring(backbone: QwenVL, count: int, size: tuple[int, int] = SIZE) -> LiveBytes:
    """Count one forward pass of `count` triples."""
    counted = LiveBytes()
    counted.know(backbone)
    with fused_attention(), counted, torch.no_grad():
        encoded = backbone.encode(images(count, size), images(count, size), images(count, size))
        backbone.level_logits(encoded, "overall")
    return counted


def training(
    backbone: QwenVL, options: TuneOptions, scenes: int, methods: int, aspects: list[str]
) -> tuple[LiveBytes, int]:
    """Count one forward and backward pass; also how many parameters are trained."""
    tune(backbone, options)
    reader, counted = LevelReader(backbone.train()), LiveBytes()
    counted.know(reader)
    triples = [{"ir": images(1), "vis": images(1), "fused": images(methods)} for _ in range(scenes)]
    with fused_attention(), counted:
        reader(triples, aspects).sum().backward()  # the loss itself holds five numbers per triple
    return counted, sum(p.numel() for p in reader.parameters() if p.requires_grad)


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / GIB:.1f}"


def parameter_table() -> None:
    """Where the parameters are, and what their weights take."""
    rows = []
    for name in SHAPES:
        parts = parameters(without_weights(SHAPES[name]))
        total = sum(parts.values())
        billions = [f"{parts[part] / 1e9:.3f}" for part in PARTS] + [f"{total / 1e9:.3f}"]
        rows.append([name, *billions, gib(2 * total), gib(4 * total)])
    print("Parameters in billions, weights in GiB:\n")
    print(markdown_table(["model", *PARTS, "all", "bfloat16", "float32"], rows) + "\n")


def scoring_table() -> None:
    """What scoring takes beside the weights."""
    rows = []
    for name in MODELS:
        for size in (SIZE, (768, 1024)):
            backbone = without_weights(SHAPES[name])
            tokens = int(backbone.pixels(images(1, size))[1][0].prod()) // 4
            one, eight = (scoring(backbone, count, size) for count in (1, 8))
            sizes = f"{size[1]}x{size[0]}, {tokens} tokens per image"
            flops = f"{one.flops / 1e12:.1f}"
            rows.append([name, sizes, gib(one.peak), gib(eight.peak), flops])
    print("Scoring in bfloat16, GiB beside the weights, and operations of the matrix products:\n")
    heading = ["model", "image", "1 triple", "8 triples", "TFLOP per triple"]
    print(markdown_table(heading, rows) + "\n")


def training_table() -> None:
    """What a training step takes in all."""
    rows = []
    for name in MODELS:
        for what, options, batches in TUNINGS:
            for scenes, methods, aspects in batches:
                backbone = without_weights(SHAPES[name])
                weights = 2 * sum(parameters(backbone).values())
                asked = ["overall", "sharpness"][:aspects]
                counted, trained = training(backbone, options, scenes, methods, asked)
                # AdamW: two float32 numbers for each trained parameter.
                state = 8 * trained
                rows.append(
                    [
                        f"{name}, {what}",
                        f"{scenes} x {methods}, {aspects}",
                        f"{trained / 1e6:.0f} M",
                        *(gib(x) for x in (weights, counted.peak, state)),
                        gib(weights + counted.peak + state),
                        f"{counted.flops / 1e12:.0f}",
                    ]
                )
                gc.collect()
    print("A training step at 640x480 in one process, GiB:\n")
    heading = ["model", "scenes x methods, questions", "trained", "weights"]
    heading += ["activations and gradients", "AdamW", "in all", "TFLOP"]
    print(markdown_table(heading, rows))


TUNINGS = (
    ("LoRA, checkpointing", TuneOptions(), ((2, 2, 1), (4, 4, 1), (4, 4, 2))),
    ("LoRA, without checkpointing", TuneOptions(checkpointing=False), ((2, 2, 1),)),
)
"""What is trained, and batches: scenes, methods, questions."""


def main() -> None:
    """Print all tables."""
    parameter_table()
    scoring_table()
    training_table()


if __name__ == "__main__":
    main()
