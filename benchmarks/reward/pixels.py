"""The reward climbed by the pixels themselves: how far it can be gamed, and what the guards leave.

A network can only do what its few weights allow for all scenes at once. Pixels can do anything.
"""

from __future__ import annotations

import torch

from benchmarks.accuracy.triples import Pixels
from benchmarks.reward.evaluation import shown
from benchmarks.reward.network import FusionNet
from benchmarks.reward.scenes import Pair
from fuscore_metric import FuScore, FuScoreReward, TrustRegion
from fuscore_metric.images.colour import luma

STEPS = 30
LEARNING_RATE = 2 / 255
"""Adam's: at most about so much a step for each pixel."""
GUARDS: dict[str, TrustRegion | None] = {
    "unguarded": None,
    "trust region": TrustRegion(),
    "trust region around the start": TrustRegion(reference_radius=0.01),
}


def climbed(network: FusionNet, pair: Pair, model: FuScore) -> dict[str, Pixels]:
    """Fusions (H, W, 3) by guard, from what the network makes of the pair."""
    ir, vis = (image[None].float() / 255 for image in pair)
    with torch.no_grad():
        start = network(ir, luma(vis))
    found = {}
    for name, guard in GUARDS.items():
        reward = FuScoreReward(model, trust_region=guard)
        reference = {"reference": start} if "start" in name else {}
        fused = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([fused], lr=LEARNING_RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            (-reward(ir, vis, fused, **reference)).sum().backward()
            optimizer.step()
            with torch.no_grad():
                fused.clamp_(0, 1)
        found[name] = shown(fused.detach(), vis)
    return found
