"""What reading the sources once saves: python -m benchmarks.speed.shared.

Sixteen candidates of one scene in memory, in one batch: `rank`, which reads the sources once, and
the same as sixteen triples that share nothing, taking turns in one run. Two limits stand beside the
speed-up, both counted on the two ways themselves:

- FLOPs: multiply-adds of matrix products, convolutions and attention, independent over shared.
- Roofline: each operation's FLOPs at the rate of a large matrix product, or the bytes that it reads
  and writes at the rate of adding to a large tensor, whichever takes longer; both rates measured in
  the same run. It also sees pooling, statistics and everything elementwise.

The work is linear in the candidates, so it is counted for one and two of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.clock import best_seconds, caption, rates
from benchmarks.speed.models import MODELS, tenth
from benchmarks.speed.scenes import data_folder, scene
from benchmarks.speed.work import Rates, work
from fuscore_metric import FuScore, rank
from fuscore_metric.prompts import ALL_ASPECTS, DEFAULT_ASPECT, run_aspects

CANDIDATES = 16
Images = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Saving:
    """What sharing did.

    Attributes:
        independent: Seconds of the candidates as triples that share nothing.
        shared: Seconds with the sources read once.
        flop_limit: Speed-up by counted multiply-adds.
        roofline_limit: Speed-up by the roofline.
        difference: Greatest |ds| between the two ways.
        span: From the lowest to the highest score of an aspect, so that |ds| has a measure.
    """

    independent: float
    shared: float
    flop_limit: float
    roofline_limit: float
    difference: float
    span: float

    @property
    def speed_up(self) -> float:
        """How many times faster sharing is."""
        return self.independent / self.shared


def independent(model: FuScore, images: Images, aspect: str) -> Tensor:
    """Scores of triples that share nothing."""
    ir, vis, fused = images
    sources = (image.repeat(len(fused), 1, 1, 1) for image in (ir, vis))
    scores: Tensor = model(*sources, fused, aspects=run_aspects(aspect)).score
    return scores


def shared(model: FuScore, images: Images, aspect: str) -> Tensor:
    """Scores of the same with the sources read once."""
    ir, vis, fused = images
    aspects = run_aspects(aspect)
    return rank(ir, vis, fused, model=model, aspects=aspects, batch_size=len(fused)).score


def measure(model: FuScore, images: Images, aspect: str, rounds: int, machine: Rates) -> Saving:
    """Time both ways, count their work and compare their scores."""
    scores: dict[str, Tensor] = {}

    def keep(name: str, found: Tensor) -> None:
        scores[name] = found

    best = best_seconds(
        {
            "independent": lambda: keep("independent", independent(model, images, aspect)),
            "shared": lambda: keep("shared", shared(model, images, aspect)),
        },
        rounds,
    )
    limits = limit(model, images, aspect, machine)
    apart, together = scores["independent"], scores["shared"]
    difference = float((apart - together).abs().max())
    span = float((apart.amax(0) - apart.amin(0)).max())
    return Saving(best["independent"], best["shared"], *limits, difference, span)


def limit(model: FuScore, images: Images, aspect: str, machine: Rates) -> tuple[float, float]:
    """Speed-up that counted work allows: by FLOPs, and by the roofline."""
    ir, vis, fused = images
    more = len(fused) - 1
    flops, seconds = [], []
    for way in (independent, shared):
        one, two = (work(partial(way, model, (ir, vis, fused[:n]), aspect)) for n in (1, 2))
        flops.append(one.flops + more * (two.flops - one.flops))
        first, second = one.seconds(machine), two.seconds(machine)
        seconds.append(first + more * (second - first))
    return flops[0] / flops[1], seconds[0] / seconds[1]


def half_precision(model: FuScore, images: Images, aspect: str) -> float:
    """Greatest |ds| between the two ways, in whatever dtype the model has."""
    with torch.inference_mode():
        both = independent(model, images, aspect), shared(model, images, aspect)
    return float((both[0] - both[1]).abs().max())


def row(name: str, aspect: str, found: Saving) -> str:
    """One line of the table."""
    parts = [
        f"| {name}, {aspect} | {found.independent:.2f} | {found.shared:.2f} | {found.speed_up:.2f}"
    ]
    for most in (found.flop_limit, found.roofline_limit):
        parts.append(f"{most:.2f} ({100 * found.speed_up / most:.0f} %)")
    return " | ".join([*parts, f"{found.difference:.1e}", f"{found.span:.3f} |"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--models", nargs="+", default=["embedded", "0.1B"], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    here, machine = scene(given.data, CANDIDATES), rates()
    images = here.tensors()
    size = "x".join(map(str, (images[0].shape[3], images[0].shape[2])))
    print(caption("float32", f"{CANDIDATES} candidates of {here}, {size}"))
    print(f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.bytes / 1e9:.1f} GB/s\n")
    print(
        "| model, aspect | independent, s | shared, s | speed-up | limit by FLOPs (reached) "
        "| limit by roofline (reached) | max abs ds | span of scores |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in given.models:
        model = MODELS[name]()
        for aspect in (DEFAULT_ASPECT, ALL_ASPECTS):
            found = measure(model, images, aspect, given.rounds, machine)
            print(row(name, aspect, found), flush=True)
    print("\n| bfloat16 | candidates | max abs ds |\n|---|---|---|")
    for name in given.models:
        ir, vis, fused = images
        if name == "0.1B":
            # Products in bfloat16 take many times longer on most CPUs.
            model, count = tenth(torch.bfloat16, max_pixels=128 * 32 * 32), 4
        else:
            model, count = MODELS[name](torch.bfloat16), len(fused)
        worst = half_precision(model, (ir, vis, fused[:count]), ALL_ASPECTS)
        note = ", 128 tokens per image" if name == "0.1B" else ""
        print(f"| {name}, all{note} | {count} | {worst:.1e} |", flush=True)


if __name__ == "__main__":
    main()
