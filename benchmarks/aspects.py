"""What five aspects cost beside one, and how many triples a second that is, in one run.

    python benchmarks/aspects.py

Random images of 640 x 480, embedded weights, all threads; the best of several rounds, in which one
aspect and all five take turns so that both meet the same machine.
"""

from __future__ import annotations

import time

import torch

from fuscore_metric import FuScore

HEIGHT, WIDTH, ROUNDS = 480, 640, 5


def best_seconds(model: FuScore, batch: int) -> dict[str, float]:
    """Least seconds a triple for "overall" and "all"."""
    generator = torch.Generator().manual_seed(0)
    triple = [torch.rand(batch, 3, HEIGHT, WIDTH, generator=generator) for _ in range(3)]
    best = {"overall": float("inf"), "all": float("inf")}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for aspect in best:
                started = time.perf_counter()
                model(*triple, aspect=aspect)
                best[aspect] = min(best[aspect], (time.perf_counter() - started) / batch)
    return best


def main() -> None:
    """Print a markdown table."""
    model = FuScore.from_pretrained()
    print("| batch | one aspect, s a triple | triples a second | all five over one |")
    print("|---|---|---|---|")
    for batch in (1, 8):
        found = best_seconds(model, batch)
        one, ratio = found["overall"], found["all"] / found["overall"]
        print(f"| {batch} | {one:.3f} | {1 / one:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
