"""Statistics of an image's cells -> token embeddings."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Standardised cell statistics -> token embeddings.

    The mean and spread over the training images are part of the weights.

    Attributes:
        noise: Deviation of the noise that training adds to the standardised statistics, so that no
            small difference decides.
    """

    mean: Tensor
    std: Tensor
    noise = 0.0

    def __init__(self, statistics: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("std", torch.ones(statistics))
        self.layers = nn.Sequential(
            nn.Linear(statistics, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        weight = cast(nn.Linear, self.layers[0]).weight
        return weight.dtype

    def standardise(self, statistics: Tensor) -> None:
        """Set mean and spread from (N, cells, statistics)."""
        flat = statistics.flatten(0, 1)  # (N * cells, statistics)
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0).clamp_min(1e-3))

    def forward(self, statistics: Tensor) -> Tensor:
        """(N, cells, statistics) -> (N, cells, hidden)."""
        # A statistic far outside the training images means no more than "very far".
        standard = ((statistics - self.mean) / self.std).clamp(-8, 8)
        if self.training and self.noise:
            standard = standard + self.noise * torch.randn_like(standard)
        tokens: Tensor = self.layers(standard.to(self.dtype))
        return tokens
