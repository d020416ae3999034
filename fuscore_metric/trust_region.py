"""(ir, vis, fused) -> how far `fused` leaves what its sources allow: the guard of the reward.

A learned metric was trained on fusions of its time. A network that is trained to raise its score
finds pictures that nobody made before: patterns that raise the score and are worth nothing to a
person. That is over-optimisation of a proxy (Gao, Schulman and Hilton, "Scaling laws for reward
model overoptimization", ICML 2023), and the usual remedy is to charge for moving away from what
is known. What is known of a fusion is its sources. The charges and their sizes are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fuscore_metric.backbones.lite.local_statistics import with_edges
from fuscore_metric.compute.own_terms import on_own_terms
from fuscore_metric.images.colour import luma


@dataclass(frozen=True)
class TrustRegion:
    """What may be done for the score without a charge, and what more costs.

    All is measured on the luma, in [0, 1]. Weights are points of score for a mean excess of 1; a
    weight of 0 turns a charge off. The default weights of the first two were chosen on validation
    scenes with the embedded weights (`benchmarks/reward/`).

    Attributes:
        intensity: Weight of brightness outside the sources' range at each pixel: brighter than the
            brighter, or darker than the darker of the two.
        gradient: Weight of edges stronger than the stronger of the sources' at each pixel: halos,
            ringing, noise, invented texture.
        reference: Weight of the mean distance to a reference fusion, if the caller gives one.
        intensity_margin: Excess that is free.
        gradient_margin: Excess that is free, in units of the Sobel magnitude (a step edge from 0 to
            1 has 1).
        reference_radius: Mean absolute distance to the reference that is free.
    """

    intensity: float = 30.0
    gradient: float = 30.0
    reference: float = 100.0
    intensity_margin: float = 0.02
    gradient_margin: float = 0.02
    reference_radius: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"Expected `{field.name}` to be finite and not negative, got {value!r}"
                )

    @on_own_terms
    def penalty(
        self, ir: Tensor, vis: Tensor, fused: Tensor, *, reference: Tensor | None = None
    ) -> Tensor:
        """Charge for leaving the region.

        Args:
            ir: (N, 3, H, W) float in [0, 1].
            vis: (N, 3, H, W), likewise.
            fused: (N, 3, H, W), likewise; the gradient reaches it only.
            reference: (N, 3, H, W), likewise: a fusion to stay near, such as that of the network
                before it met the reward.

        Returns:
            (N,) float32 >= 0 in points of score; 0 inside the region.
        """
        with torch.no_grad():
            lumas = luma(ir.float()), luma(vis.float())
            sources = torch.cat(lumas, dim=1)  # (N, 2, H, W)
            edges = torch.cat([_gradient(source) for source in lumas], dim=1)
        here = luma(fused.float())  # (N, 1, H, W)
        low, high = sources.aminmax(dim=1, keepdim=True)
        outside = (here - high).relu() + (low - here).relu()
        penalty = self.intensity * _mean((outside - self.intensity_margin).relu())
        sharper = _gradient(here) - edges.amax(dim=1, keepdim=True)
        penalty = penalty + self.gradient * _mean((sharper - self.gradient_margin).relu())
        if reference is not None:
            distance = _mean((here - luma(reference.detach().float())).abs())
            penalty = penalty + self.reference * (distance - self.reference_radius).relu()
        return penalty


def _gradient(grey: Tensor) -> Tensor:
    """Sobel magnitude of (N, 1, H, W), likewise."""
    return with_edges(grey)[:, 1:2]


def _mean(maps: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N,)."""
    return maps.flatten(1).mean(1)
