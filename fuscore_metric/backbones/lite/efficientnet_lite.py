"""The first stages of EfficientNet-Lite0: pixels -> feature maps at two scales.

Early, local features carry the traces of noise, blur and halos that deep semantic ones lose. Only
inference is needed, so batch normalisation is folded into the convolutions.
Source: M. Tan and Q. V. Le, "EfficientNet", ICML 2019; Lite variant: no squeeze-and-excitation,
ReLU6 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fuscore_metric.backbones.base import in_its_dtype

# (expansion, kernel, stride, channels, repeats) of the stages used. Those at 1/8 and 1/16 are left
# out: a cell holds few of their pixels, so one pixel of shift moved its statistics by a quarter and
# a third of their spread over all images.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
)
STEM_CHANNELS = 32
CHANNELS = (STEM_CHANNELS, *(stage[3] for stage in STAGES))
"""Channels of each map that `forward` returns."""


class ConvReLU6(nn.Module):
    """Convolution with TensorFlow's "same" padding, then ReLU6 unless `linear`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel - 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self.linear = linear

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        images = self.conv(images) if self.conv.stride == (1, 1) else self._strided(images)
        return images if self.linear else F.relu6(images, inplace=True)

    def _strided(self, images: Tensor) -> Tensor:
        """At stride 2 TensorFlow pads one pixel less on the left and top than on the other sides.

        A convolution here pads all sides alike. A kernel that starts with a row and a column of
        zeros makes up for it. For a depthwise filter that costs little, and its maps are the
        largest; any other kernel is a sum over channels, and padding its input costs less.
        """
        conv, before = self.conv, (self.conv.kernel_size[0] - 2) // 2
        after = before + 1
        if conv.groups > 1:
            kernel, padding = F.pad(conv.weight, (1, 0, 1, 0)), after
        else:
            kernel, padding = conv.weight, 0
            images = F.pad(images, (before, after, before, after))
        return F.conv2d(images, kernel, conv.bias, stride=2, padding=padding, groups=conv.groups)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a skip where the shapes allow one."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [] if expansion == 1 else [ConvReLU6(inputs, hidden, 1)]
        layers += [
            ConvReLU6(hidden, hidden, kernel, stride=stride, groups=hidden),
            ConvReLU6(hidden, outputs, 1, linear=True),
        ]
        self.layers = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        filtered: Tensor = self.layers(images)
        return images + filtered if self.skip else filtered


class EfficientNetLite(nn.Module):
    """Stem and first two stages; keeps its dtype, whatever `.to()` and its like are asked for.

    What is made of its maps are small differences of large sums.

    Attributes:
        memory_format: Order of the maps in memory. Channels last makes depthwise convolutions twice
            as fast on CPUs; `benchmarks/gpu` measures both on a GPU.
    """

    memory_format = torch.channels_last

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvReLU6(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        inputs = STEM_CHANNELS
        for expansion, kernel, stride, outputs, repeats in STAGES:
            blocks = []
            for number in range(repeats):
                step = stride if number == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel, stride=step, expansion=expansion)
                )
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(in_its_dtype(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the stem and each stage.

        Args:
            images: (N, 3, H, W), already normalised.

        Returns:
            Three maps (N, C, h, w), C as in `CHANNELS`, at 1/2, 1/2, 1/4.
        """
        maps = [self.stem(images.contiguous(memory_format=self.memory_format))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps
