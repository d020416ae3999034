"""Level logits + ratings -> the tripartite objective: distribution, within-source, cross-source.

Pure functions on tensors that do not depend on trainers, models or processes.

That there are these three parts is from the abstract of "Bringing Multimodal Large Language Models
to Infrared-Visible Image Fusion Quality Assessment" (arXiv 2605.06969). The formulas and weights
are ours, after DeQA-Score (KL to soft labels, fidelity of Thurstone preferences) and LIQE (fidelity
loss for quality; Tsai et al., "FRank", SIGIR 2007). No number of the paper is claimed.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fuscore_metric.levels import LEVEL_VALUES, expected_score, level_probabilities, score_variance
from fuscore_training.soft_labels import check_floating, check_rating, check_soft_labels, soft_label

PAIR_EPS = 1e-2
"""Variance added to a predicted difference: a floor of 0.1 level on its standard deviation.

Small beside the labels' own 2 * 0.3^2, large enough that a model certain of both images (variance
0) still feels a mis-ordering of a few tenths of a level; see :func:`_pair_loss`.
"""

# Standard scores of a difference without any variance. Phi is exactly 0 or 1 there in every dtype,
# while its logarithm and the gradient stay finite, as they would not at infinity.
_CERTAIN = 1e3
_INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three terms; equal by default, which is our choice and not the paper's."""

    dist: float = field(default=1.0, metadata={"help": "Weight of the KL to the soft labels."})
    within: float = field(default=1.0, metadata={"help": "Weight of pairs of one source."})
    cross: float = field(default=1.0, metadata={"help": "Weight of pairs of two sources."})

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"Expected `{name}` to be finite and at least 0, got {weight}")


EQUAL_WEIGHTS = LossWeights()


class LossTerms(NamedTuple):
    """The objective and its terms, each a scalar tensor; the terms are not weighted."""

    total: Tensor
    dist: Tensor
    within: Tensor
    cross: Tensor


def distribution_loss(level_logits: Tensor, soft_labels: Tensor) -> Tensor:
    """Mean KL(q || p): how many nats the predicted levels waste on raters who answer like q.

    Zero only where the prediction is the label. Its gradient on the logits, (p - q) / N, never
    vanishes where p is wrong: it is what moves a prediction too sure for the pair terms to reach.

    Args:
        level_logits: (N, 5) floating; float16 and bfloat16 are computed in float32.
        soft_labels: (N, 5) floating, rows non-negative with sum 1; treated as constant.

    Returns:
        Scalar in [0, inf).
    """
    _check_logits(level_logits)
    check_soft_labels(soft_labels, shape=level_logits.shape)
    wide = torch.promote_types(level_logits.dtype, torch.float32)
    label = soft_labels.detach().to(wide)
    # log_softmax and xlogy: log(softmax) is -inf at large logits, and 0 log 0 is NaN.
    log_prediction = torch.log_softmax(level_logits.to(wide), dim=1)
    return (torch.xlogy(label, label) - label * log_prediction).sum(dim=1).mean()  # ()


