"""A usual fusion loss, with or without FuScore's reward beside it: training one network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

import torch
from torch import Tensor

from benchmarks.reward.network import FusionNet
from fuscore_metric import FuScore, FuScoreReward, TrustRegion
from fuscore_metric.backbones.lite.local_statistics import with_edges
from fuscore_metric.images.colour import luma

GRADIENT_WEIGHT = 4.0
"""Of the gradient term beside the intensity term: equal weights, as in SwinFusion, for a Sobel
that is not divided by 4. With 10 a network of this size settled in a poor optimum and inverted
targets."""

WATCH = 10


@dataclass(frozen=True)
class Variant:
    """What a network is trained on from the common start.

    Attributes:
        name: For tables and files.
        usual_weight: Of `usual_loss`; 0 for none.
        reward_weight: Of the reward loss (5 - reward) / 4 beside the usual loss; 0 for none.
        trust_region: Guard of the reward.
    """

    name: str
    usual_weight: float = 1.0
    reward_weight: float = 0.0
    trust_region: TrustRegion | None = None


def usual_loss(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """Stay near the brighter source, with the stronger source's edges: as SwinFusion and others do.

    Args:
        ir: (N, 1, H, W) luma.
        vis: (N, 1, H, W) luma.
        fused: (N, 1, H, W) luma.
    """
    intensity = (fused - torch.maximum(ir, vis)).abs().mean()
    wanted = torch.maximum(_gradient(ir), _gradient(vis))
    return intensity + GRADIENT_WEIGHT * (_gradient(fused) - wanted).abs().mean()


def _gradient(grey: Tensor) -> Tensor:
    return with_edges(grey)[:, 1:2]


def train(
    network: FusionNet,
    batches: Iterator[tuple[Tensor, Tensor]],
    variant: Variant,
    *,
    model: FuScore,
    steps: Iterable[int],
    learning_rate: float,
    log: TextIO,
) -> None:
    """Train a network; every `WATCH` steps a line of JSON says where it stands.

    The score of the batch is logged for networks that are not rewarded, too.
    """
    reward = FuScoreReward(model, trust_region=variant.trust_region)
    plain = FuScoreReward(model)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    start = time.perf_counter()
    for step in steps:
        ir, vis = next(batches)
        grey = luma(vis)
        fused = network(ir, grey)
        usual = usual_loss(ir, grey, fused)
        loss, rewarded = variant.usual_weight * usual, None
        if variant.reward_weight:
            rewarded = reward(ir, vis, fused)
            loss = loss + variant.reward_weight * ((5 - rewarded) / 4).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % WATCH == 0 or step == 1:
            with torch.no_grad():
                score = plain(ir, vis, fused).mean().item()
            line = {"variant": variant.name, "step": step, "usual": usual.item(), "score": score}
            line["charge"] = 0.0 if rewarded is None else score - rewarded.mean().item()
            line["seconds"] = round(time.perf_counter() - start, 1)
            log.write(json.dumps(line) + "\n")
            log.flush()
