"""What a measure is: its formula and what a reader of its numbers has to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from torch import Tensor

from fuscore_metric.measures.grey import Grey

Compute: TypeAlias = Callable[[Grey, Grey, Grey], Tensor]
"""Takes ir, vis and fused. The sources have one image for all of `fused`, or as many. Gives (N,)
float64, one number per fused image."""


@dataclass(frozen=True)
class Measure:
    """A classic measure of fusion.

    Attributes:
        name: As tables print it, such as "Qabf".
        title: In words.
        compute: The formula.
        source: Where it is defined.
        higher_is_better: The direction that its authors mean; False where lower is better.
        low: The lowest value that it can have.
        high: The highest.
        differentiable: Whether it has a useful gradient for `fused`.
    """

    name: str
    title: str
    compute: Compute
    source: str
    higher_is_better: bool = True
    low: float = 0.0
    high: float = inf
    differentiable: bool = True

    @property
    def arrow(self) -> str:
        """The direction, as tables print it."""
        return "↑" if self.higher_is_better else "↓"
