"""Ratings -> soft labels: a mean opinion and its sub-scores become a distribution over the levels.

Training data flow: rating (mu, four sub-scores) -> sigma -> soft label (N, 5) -> losses.

That agreement among the sub-scores should sharpen the label is an idea from the abstract of
"Bringing Multimodal Large Language Models to Infrared-Visible Image Fusion Quality Assessment"
(arXiv 2605.06969). The formulas are ours; soft labels over level words follow DeQA-Score.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fuscore_metric.levels import LEVEL_VALUES
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from fuscore_training.ratings import RatingsTable

SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]
N_SUB_SCORES = len(SUB_SCORES)

# Bound of the tilt. At -80 the upper neighbour weighs e^-80 of the lower one, so the mean is at or
# below the lower neighbour to far better than float64; at +80 likewise above. The root is between.
_MAX_TILT = 80.0
# 160 / 2^64 is below the spacing of float64 around any tilt that matters.
_BISECTION_STEPS = 64
# Below this sigma the levels beyond the two neighbours underflow to
# zero for every tilt, so a larger sigma in place of a smaller one, or of 0, changes no digit.
_SIGMA_FLOOR = 1e-3
# What the bracket's ends leave (e^-80) on levels that should be empty: no float32 sum can see it.
_NEGLIGIBLE = 1e-30
# Rows rounded to bfloat16 miss a sum of 1 by up to about this much.
_SUM_TOLERANCE = 2e-2


@torch.no_grad()
def label_sigma(sub_scores: Tensor, *, sigma_min: float = 0.3, kappa: float = 1.0) -> Tensor:
    """Width of a soft label, from how far the sub-scores of one rating disagree.

    A fusion that is equally good in every respect is easy to place on the scale; one that keeps the
    heat but smears the texture is not, and its label should be wider::

        sigma^2 = sigma_min^2 + kappa^2 * Var(d_1..d_4)        (population variance)

    Args:
        sub_scores: (N, 4) floating, every value in [1, 5].
        sigma_min: width when all four agree, at least 0.
        kappa: how much of the disagreement counts, at least 0; 0 makes the width constant.

    Returns:
        (N,) in the dtype of ``sub_scores``, at least ``sigma_min``. No gradient: labels are data.

    Raises:
        TypeError: If ``sub_scores`` is not a floating tensor.
        ValueError: If its shape or a value is out of range, NaN included, or an option is negative.
    """
    check_floating("sub_scores", sub_scores)
    if sub_scores.ndim != 2 or sub_scores.shape[1] != N_SUB_SCORES:
        raise ValueError(
            f"Expected `sub_scores` of shape (N, {N_SUB_SCORES}), got {tuple(sub_scores.shape)}"
        )
    _check_range("sub_scores", sub_scores, LEVEL_VALUES[0], LEVEL_VALUES[-1])
    for name, option in (("sigma_min", sigma_min), ("kappa", kappa)):
        if not (math.isfinite(option) and option >= 0):
            raise ValueError(f"Expected `{name}` to be finite and at least 0, got {option}")
    variance = sub_scores.double().var(dim=1, correction=0)  # (N,)
    return (sigma_min**2 + kappa**2 * variance).sqrt().to(sub_scores.dtype)


@torch.no_grad()
def soft_label(mu: Tensor, sigma: Tensor) -> Tensor:
    """Distribution over the levels with mean exactly ``mu`` and a width set by ``sigma``.

    A Gaussian read off at five points misses its own mean as soon as it is cut at the ends of the
    scale. Here the bell is leaned until the mean is right again, which is the maximum-entropy
    (least opinionated) way to repair it::

        q_k  proportional to  exp(-(c_k - mu)^2 / (2 sigma^2) + lambda c_k),   sum_k q_k c_k = mu

    Limits: ``mu`` at either end of the scale gives a one-hot label; ``sigma -> 0`` gives linear
    interpolation between the two neighbouring levels, the narrowest label that can have this mean;
    ``sigma -> inf`` gives the flattest one. The standard deviation of q grows with ``sigma`` but is
    not ``sigma``: five points cannot be narrower than the interpolation or wider than the scale.

    Args:
        mu: (N,) floating mean opinions, within [1, 5].
        sigma: (N,) floating widths, finite and at least 0.

    Returns:
        (N, 5) in the dtype of ``mu``, rows non-negative with sum 1 and mean ``mu``. Computed in
        float64, so mean and sum are exact up to the rounding of the returned dtype. No gradient:
        labels are data.

    Raises:
        TypeError: If ``mu`` or ``sigma`` is not a floating tensor.
        ValueError: If shapes differ, or a value is out of range or NaN.
    """
    check_rating(mu, sigma)
    values = torch.tensor(LEVEL_VALUES, dtype=torch.float64, device=mu.device)
    mean = mu.double()
    lower = mean.floor().clamp(max=LEVEL_VALUES[-2])  # the level below, or the last but one
    twice_variance = 2 * sigma.double().clamp(min=_SIGMA_FLOOR).square()

    # The same family, anchored halfway between the neighbours of mu instead of at mu: both
    # neighbours then have penalty 0 and their log-odds are the tilt itself, whatever sigma is.
    # lambda would run to 1 / sigma^2; the tilt stays within +-80.
    lean = values - (lower + 0.5)[:, None]  # (N, 5)
    penalty = (lean.square() - 0.25) / twice_variance[:, None]
    tilt = _solve_tilt(penalty, lean, deviation=values - mean[:, None])
    label = torch.softmax(tilt[:, None] * lean - penalty, dim=1)
    return torch.where(label < _NEGLIGIBLE, 0.0, label).to(mu.dtype)


def check_rating(mu: Tensor, sigma: Tensor) -> None:
    """Raise unless ``mu`` and ``sigma`` are floating (N,), ``mu`` in range and ``sigma`` >= 0.

    Args:
        mu: (N,) floating mean opinions.
        sigma: (N,) floating widths.

    Raises:
        TypeError: If either is not a floating tensor.
        ValueError: If either has another shape or holds a value out of range, NaN included.
    """
    for name, tensor in (("mu", mu), ("sigma", sigma)):
        check_floating(name, tensor)
        if tensor.ndim != 1:
            raise ValueError(f"Expected `{name}` of shape (N,), got {tuple(tensor.shape)}")
    if mu.shape != sigma.shape:
        raise ValueError(
            "Expected `mu` and `sigma` of one shape (N,), "
            f"got {tuple(mu.shape)} and {tuple(sigma.shape)}"
        )
    _check_range("mu", mu, LEVEL_VALUES[0], LEVEL_VALUES[-1])
    _check_range("sigma", sigma, 0.0, math.inf)


def check_soft_labels(soft_labels: Tensor, *, shape: torch.Size) -> None:
    """Raise unless ``soft_labels`` is floating, of ``shape`` (N, K), and its rows distributions.

    Args:
        soft_labels: (N, K) floating.
        shape: Shape of the level logits that the labels are for.

    Raises:
        TypeError: If ``soft_labels`` is not a floating tensor.
        ValueError: If the shape differs, or a row has a negative entry, NaN or another sum than 1.
    """
    check_floating("soft_labels", soft_labels)
    if soft_labels.shape != shape:
        raise ValueError(
            f"Expected `soft_labels` of shape {tuple(shape)} like `level_logits`, "
            f"got {tuple(soft_labels.shape)}"
        )
    lowest, sums = soft_labels.min(), soft_labels.float().sum(dim=1)  # (), (N,)
    # Negated, so that NaN, which compares false with everything, is refused too.
    if not bool((lowest >= 0) & ((sums - 1).abs() <= _SUM_TOLERANCE).all()):
        raise ValueError(
            "Expected `soft_labels` rows to be non-negative with sum 1, got a minimum of "
            f"{lowest.item():.4g} and sums in [{sums.min().item():.4g}, {sums.max().item():.4g}]"
        )


def _solve_tilt(penalty: Tensor, lean: Tensor, *, deviation: Tensor) -> Tensor:
    """Tilt (N,) at which softmax(tilt * lean - penalty) has mean deviation 0; all are (N, K).

    The mean rises strictly with the tilt, so bisection cannot fail, and 64 halvings of a fixed
    bracket need no stopping rule that would differ between rows.
    """
    low = deviation.new_full(deviation.shape[:1], -_MAX_TILT)  # (N,)
    high = -low
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        log_weight = middle[:, None] * lean - penalty  # (N, K)
        # Only the sign counts, so nothing is normalised; summing q (c - mu), not q c, keeps that
        # sign right down to the smallest probability.
        weight = (log_weight - log_weight.amax(dim=1, keepdim=True)).exp()
        too_high = (weight * deviation).sum(dim=1) > 0  # (N,)
        low, high = torch.where(too_high, low, middle), torch.where(too_high, middle, high)
    return (low + high) / 2


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless ``tensor``, the argument called ``name``, is a floating tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"Expected `{name}` to be a torch.Tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"Expected `{name}` to have a floating dtype, got {tensor.dtype}")


def _check_range(name: str, tensor: Tensor, low: float, high: float) -> None:
    # Negated, so that NaN, which compares false with everything, counts as outside.
    outside = ~((tensor >= low) & (tensor <= high) & tensor.isfinite())
    if bool(outside.any()):
        raise ValueError(
            f"Expected `{name}` to be finite and within [{low}, {high}], "
            f"got {tensor[outside][0].item()} ({int(outside.sum())} of {tensor.numel()} outside)"
        )


@dataclass(frozen=True)
class Labels:
    """The target of each row of a table, for one aspect.

    Attributes:
        mu: (N,) ratings in [1, 5].
        sigma: (N,) widths of the soft labels.
        source_ids: (N,) integers, equal where the source pair is.
    """

    mu: Tensor
    sigma: Tensor
    source_ids: Tensor


@dataclass(frozen=True)
class LabelOptions:
    """How ratings become soft labels.

    Attributes:
        sigma_min: Width of a label on which all sub-scores agree.
        kappa: How much their disagreement widens it.
        one_hot: The nearest level alone, without width, instead; to compare with.
    """

    sigma_min: float = 0.3
    kappa: float = 1.0
    one_hot: bool = False


def make_labels(table: RatingsTable, aspect: str, options: LabelOptions) -> Labels:
    """Ratings of one aspect as tensors (float64).

    The width of an overall label is the table's `sigma` if it has one, else comes from how far the
    sub-scores disagree. A sub-score has nothing to disagree with: its width is `sigma_min`.
    """
    frame = table.frame
    mu = torch.from_numpy(frame[aspect].to_numpy(dtype=np.float64, copy=True))
    if aspect != DEFAULT_ASPECT:
        sigma = torch.full_like(mu, options.sigma_min)
    elif "sigma" in frame:
        sigma = torch.from_numpy(frame["sigma"].to_numpy(dtype=np.float64, copy=True))
    else:
        scores = torch.from_numpy(frame[SUB_SCORES].to_numpy(dtype=np.float64, copy=True))
        sigma = label_sigma(scores, sigma_min=options.sigma_min, kappa=options.kappa)
    if options.one_hot:
        mu, sigma = mu.round(), torch.zeros_like(sigma)
    codes, _ = pd.factorize(table.source_pairs)
    return Labels(mu, sigma, torch.from_numpy(codes.astype(np.int64)))
