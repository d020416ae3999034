"""Windows of 3 x 3 features -> how much of a source's window that of `fused` tells, in float32.

`features` has the formula. What takes the time is the 17 cells of each pair of windows in which the
joint distribution of the highest correlation has mass. They are found for many windows at once, in
rows of memory that stay in a CPU's cache.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

CELLS = 9
"""Positions in a window, counted column by column."""

PIECES = 2 * CELLS - 1

_TINY = 1e-30
"""Next to a probability it is nothing, and it has a logarithm."""

_SIGN = -0x80000000  # the bit that makes a float32 negative, and its bits a negative whole number
_MINUS_ONE = -0x40800000  # the bits of -1.0 in float32


class Windows(NamedTuple):
    """P windows of each of S images, in float32.

    Attributes:
        rising: (8, S, P) the distribution function at all positions but the last, where it is 1.
            The lowest bit of each number is 0.
        slope: (S, P) the standard deviation of the position, over the length of (the distribution
            - 1/9); 0 where the window is flat or has mass at one position only.
        entropy: (S, P) in bits.
        total: (S, P) the sum of `rising`.
        pairs: (S, P) the sum of min(rising[i], rising[j]) over i < j.
    """

    rising: Tensor
    slope: Tensor
    entropy: Tensor
    total: Tensor
    pairs: Tensor


def source_windows(features: Tensor) -> Windows:
    """Describe all windows of sources' features (S, h + 2, w + 2), int32; P is h w."""
    count = (features.shape[1] - 2) * (features.shape[2] - 2)
    room = torch.empty(3 * CELLS, len(features), count, device=features.device)
    found = _described(features, room)[1]
    return found._replace(rising=found.rising.clone())  # the rest of `room` is not kept


def _described(features: Tensor, room: Tensor) -> tuple[Tensor, Windows]:
    """The distributions (9, S, P) themselves, and what is known of them.

    All of a flat window is 0, also its distribution. It has no slope, which is what counts.

    Args:
        features: (S, h + 2, w + 2) int32.
        room: (27, S, P), memory for what is computed. The distributions are in its first nine rows
            then, `rising` is behind them, and the last nine are free again.
    """
    count, height, width = features.shape[0], features.shape[1] - 2, features.shape[2] - 2
    mass, sums, others = room.unflatten(0, (3, CELLS))
    lowest = _least_of_three(_least_of_three(features, 1), 2)
    cells = features.unfold(1, height, 1).unfold(2, width, 1).permute(2, 1, 0, 3, 4)
    above = others.view(torch.int32)
    torch.sub(cells, lowest, out=above.view(3, 3, count, height, width))
    mass.copy_(above)
    sums[0] = mass[0]
    for number in range(1, CELLS):
        torch.add(sums[number - 1], mass[number], out=sums[number])
    whole = sums[-1].clamp_(min=1)
    mass /= whole
    rising = sums[:-1]
    rising /= whole
    rising.view(torch.int32).bitwise_and_(-2)
    total = rising.sum(0)
    pairs = torch.mul(rising, _weights(CELLS - 2, rising), out=others[:-1]).sum(0)
    squares = torch.mul(mass, mass, out=others)
    variance = torch.add(total, pairs, alpha=2).addcmul_(total, total, value=-1).clamp_(min=0)
    slope = variance.div_((squares.sum(0) - 1 / CELLS).clamp_(min=_TINY)).sqrt_()
    logs = torch.clamp(mass, min=_TINY, out=others).log2_()
    entropy = logs.mul_(mass).sum(0).neg_()
    return mass, Windows(rising, slope, entropy, total, pairs)


def _least_of_three(features: Tensor, dim: int) -> Tensor:
    length = features.shape[dim] - 2
    first, second, third = (features.narrow(dim, start, length) for start in range(3))
    return torch.minimum(torch.minimum(first, second), third)


def _weights(first: int, like: Tensor) -> Tensor:
    """`first`, ..., 0: over rising numbers they give the sum of the lesser of each two."""
    return torch.arange(first, -1, -1, dtype=like.dtype, device=like.device)[:, None, None]


