"""What the reward costs beside the same backbone without it: time and memory, in one run.

    python -m benchmarks.reward.cost

Random images, embedded weights, all threads. Forward and backward, the best of several rounds in
which all ways take turns so that they meet the same machine. Memory is the peak of a process of its
own over what it held before its first pass: sources that carry a graph show there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fuscore_metric import FuScore, FuScoreReward, TrustRegion

HEIGHT, WIDTH, BATCH, ROUNDS = 480, 640, 4, 4
BASE = "backbone, graph for all three images"

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def steps(model: FuScore) -> dict[str, Step]:
    """Scalars to go backward from, by name; called with images that require gradients."""
    reward = FuScoreReward(model)
    guarded = FuScoreReward(model, trust_region=TrustRegion())
    weights = {"overall": 0.5, "thermal_retention": 0.25, "sharpness": 0.25}
    several = FuScoreReward(model, aspects=weights)
    return {
        BASE: lambda ir, vis, fused: model(ir, vis, fused).score.sum(),
        "backbone, graph for fused": lambda ir, vis, fused: model(
            ir.detach(), vis.detach(), fused
        ).score.sum(),
        "reward": lambda ir, vis, fused: reward(ir, vis, fused).sum(),
        "reward, trust region": lambda ir, vis, fused: guarded(ir, vis, fused).sum(),
        "reward, three aspects": lambda ir, vis, fused: several(ir, vis, fused).sum(),
    }


def images() -> list[Tensor]:
    """A batch of triples."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, 3, HEIGHT, WIDTH)
    return [torch.rand(shape, generator=generator, requires_grad=True) for _ in range(3)]


def seconds(step: Step, triple: list[Tensor]) -> float:
    """Forward and backward, once."""
    started = time.perf_counter()
    step(*triple).backward()
    taken = time.perf_counter() - started
    for image in triple:
        image.grad = None
    return taken


def best_seconds() -> dict[str, float]:
    """Least seconds per batch, by name."""
    ways, triple = steps(FuScore.from_pretrained(device="cpu")), images()
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, step in ways.items():
            best[name] = min(best[name], seconds(step, triple))
    return best


def peak_mebibytes(name: str) -> float:
    """Peak of one way, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reward.cost", name], capture_output=True, check=True
    )
    return float(done.stdout)


def own_peak(name: str) -> float:
    """Growth of this process's peak resident memory by one step, in MiB."""
    step, triple = steps(FuScore.from_pretrained(device="cpu"))[name], images()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds(step, triple)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print a markdown table."""
    if len(sys.argv) == 2:
        print(own_peak(sys.argv[1]))
        return
    # First: a child begins with its parent's peak, which must still be small.
    peaks = {name: peak_mebibytes(name) for name in steps(FuScore.from_pretrained(device="cpu"))}
    taken = best_seconds()
    plain = taken["backbone, graph for fused"]
    print(f"batch {BATCH}, {WIDTH}x{HEIGHT}, float32, {torch.get_num_threads()} threads\n")
    print("| forward and backward | s per triple | over the plain backbone | peak memory, MiB |")
    print("|---|---|---|---|")
    for name, time_taken in taken.items():
        ratio = time_taken / plain
        print(f"| {name} | {time_taken / BATCH:.3f} | {ratio:.3f} | {peaks[name]:.0f} |")


if __name__ == "__main__":
    main()
