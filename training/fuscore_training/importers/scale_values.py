"""Pairwise choices -> scale values of the things compared, with their variances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fuscore_training.importers.optional import optional_module

ALPHA = 0.64
"""Inverse variance of the prior of a scale value: standard deviation 1.25, half of the 2.5 units
from the middle to the end of the scale, so that a few unanimous votes do not reach the end."""
LOGISTIC_PER_NORMAL = 1.702
"""Units of the logistic curve that come nearest to one of the normal (largest gap 0.0095)."""

Model = Literal["thurstone", "bradley-terry"]


@dataclass(frozen=True)
class ScaleValues:
    """Posterior of scale values, in units in which a difference of d wins with probability Phi(d).

    Attributes:
        mean: (N,), each component's mean 0.
        variance: (N,) of the distance from the component's mean.
        component: (N,) which things are compared with each other, directly or through others.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    component: NDArray[np.int64]


def components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the connected parts (N,) of the graph of comparisons (M, 2) between `count` things."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def scale_values(
    count: int,
    wins: NDArray[np.int64],
    ties: NDArray[np.int64],
    *,
    model: Model = "thurstone",
    alpha: float = ALPHA,
) -> ScaleValues:
    """Fit scale values to choices, by expectation propagation (`choix.ep_pairwise`).

    Thurstone's case V: a beats b with probability Phi(t_a - t_b); Bradley-Terry: with the logistic
    of `LOGISTIC_PER_NORMAL` (t_a - t_b), so that both have one unit. The prior of each value is
    N(0, 1 / alpha); the posterior is a Gaussian with full covariance. Choices do not determine the
    level of a component, whose share 1 / (alpha n) of the n values' variances is therefore taken
    out.

    Two ties of a pair count as one win for each, which is half a win each way for each tie; an odd
    one left over counts as two. So a pair's ties weigh at most one vote too much.

    Args:
        count: N.
        wins: (M, 2) winner and loser of each decided choice.
        ties: (T, 2) pairs between which none was preferred.
        model: Curve from differences to probabilities.
        alpha: Inverse variance of the prior, > 0.

    Raises:
        ImportError: `choix` is not installed.
        ValueError: The fit does not converge.
    """
    both = np.sort(ties, axis=1)
    pairs, times = np.unique(both, axis=0, return_counts=True)
    halves = np.repeat(pairs, (times + 1) // 2, axis=0)
    data = np.concatenate([wins, halves, halves[:, ::-1]]).astype(np.int64)
    part = components(count, data)
    unit = LOGISTIC_PER_NORMAL if model == "bradley-terry" else 1.0
    mean, variance = np.zeros(count), np.zeros(count)
    for number in range(part.max(initial=-1) + 1):
        members = np.flatnonzero(part == number)
        place = np.full(count, -1)
        place[members] = np.arange(len(members))
        inside = place[data[part[data[:, 0]] == number]]
        one_mean, covariance = _fit(len(members), inside, model, alpha / unit**2)
        mean[members] = (one_mean - one_mean.mean()) / unit
        variance[members] = np.diag(covariance) / unit**2 - 1 / (alpha * len(members))
    return ScaleValues(mean, variance.clip(min=0), part)


def _fit(
    count: int, data: NDArray[np.int64], model: Model, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    curve = "probit" if model == "thurstone" else "logit"
    fit = optional_module("choix").ep_pairwise
    try:
        with _numpy_seed():
            mean, covariance = fit(count, data.tolist(), alpha, model=curve)
    except RuntimeError as error:
        raise ValueError(f"Expected scale values to be found, got: {error}") from error
    return np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)


@contextmanager
def _numpy_seed() -> Iterator[None]:
    """Seed numpy's global generator, which choix draws its order from, and put it back."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
