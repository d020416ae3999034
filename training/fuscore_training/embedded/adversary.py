"""Cached features -> features that an attack makes of them: close by, with another score.

An attack on the pixels by one grey level moves the standardised statistics of a fused image by a
twentieth on average, in just the direction that raises the score. Random noise of three times that
size, which training also adds, almost never points there: that direction has to be searched for.
Attacking pixels takes seconds per image and needs the vision part; attacking the cached statistics
needs neither, but has to know how far pixels can move each of them. That is measured first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.lite.cells import AGREEMENT, REFERENCES, STATISTICS
from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.lite.projector import Projector
from fuscore_metric.backbones.lite.relations import RELATIONS
from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_training.pair_images import read_images

GREY_LEVEL = 1 / 255


@dataclass(frozen=True)
class AdversarialOptions:
    """How a model is trained against attacks that move its score without a better fusion.

    Attributes:
        weight: Weight of the squared difference between the scores of a triple before and after an
            attack on its features; 0 for no such training.
        triples: Triples of a batch that are attacked.
        radius: How far an attack goes: as if every pixel could move by so many grey levels.
        measured_on: Training triples on which the reach of pixels is measured.
        seed: Seed of that choice and measurement.
    """

    weight: float = 0.0
    triples: int = 16
    radius: float = 1.5
    measured_on: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("weight", "radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Expected `{name}` to be finite and at least 0, got {value}")
        for name in ("triples", "measured_on"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, got {getattr(self, name)}")


class AdversarialFeatures:
    """The loss term that makes nearby features have nearby scores.

    Args:
        options: Its weight and how far is near.
        reach: How far one grey level moves each feature of the fused image, by name; from
            `measure_reach`.
    """

    def __init__(self, options: AdversarialOptions, reach: dict[str, Tensor]) -> None:
        self.options = options
        self.box = {name: options.radius * values for name, values in reach.items()}

    def loss(self, model: nn.Module, batch: dict[str, Any], scores: Tensor) -> Tensor:
        """Mean squared change of the scores of some triples when their features are attacked.

        Args:
            model: Encoded triples and aspects -> level logits (N, A, 5).
            batch: `triples`, N encoded ones or more, and A `aspects`.
            scores: (N, A) of the first N triples, with their graph.
        """
        encoded, aspects = batch["triples"], batch["aspects"]
        chosen = torch.randperm(len(scores), device=scores.device)[: self.options.triples]
        own = {name: encoded[name][chosen] for name in (*self.box, "cells", "pair")}
        attacked = self.attack(model, encoded | own, aspects)
        return (_scores(model, attacked, aspects) - scores[chosen]).square().mean()

    def attack(self, model: nn.Module, encoded: Encoded, aspects: Sequence[str]) -> Encoded:
        """Move fused images' features to where the scores change most, up or down at random.

        One step of signed gradient from a random place in the box: Wong, Rice and Kolter, "Fast is
        better than free: revisiting adversarial training", ICLR 2020; there on pixels. The step is
        5/4 of the box's half side, as there.

        Returns:
            Encoded triples, without a graph.
        """
        start = {name: encoded[name] for name in self.box}
        box = {name: values.to(start[name]) for name, values in self.box.items()}
        moved = {
            name: (value + box[name] * (2 * torch.rand_like(value) - 1)).requires_grad_()
            for name, value in start.items()
        }
        scores = _scores(model, encoded | moved, aspects).mean(1)  # (N,)
        side = torch.randint_like(scores, 2) * 2 - 1
        gradients = torch.autograd.grad((side * scores).sum(), list(moved.values()))
        found = {}
        for (name, value), gradient in zip(moved.items(), gradients, strict=True):
            low, high = start[name] - box[name], start[name] + box[name]
            found[name] = (value + 1.25 * box[name] * gradient.sign()).detach().clamp(low, high)
        return encoded | found


def measure_reach(
    backbone: LiteLlama, files: Iterable[NDArray[Any]], *, seed: int = 0
) -> dict[str, Tensor]:
    """How far an attack of one grey level moves each feature of the fused image, on average.

    The attacks are on random directions among the standardised features, not on a score: the result
    tells what pixels can do, whatever the model makes of it.

    Args:
        backbone: Its vision part and the spread of its fused statistics are used.
        files: Triples, each (3,) paths: ir, vis, fused.
        seed: Seed of the directions.

    Returns:
        `fused` (`STATISTICS`,), `agreement` (3 `AGREEMENT`,) and, of a model with relations,
        `relation` (`RELATIONS`,), in the features' own units.
    """
    std = cast(Projector, backbone.projectors["fused"]).std
    # After its own are the references' statistics, which come from the sources alone.
    sizes = (STATISTICS, len(REFERENCES) * STATISTICS, len(REFERENCES) * AGREEMENT)
    more = [RELATIONS] if backbone.relations else []
    own, _, agreement, *others = torch.split(std, [*sizes, *more])
    spread = dict(zip(backbone.own_statistics, (own, agreement, *others), strict=True))
    generator = torch.Generator().manual_seed(seed)
    moves: dict[str, list[Tensor]] = {name: [] for name in spread}
    for triple in files:
        images = read_images(triple[None])
        fused = images["fused"].requires_grad_()
        before = backbone.encode(**images)
        weighed = [
            (torch.randn(before[name].shape, generator=generator) * before[name] / values).sum()
            for name, values in spread.items()
        ]
        (gradient,) = torch.autograd.grad(torch.stack(weighed).sum(), fused)
        with torch.no_grad():
            moved = (fused + GREY_LEVEL * gradient.sign()).clamp(0, 1)
            after = backbone.encode(images["ir"], images["vis"], moved)
            for name, found in moves.items():
                found.append((after[name] - before[name]).abs().mean((0, 1)))
    return {name: torch.stack(found).mean(0) for name, found in moves.items()}


def prepare_adversarial(
    options: AdversarialOptions, backbone: LiteLlama, ratings: pd.DataFrame
) -> AdversarialFeatures | None:
    """Measure the reach on some of the ratings' triples; None without such training.

    Args:
        options: What to do.
        backbone: With its standardisation already set.
        ratings: Training ratings with the columns `ir, vis, fused`.
    """
    if not options.weight:
        return None
    rng = np.random.default_rng(options.seed)
    rows = rng.choice(len(ratings), min(options.measured_on, len(ratings)), replace=False)
    files = ratings[["ir", "vis", "fused"]].to_numpy()[rows]
    return AdversarialFeatures(options, measure_reach(backbone, files, seed=options.seed))


def _scores(model: nn.Module, encoded: Encoded, aspects: Sequence[str]) -> Tensor:
    return expected_score(level_probabilities(model(encoded, aspects)))