def within_source_pairs(source_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unordered pairs i < j of one source: different fusions of the same scene.

    Args:
        source_ids: (N,) integers, equal where images were fused from the same source pair.

    Returns:
        Two (P,) int64 index tensors, the i and the j of every pair; P may be 0.
    """
    first, second, same = _all_pairs(source_ids)
    return first[same], second[same]


def cross_source_pairs(source_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unordered pairs i < j of different sources; otherwise as :func:`within_source_pairs`."""
    first, second, same = _all_pairs(source_ids)
    return first[~same], second[~same]


def tripartite_loss(
    level_logits: Tensor,
    mu: Tensor,
    sigma: Tensor,
    source_ids: Tensor,
    *,
    weights: LossWeights = EQUAL_WEIGHTS,
) -> LossTerms:
    """The whole objective: answer like the raters, order each scene, and order across scenes.

    ``total = w_dist L_dist + w_within L_within + w_cross L_cross``. For all three terms to speak, a
    batch holds several scenes with several methods each.

    Args:
        level_logits: (N, 5) floating; float16 and bfloat16 are computed in float32.
        mu: (N,) floating mean opinions in [1, 5]; constant.
        sigma: (N,) floating widths, at least 0; constant.
        source_ids: (N,) integers, equal for one source pair.
        weights: Weights of the terms.

    Returns:
        ``total`` and the unweighted ``dist`` in [0, inf), ``within`` and ``cross`` in [0, 1]; the
        last two are exactly 0, with zero gradient, for a batch without such a pair.

    Raises:
        TypeError: If a tensor has the wrong kind of dtype.
        ValueError: If a shape or a value is out of range or the batch is empty.
    """
    _check_batch(level_logits, mu, sigma, source_ids)
    dist = distribution_loss(level_logits, soft_label(mu, sigma))
    within = _pair_loss(level_logits, mu, sigma, within_source_pairs(source_ids))
    cross = _pair_loss(level_logits, mu, sigma, cross_source_pairs(source_ids))
    total = weights.dist * dist + weights.within * within + weights.cross * cross
    return LossTerms(total=total, dist=dist, within=within, cross=cross)


def _pair_loss(
    level_logits: Tensor, mu: Tensor, sigma: Tensor, pairs: tuple[Tensor, Tensor]
) -> Tensor:
    """Mean fidelity loss over ``pairs``: 1 - sqrt(P Phat) - sqrt((1-P)(1-Phat)), in [0, 1].

    Both sides are Thurstone preferences, the label's from (mu, sigma) and the prediction's from
    the score and variance of the level probabilities, so a near-tie among disagreeing raters asks
    for little and a clear difference for much. Unlike cross-entropy the loss is bounded, so that
    one wrongly rated pair cannot take over a batch (Tsai et al. 2007; LIQE). It is computed as half
    the squared distance of the square-root vectors, without cancellation near 0.

    Where the gradient goes: with z the standard score of the predicted difference, that of a pair
    whose label is certain peaks near z = -0.6 and falls like exp(-z^2 / 4) where the model
    is surely wrong (0.56 of the peak at z = -2, 0.19 at -3, 0.004 at -5). This is the price of a
    bounded loss, not rounding: Phi(z) and Phi(-z) both come from log_ndtr, so it is exact until exp
    underflows. `PAIR_EPS` delays the fall by bounding z; :func:`distribution_loss` acts beyond it.
    """
    i, j = pairs
    probabilities = level_probabilities(level_logits)
    score, variance = expected_score(probabilities), score_variance(probabilities)  # (N,), (N,)
    z_hat = _standard_difference(score[i] - score[j], variance[i] + variance[j] + PAIR_EPS)  # (P,)
    # float64 like the soft labels: a rating may come in half precision, where squares are coarse.
    mu, label_variance = mu.detach().double(), sigma.detach().double().square()
    z = _standard_difference(mu[i] - mu[j], label_variance[i] + label_variance[j])  # (P,)
    z = z.to(z_hat.dtype)
    wins = _sqrt_phi(z) - _sqrt_phi(z_hat)
    defeats = _sqrt_phi(-z) - _sqrt_phi(-z_hat)
    # An empty sum is 0 and still hangs on the graph; an empty mean would be NaN.
    return 0.5 * (wins.square() + defeats.square()).sum() / max(len(i), 1)  # ()


def _sqrt_phi(z: Tensor) -> Tensor:
    """sqrt(Phi(z)) in log-space, so that its slope, sqrt(Phi) phi / (2 Phi), is never 0 / 0."""
    log_phi: Tensor = torch.special.log_ndtr(z)
    return (0.5 * log_phi).exp()


def _standard_difference(difference: Tensor, variance: Tensor) -> Tensor:
    """Difference in standard deviations; without variance, its sign times a certain value."""
    # Selected before and after the division, so that no 0 / 0 reaches the gradient.
    known = variance > 0
    spread = torch.where(known, variance, 1.0).sqrt()
    return torch.where(known, difference / spread, _CERTAIN * difference.detach().sign())


def _all_pairs(source_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every i < j, (P,) each, and whether the two share a source, (P,)."""
    _check_source_ids(source_ids)
    count = len(source_ids)
    first, second = torch.triu_indices(count, count, offset=1, device=source_ids.device)  # (P,)
    return first, second, source_ids[first] == source_ids[second]


def _check_logits(level_logits: Tensor) -> None:
    check_floating("level_logits", level_logits)
    levels, shape = len(LEVEL_VALUES), tuple(level_logits.shape)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != levels:
        raise ValueError(f"Expected `level_logits` of shape (N, {levels}), N > 0, got {shape}")


def _check_source_ids(source_ids: Tensor) -> None:
    kind = source_ids.dtype if isinstance(source_ids, Tensor) else type(source_ids).__name__
    if kind not in _INTEGER_DTYPES:
        raise TypeError(f"Expected `source_ids` to be an integer tensor, got {kind}")
    if source_ids.ndim != 1:
        raise ValueError(f"Expected `source_ids` of shape (N,), got {tuple(source_ids.shape)}")


def _check_batch(level_logits: Tensor, mu: Tensor, sigma: Tensor, source_ids: Tensor) -> None:
    _check_logits(level_logits)
    check_rating(mu, sigma)
    _check_source_ids(source_ids)
    rows = (len(level_logits), len(mu), len(source_ids))
    if len(set(rows)) > 1:
        raise ValueError(f"Expected `level_logits`, `mu`, `source_ids` of one length, got {rows}")
