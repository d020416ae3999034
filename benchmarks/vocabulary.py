"""Memory of one training step by size of the vocabulary: python -m benchmarks.vocabulary.

A random Qwen-VL of 6 layers and width 256, LoRA, a batch of 2 scenes x 2 methods. Each size runs in
a process of its own; what is shown is how far the step lifts the process's peak above what it held
before. Beside it the same step with logits of the whole vocabulary at every position, as a language
model's own training loss needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from fuscore_training.large.tuning import TuneOptions, tune
from fuscore_training.losses import tripartite_loss
from fuscore_training.trainer import LevelReader

from benchmarks.resident import peak, reset_peak
from benchmarks.tiny_qwen import tiny_backbone

SIZES = (1_000, 151_936)
WAYS = ("five rows", "whole vocabulary")
MIB = 2**20


def step(reader: LevelReader, way: str) -> None:
    """One forward and backward pass."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 160, 192)
    triples = [
        {
            "ir": torch.rand(1, *shape, generator=generator),
            "vis": torch.rand(1, *shape, generator=generator),
            "fused": torch.rand(2, *shape, generator=generator),
        }
        for _ in range(2)
    ]
    model: Any = reader.backbone.model
    if way == "five rows":
        logits = reader(triples, ["overall"])[:, 0]
    else:
        seen: list[torch.Tensor] = []
        hook = model.model.language_model.register_forward_hook(
            lambda _module, _inputs, output: seen.append(output.last_hidden_state)
        )
        reader(triples, ["overall"])
        hook.remove()
        rows = list(range(5))
        logits = torch.cat([model.lm_head(hidden)[:, -1, rows] for hidden in seen])
    mu, sigma = torch.tensor([2.0, 4.0, 3.0, 1.0]), torch.full((4,), 0.5)
    tripartite_loss(logits, mu, sigma, torch.tensor([0, 0, 1, 1])).total.backward()


def measure(vocabulary: int, way: str) -> float:
    """MiB that a step adds to the peak."""
    torch.set_num_threads(1)
    backbone = tiny_backbone("qwen2_5_vl", width=8, vocabulary=vocabulary, max_pixels=256 * 256)
    tune(backbone, TuneOptions(dropout=0.0))
    reader = LevelReader(backbone.train())
    reset_peak()
    before = peak()
    step(reader, way)
    return (peak() - before) / MIB


def main() -> None:
    """Run each size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, help="Internal: one vocabulary and way.")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(int(given.one[0]), given.one[1])))
        return
    print(
        "| one training step adds to the peak | " + " | ".join(f"{n:,} words" for n in SIZES) + " |"
    )
    print("|---|" + "---|" * len(SIZES))
    for way in WAYS:
        found = [
            subprocess.run(
                [sys.executable, "-m", "benchmarks.vocabulary", "--one", str(size), way],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
            for size in SIZES
        ]
        print(f"| {way} | " + " | ".join(f"{float(x):.0f} MiB" for x in found) + " |")


if __name__ == "__main__":
    main()