class Joint:
    """Compares P windows of `fused` with those of S sources at a time.

    It is a class for its memory, which is the same for all windows. Its blocks are used again and
    again, so that little is read that no longer is in the cache.

    Args:
        sources: S.
        count: P.
        device: Where to compute.
    """

    def __init__(self, sources: int, count: int, device: torch.device) -> None:
        new = partial(torch.empty, device=device)
        self._first, self._second = (new(2 * PIECES, sources, count) for _ in range(2))
        self._few = new(CELLS + 1, sources, count)
        self._described = new(3 * CELLS, 1, count)
        self._both_ways = new(2, CELLS + 1, 1, count)
        self._ends = torch.zeros(PIECES + 1, sources, count, device=device)
        self._ends[-1] = 1
        self._weights = _weights(PIECES - 2, self._ends)

    def shares(self, sources: Windows, features: Tensor) -> Tensor:
        """What `fused` tells of the sources' windows.

        Args:
            sources: Their windows.
            features: Those of `fused`, (1, h + 2, w + 2) int32; P is h w.

        Returns:
            (S, P) of information in both windows, as a part of the mean of their entropies.
        """
        mass, fused = _described(features, self._described)
        # The sum of a f is that of A change, less that of the mean, where A is the rising sum of a.
        change = self._described[2 * CELLS :]
        torch.sub(mass[:-1], mass[1:], out=change[:-1])
        torch.sub(mass[-1], 1 / CELLS, out=change[-1])
        change *= fused.slope
        products = torch.mul(sources.rising, change[:-1], out=self._few[: CELLS - 1]).sum(0)
        related = products.add_(change[-1]).mul_(sources.slope)
        # A source's window that is opposed to that of `fused` meets it turned round.
        falling, turning = self._turned(fused)
        opposed = related.view(torch.int32) >> 31
        chosen = torch.bitwise_and(turning, opposed, out=self._few.view(torch.int32))
        chosen ^= falling
        product = self._pieces(sources.rising.view(torch.int32), chosen[:-2])

        # Hoeffding: the covariance is the sum of min(F_i, A_j) - F_i A_j.
        total, pairs = chosen[-2:].view(torch.float32)
        minima = torch.mul(self._ends[1:-1], self._weights, out=self._first[: PIECES - 1]).sum(0)
        covariance = minima.sub_(pairs).sub_(sources.pairs)
        covariance.addcmul_(total, sources.total, value=-1)
        phi = related.abs_().div_(covariance.clamp_(min=1e-6))

        # The joint distribution over `product`, the product of its marginals: 1 - phi + phi
        # length / product in the pieces' cells, 1 - phi elsewhere. Its logarithm's mean is the
        # information.
        rest, inside = 1 - phi, product.sum(0)
        ratios, logs = self._first[:PIECES], self._first[PIECES:]
        torch.sub(self._ends[1:], self._ends[:-1], out=ratios)
        ratios /= torch.clamp(product, min=_TINY, out=logs)
        ratios *= phi
        ratios += rest
        torch.abs(ratios, out=logs).clamp_(min=_TINY).log2_()
        told = logs.mul_(ratios).mul_(product).sum(0)
        outside = rest.abs().clamp_(min=_TINY).log2_().mul_(rest)
        told.add_(outside).addcmul_(outside, inside, value=-1)
        return told.mul_(2).div_((sources.entropy + fused.entropy).clamp_(min=_TINY))

    def _turned(self, fused: Windows) -> tuple[Tensor, Tensor]:
        """The windows of `fused` as the pieces need them, and what turning one round changes.

        Returns:
            (10, 1, P) the bits of `rising` from its last to its first, the lowest set to 1; then of
            `total` and of `pairs`; and the bits in which these differ from those of the window
            turned round.
        """
        both = self._both_ways
        ends, total, pairs = both[:, :-2], both[:, -2], both[:, -1]
        ends[0], total[0], pairs[0] = fused.rising.flip(0), fused.total, fused.pairs
        torch.sub(1, fused.rising, out=ends[1])
        torch.sub(CELLS - 1, fused.total, out=total[1])
        every = (CELLS - 1) * (CELLS - 2) // 2
        torch.add(fused.pairs + every, fused.total, alpha=2 - CELLS, out=pairs[1])
        bits = both.view(torch.int32)
        bits[:, :-2] |= 1
        return bits[0], bits[1].bitwise_xor_(bits[0])

    def _pieces(self, rising: Tensor, falling: Tensor) -> Tensor:
        """The cells in which the joint distribution of the highest correlation has mass.

        Those are the pieces into which the values of both distribution functions cut [0, 1]: a
        piece in the i-th step of the first and the j-th of the second is the mass of cell (i, j).

        Args:
            rising: (8, S, P), the bits of one function without its last value, 1. The lowest is 0.
            falling: The same of the other, from the last to the first. The lowest is 1.

        Returns:
            (17, S, P), the product of the two marginal probabilities of each piece's cell, at the
            beginning of the second block of memory. Where the pieces end is in `_ends`.
        """
        first, second = (one.view(torch.int32) for one in (self._first, self._second))
        since, until = (one.unflatten(0, (PIECES, 2)) for one in (first, second))
        # As whole numbers the bits of [0, 1] sort as the numbers do.
        keys, others = second[: 2 * PIECES - 2].unflatten(0, (2, -1))
        torch.minimum(rising, falling, out=keys[: CELLS - 1])
        torch.maximum(rising, falling, out=keys[CELLS - 1 :])
        for distance in (4, 2, 1):  # merges a rising and a falling half, with the above: Batcher
            halves, sorted_ = (one.unflatten(0, (-1, 2, distance)) for one in (keys, others))
            torch.minimum(halves[:, 0], halves[:, 1], out=sorted_[:, 0])
            torch.maximum(halves[:, 0], halves[:, 1], out=sorted_[:, 1])
            keys, others = others, keys
        # Without the lowest bit: 0 with it is a subnormal number, which takes many times as long.
        ends = torch.bitwise_and(keys, -2, out=self._ends[1:-1].view(torch.int32))

        # In [:, 0] the ends of `falling` are negative, in [:, 1] those of `rising`. As whole
        # numbers they are less than all others: the maximum is that of one function, the minimum
        # of the other. So are found the step of each in which a piece lies, since and until where.
        marks = since[1:]
        torch.bitwise_left_shift(keys, 31, out=others)
        torch.bitwise_or(ends, others, out=marks[:, 0])
        torch.bitwise_xor(marks[:, 0], _SIGN, out=marks[:, 1])
        until[-1] = _MINUS_ONE
        for number in reversed(range(PIECES - 1)):
            torch.minimum(until[number + 1], marks[number], out=until[number])
        since[0] = 0
        for before, here in pairwise(since):
            torch.maximum(before, here, out=here)
        start, stop = since.view(torch.float32), until.view(torch.float32)
        # `stop` is negative, so both sums are minus the length of a step.
        start[:, 0] += stop[:, 1]
        start[:, 1] += stop[:, 0]
        return torch.mul(start[:, 0], start[:, 1], out=self._second[:PIECES])
