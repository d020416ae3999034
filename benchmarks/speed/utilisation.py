"""How much of the machine the model uses: python -m benchmarks.speed.utilisation.

The multiply-adds of a batch of eight triples, a second, over those of the fastest large matrix
product in the same run, by the same threads and in the same dtype; as a whole and by stage. With
`--profile` also what the time is spent on, by kind of operation.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.clock import best_seconds, caption, matmul_rate
from benchmarks.speed.models import MODELS
from benchmarks.speed.scenes import random_triples
from benchmarks.speed.work import work
from fuscore_metric import FuScore
from fuscore_metric.prompts import DEFAULT_ASPECT

BATCH, HEIGHT, WIDTH = 8, 480, 640
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear"),
    "attention": ("scaled_dot_product",),
    "convolutions": ("convolution",),
    "activations": ("gelu", "silu", "hardtanh", "clamp"),
    "norms and sums": ("layer_norm", "rsqrt", "sqrt", "pow", "sum", "mean"),
    "pooling": ("pool",),
    "number by number": (
        *("mul", "add", "sub", "div", "neg", "abs", "ge", "gt", "where", "maximum", "log"),
        *("mul_", "add_", "sub_", "div_"),
    ),
    "copies and fills": ("copy", "cat", "clone", "index", "stack", "pad", "flip", "fill", "zero"),
}
"""Kinds of operations by what torch calls them; the first that fits counts."""


@dataclass(frozen=True)
class Stage:
    """One stage of a batch.

    Attributes:
        seconds: Least of the rounds.
        flops: Counted on one triple, times the batch: exact, as nothing is shared.
    """

    seconds: float
    flops: int

    @property
    def rate(self) -> float:
        """FLOPs a second."""
        return self.flops / self.seconds


def calls(model: FuScore, images: tuple[Tensor, ...]) -> dict[str, Callable[[], object]]:
    """The stages of scoring some triples, each on what the one before made."""
    backbone = model.backbone
    with torch.no_grad():
        encoded = backbone.encode(*images)
        prefix = backbone.read_sources(encoded)
    return {
        "whole": lambda: model(*images),
        "vision": lambda: backbone.encode(*images),
        "prefix": lambda: backbone.read_sources(encoded),
        "candidate": lambda: backbone.aspect_logits(encoded, (DEFAULT_ASPECT,), prefix),
    }


def stages(
    model: FuScore, rounds: int, *, batch: int = BATCH, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> dict[str, Stage]:
    """Time all stages, and count their work."""
    images = random_triples(batch, *size)
    best = best_seconds(calls(model, images), rounds)
    alone = calls(model, tuple(column[:1] for column in images))
    return {name: Stage(seconds, batch * work(alone[name]).flops) for name, seconds in best.items()}


def shares(call: Callable[[], object]) -> dict[str, float]:
    """Share of each kind of operation in the processor time of a call."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    found: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        found[kind(event.key)] += event.self_cpu_time_total
    total = sum(found.values())
    return {name: taken / total for name, taken in sorted(found.items(), key=lambda item: -item[1])}


def kind(operation: str) -> str:
    """The kind of an operation by its name, such as "aten::addmm"."""
    name = operation.removeprefix("aten::")
    for found, parts in KINDS.items():
        # Short names are parts of many others.
        if any(part == name or (len(part) > 3 and part in name) for part in parts):
            return found
    return "others"


def show_shares(by_stage: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of the kinds that take more than a hundredth of a stage."""
    kinds = dict.fromkeys(k for found in by_stage.values() for k, v in found.items() if v > 0.01)
    print("\n| share of the time | " + " | ".join(by_stage) + " |")
    print("|---|" + "---|" * len(by_stage))
    for name in kinds:
        parts = [f"{100 * found.get(name, 0):.0f} %" for found in by_stage.values()]
        print(f"| {name} | " + " | ".join(parts) + " |")


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["0.1B", "embedded"], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    for name in given.models:
        model = MODELS[name]()
        rate = matmul_rate(model.dtype)
        print(
            f"\n{caption(str(model.dtype), f'{name}, batch {BATCH}, {WIDTH}x{HEIGHT}')}; ", end=""
        )
        print(f"matrix product {rate / 1e9:.0f} GFLOP/s\n")
        print(
            "| stage | s per batch | GFLOP per triple | GFLOP/s | utilisation |\n"
            "|---|---|---|---|---|"
        )
        for stage, found in stages(model, given.rounds).items():
            each = found.flops / BATCH / 1e9
            print(
                f"| {stage} | {found.seconds:.3f} | {each:.2f} | {found.rate / 1e9:.0f} "
                f"| {100 * found.rate / rate:.0f} % |",
                flush=True,
            )
        if given.profile:
            ways = calls(model, random_triples(BATCH, HEIGHT, WIDTH))
            show_shares({stage: shares(way) for stage, way in ways.items() if stage != "whole"})


if __name__ == "__main__":
    main()
