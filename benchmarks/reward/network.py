"""A small fusion network: two lumas -> one luma, 21,265 parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FusionNet(nn.Module):
    """Two scales, so that it can tell a target from texture; the output lies in [0, 1].

    Args:
        width: Channels at full resolution; twice as many at half.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2, width, 3, padding=1, padding_mode="replicate")
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, padding_mode="replicate")
        self.deep = nn.Conv2d(2 * width, 2 * width, 3, padding=1, padding_mode="replicate")
        self.merge = nn.Conv2d(3 * width, width, 3, padding=1, padding_mode="replicate")
        self.leave = nn.Conv2d(width, 1, 3, padding=1, padding_mode="replicate")

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Fuse lumas.

        Args:
            ir: (N, 1, H, W) in [0, 1].
            vis: (N, 1, H, W) in [0, 1].

        Returns:
            (N, 1, H, W) in [0, 1].
        """
        fine = F.leaky_relu(self.enter(torch.cat([ir, vis], dim=1)), 0.1)
        coarse = F.leaky_relu(self.deep(F.leaky_relu(self.down(fine), 0.1)), 0.1)
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        merged = F.leaky_relu(self.merge(torch.cat([fine, coarse], dim=1)), 0.1)
        fused: Tensor = self.leave(merged).sigmoid()
        return fused
