"""Measures of histograms: how much the grey levels of `fused` say, and how much of the sources.

All count how often each of the 256 levels occurs, so that none has a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fuscore_metric.measures.grey import Grey
from fuscore_metric.measures.kinds import Compute, Measure

LEVELS = 256
BITS = 8.0


@dataclass(frozen=True)
class Histogram:
    """The grey levels of N images.

    Attributes:
        numbers: (N, H W) int64, the level of each pixel.
        shares: (N, 256), the part of the pixels that has a level.
        entropy: (N,) in bits.
    """

    numbers: Tensor
    shares: Tensor
    entropy: Tensor


def histogram(pixels: Tensor) -> Histogram:
    """Count the grey levels of images (N, H, W)."""
    numbers = pixels.detach().flatten(1).long()
    shares = _shares(numbers, LEVELS)
    return Histogram(numbers, shares, _bits(shares))


def _shares(numbers: Tensor, kinds: int) -> Tensor:
    """Numbers (N, S) below `kinds` -> the part of each (N, kinds)."""
    count, size = numbers.shape
    starts = torch.arange(count, device=numbers.device)[:, None] * kinds
    found = torch.bincount((numbers + starts).flatten(), minlength=count * kinds)
    return found.view(count, kinds).double() / size


def _bits(shares: Tensor) -> Tensor:
    parts: Tensor = torch.special.entr(shares)
    return parts.sum(1) / math.log(2)


def _joint_entropy(source: Tensor, fused: Tensor) -> Tensor:
    """Entropy (N,) of the pairs of levels, in bits."""
    return _bits(_shares(source * LEVELS + fused, LEVELS * LEVELS))


def _mutual_information(source: Grey, fused: Grey) -> Tensor:
    """I(s; f) (N,) in bits."""
    one, other = source.once(histogram), fused.once(histogram)
    joint = _joint_entropy(one.numbers, other.numbers)
    return (one.entropy + other.entropy - joint).clamp_min(0)  # not below 0 by rounding


def entropy(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """EN: -sum of p log2 p over the 256 grey levels, in bits.

    Equals the evaluators of VIFB, Tang and CDDFuse.

    Source: J. W. Roberts, J. A. van Aardt and F. B. Ahmed, "Assessment of image fusion procedures
    using entropy, image quality, and multispectral classification", Journal of Applied Remote
    Sensing 2(1), 2008.

    Returns:
        (N,) in [0, 8]; 0 for one grey level everywhere. Higher is better. Without a gradient.
    """
    del ir, vis
    return fused.once(histogram).entropy


def cross_entropy(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """CE: mean over the sources of sum of p log2 (p / q), with p of the source and q of `fused`.

    It is the Kullback-Leibler divergence, which is infinite where `fused` lacks a level of the
    source. As in VIFB's evaluator, whose numbers it equals, only levels that both have are summed,
    so that it can fall below 0, down to -log2(e) / e.

    Source: D. M. Bulanon, T. F. Burks and V. Alchanatis, "Image fusion of visible and thermal
    images for fruit detection", Biosystems Engineering 103(1), 2009.

    Returns:
        (N,) in bits; 0 for three equal histograms. Lower is better. Without a gradient.
    """
    own = fused.once(histogram).shares
    parts = [_divergence(source.once(histogram).shares, own) for source in (ir, vis)]
    return (parts[0] + parts[1]) / 2


def _divergence(shares: Tensor, others: Tensor) -> Tensor:
    both = (shares > 0) & (others > 0)
    return torch.where(both, shares * (shares / others).log2(), 0).sum(1)


def mutual_information(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """MI: I(ir; f) + I(vis; f), with I(s; f) = H(s) + H(f) - H(s, f), in bits.

    VIFB's and CDDFuse's evaluators take the natural logarithm: ln(2) times as much. That VIFB
    stretches each image to the full range does not matter: no two of 256 levels become one. Tang's
    counts pairs of levels in numbers of 8 bits that start at 1, where the level 255 is taken for
    254: that lowers H(s, f), by some 0.04 bits for overexposed images.

    Source: G. Qu, D. Zhang and P. Yan, "Information measure for performance of image fusion",
    Electronics Letters 38(7), 2002.

    Returns:
        (N,) in [0, 16]; 0 for one grey level everywhere. Higher is better. Without a gradient.
    """
    return _mutual_information(ir, fused) + _mutual_information(vis, fused)


def normalised_mutual_information(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """NMI: 2 (I(ir; f) / (H(ir) + H(f)) + I(vis; f) / (H(vis) + H(f))).

    MI grows with the entropy of the sources; this does not. Liu's toolbox has the same formula, and
    the other evaluators do not have the measure.

    Source: M. Hossny, S. Nahavandi and D. Creighton, "Comments on 'Information measure for
    performance of image fusion'", Electronics Letters 44(18), 2008.

    Returns:
        (N,) in [0, 2]. Where a source and `fused` both have one grey level everywhere, that
        source's part is 0. Higher is better. Without a gradient.
    """
    parts = []
    for source in (ir, vis):
        most = source.once(histogram).entropy + fused.once(histogram).entropy
        parts.append(_mutual_information(source, fused) / torch.where(most > 0, most, 1))
    return 2 * (parts[0] + parts[1])


def _mutual_information_in_nats(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    return mutual_information(ir, vis, fused) * math.log(2)


def _mutual_information_saturating(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """The level 255 counts as 254 in pairs, not alone."""
    own = fused.once(histogram)
    parts = []
    for source in (ir.once(histogram), vis.once(histogram)):
        numbers = (one.numbers.clamp_max(LEVELS - 2) for one in (source, own))
        parts.append(source.entropy + own.entropy - _joint_entropy(*numbers))
    return parts[0] + parts[1]


MEASURES = (
    Measure("EN", "entropy", entropy, "Roberts et al. 2008", high=BITS, differentiable=False),
    Measure(
        "MI",
        "mutual information",
        mutual_information,
        "Qu et al. 2002",
        high=2 * BITS,
        differentiable=False,
    ),
    Measure(
        "NMI",
        "normalised mutual information",
        normalised_mutual_information,
        "Hossny et al. 2008",
        high=2.0,
        differentiable=False,
    ),
    Measure(
        "CE",
        "cross entropy",
        cross_entropy,
        "Bulanon et al. 2009",
        higher_is_better=False,
        low=-math.log2(math.e) / math.e,
        differentiable=False,
    ),
)

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"MI": _mutual_information_in_nats},
    "tang": {"MI": _mutual_information_saturating},
    "tang2022": {"MI": _mutual_information_saturating},
    "cddfuse": {"MI": _mutual_information_in_nats},
}
"""By evaluator and measure: formulas that differ from the definitions above."""
