"""Two uncertain scores -> how far they lie apart: what every preference is made of.

For tensors and arrays alike. Imports neither, so that tables of results are compared without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Numbers = TypeVar("Numbers", Tensor, NDArray[np.float64])

EPS = 1e-6
"""Added to the summed variance so that two certain scores still compare."""


def standard_difference(
    difference: Numbers, variance: Numbers, *, temperature: float = 1.0
) -> Numbers:
    """The z of P(a better than b) = Phi(z): (s_a - s_b) / (T sqrt(v_a + v_b + EPS)).

    Thurstone's model, case V with unequal variances.

    Args:
        difference: s_a - s_b, any shape.
        variance: v_a + v_b, same shape.
        temperature: T > 0; below 1 makes the answer surer.
    """
    return difference / (variance + EPS) ** 0.5 / temperature
