"""Windows of 3 x 3 features -> how much of a source's window that of `fused` tells, in float32.

`features` has the formula. What takes the time is the 17 cells of each pair of windows in which the
joint distribution of the highest correlation has mass. They are found for many windows at once, in
few rows of memory that stay in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

CELLS = 9
"""Positions in a window, counted column by column."""

PIECES = 2 * CELLS - 1

_TINY = 1e-36
"""Next to the square of a probability it is nothing, and it has a logarithm."""

_SIGN = -0x80000000  # the bit that makes a float32 negative, and its bits a negative whole number
_MINUS_ONE = -0x40800000  # the bits of -1.0 in float32


class Sources(NamedTuple):
    """The P windows of S sources, in float32.

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

    def part(self, start: int, stop: int) -> Sources:
        """Some of the windows."""
        return Sources(*(one[..., start:stop] for one in self))


class Fused(NamedTuple):
    """The P windows of `fused`, made ready to be compared with those of sources.

    Attributes:
        change: (9, 1, P) float32: `slope` times what each number of the distribution exceeds the
            next by, and times what the last exceeds 1/9 by.
        falling: (10, 1, P) the bits of `rising` from its last to its first, the lowest set to 1;
            then of `total` and of `pairs`.
        turning: (10, 1, P) the bits in which these differ from those of the window turned round.
        entropy: (1, P) in bits.
    """

    change: Tensor
    falling: Tensor
    turning: Tensor
    entropy: Tensor

    def part(self, start: int, stop: int) -> Fused:
        """Some of the windows."""
        return Fused(*(one[..., start:stop] for one in self))


def source_windows(features: Tensor) -> Sources:
    """Describe all windows of sources' features (S, h + 2, w + 2), int32; P is h w."""
    return _described(features)[1]


def fused_windows(features: Tensor) -> Fused:
    """Describe all windows of `fused`'s features (1, h + 2, w + 2), int32; P is h w."""
    mass, found = _described(features)
    change = torch.empty_like(mass)
    torch.sub(mass[:-1], mass[1:], out=change[:-1])
    torch.sub(mass[-1], 1 / CELLS, out=change[-1])
    both = mass.new_empty((2, CELLS + 1, *mass.shape[1:]))
    ends, total, pairs = both[:, :-2], both[:, -2], both[:, -1]
    ends[0], total[0], pairs[0] = found.rising.flip(0), found.total, found.pairs
    torch.sub(1, found.rising, out=ends[1])
    torch.sub(CELLS - 1, found.total, out=total[1])
    every = (CELLS - 1) * (CELLS - 2) // 2
    torch.add(found.pairs + every, found.total, alpha=2 - CELLS, out=pairs[1])
    bits = both.view(torch.int32)
    bits[:, :-2] |= 1
    return Fused(change.mul_(found.slope), bits[0], bits[0] ^ bits[1], found.entropy)


def _described(features: Tensor) -> tuple[Tensor, Sources]:
    """The distributions (9, S, P) themselves, and what is known of them.

    All of a flat window is 0, also its distribution. It has no slope, which is what counts.
    """
    count, height, width = features.shape[0], features.shape[1] - 2, features.shape[2] - 2
    lowest = _least_of_three(_least_of_three(features, 1), 2)
    cells = features.unfold(1, height, 1).unfold(2, width, 1).permute(2, 1, 0, 3, 4)
    above = features.new_empty((3, 3, *lowest.shape))
    torch.sub(cells, lowest, out=above)
    mass = above.view(CELLS, count, -1).float()
    sums = mass.clone()
    for before, here in pairwise(sums):
        here += before
    whole = sums[-1].clamp_(min=1)
    mass /= whole
    rising = (sums[:-1].div_(whole).view(torch.int32) & -2).view(torch.float32)
    total, pairs = rising.sum(0), (rising * _weights(CELLS - 2, rising)).sum(0)
    squares = mass * mass
    variance = torch.add(total, pairs, alpha=2).addcmul_(total, total, value=-1).clamp_(min=0)
    slope = variance.div_((squares.sum(0) - 1 / CELLS).clamp_(min=_TINY)).sqrt_()
    entropy = squares.add_(_TINY).log2_().mul_(mass).sum(0).mul_(-0.5)
    return mass, Sources(rising, slope, entropy, total, pairs)


def _least_of_three(features: Tensor, dim: int) -> Tensor:
    length = features.shape[dim] - 2
    first, second, third = (features.narrow(dim, start, length) for start in range(3))
    return torch.minimum(torch.minimum(first, second), third)


def _weights(first: int, like: Tensor) -> Tensor:
    """`first`, ..., 0: over rising numbers they give the sum of the lesser of each two."""
    return torch.arange(first, -1, -1, dtype=like.dtype, device=like.device)[:, None, None]


class Joint:
    """Compares `count` windows of `fused` with those of S sources at a time.

    It is a class for its memory, which is the same for all windows. Both blocks of it are used
    again and again, so that little is read that no longer is in the cache.

    Args:
        sources: S.
        count: P.
        device: Where to compute.
    """

    def __init__(self, sources: int, count: int, device: torch.device) -> None:
        new = partial(torch.empty, device=device)
        self._first, self._second = (new(2 * PIECES + 1, sources, count) for _ in range(2))
        self._few = new(CELLS + 1, sources, count)
        self._ends = torch.zeros(PIECES + 1, sources, count, device=device)
        self._ends[-1] = 1
        self._weights = _weights(PIECES - 2, self._ends)
        self._tiny = torch.tensor(_TINY, device=device)

    def shares(self, sources: Sources, fused: Fused) -> Tensor:
        """(S, P) of information in both windows, as a part of the mean of their entropies."""
        # The sum of a f is that of A change, less that of the mean, where A is the rising sum of a.
        products = torch.mul(sources.rising, fused.change[:-1], out=self._few[: CELLS - 1]).sum(0)
        related = products.add_(fused.change[-1]).mul_(sources.slope)
        # A source's window that is opposed to that of `fused` meets it turned round.
        opposed = related.view(torch.int32) >> 31
        chosen = torch.bitwise_and(fused.turning, opposed, out=self._few.view(torch.int32))
        chosen ^= fused.falling
        product = self._pieces(sources.rising.view(torch.int32), chosen[:-2])

        # Hoeffding: the covariance is the sum of min(F_i, A_j) - F_i A_j.
        total, pairs = chosen[-2:].view(torch.float32)
        minima = torch.mul(self._ends[1:-1], self._weights, out=self._first[: PIECES - 1]).sum(0)
        covariance = minima.sub_(pairs).sub_(sources.pairs)
        covariance.addcmul_(total, sources.total, value=-1)
        phi = related.abs_().div_(covariance.clamp_(min=1e-6))

        # In the pieces' cells the joint distribution is `mixed`, elsewhere `rest` times the
        # product. The logarithms are those of squares, twice as large.
        mixed, rest = self._second[PIECES:-1], self._second[-1]
        lengths = torch.sub(self._ends[1:], self._ends[:-1], out=self._first[:PIECES])
        torch.lerp(product, lengths, phi, out=mixed)
        torch.sub(1, phi, out=rest)
        inside = product.sum(0)
        logs = torch.addcmul(self._tiny, self._second, self._second, out=self._first).log2_()
        logs *= self._second
        before, after = logs[:-1].unflatten(0, (2, PIECES)).sum(1)
        outside = logs[-1].addcmul_(logs[-1], inside, value=-1)
        gained = outside.addcmul_(rest, before, value=-1).add_(after)
        entropies = (sources.entropy + fused.entropy).clamp_(min=_TINY)
        return (gained / entropies).add_(phi, alpha=2)

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
        since, until = (one[:-1].unflatten(0, (PIECES, 2)) for one in (first, second))
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
        _run(torch.minimum, partial(torch.clamp, max=_MINUS_ONE), marks, until[:-1], (3, 2, 1, 0))
        since[0] = 0
        _run(torch.maximum, partial(torch.clamp, min=0), marks, marks, (0, 1, 2, 3))
        start, stop = since.view(torch.float32), until.view(torch.float32)
        # `stop` is negative, so both sums are minus the length of a step.
        start[:, 0] += stop[:, 1]
        start[:, 1] += stop[:, 0]
        return torch.mul(start[:, 0], start[:, 1], out=self._second[:PIECES])


def _run(
    best: Callable[..., Tensor],
    limit: Callable[..., Tensor],
    marks: Tensor,
    out: Tensor,
    order: tuple[int, ...],
) -> None:
    """The best of each mark and those before it (16, ...), in four runs of four at once.

    Args:
        best: `torch.maximum` or `torch.minimum`.
        limit: Gives the best of what it gets and of where the run starts.
        marks: Of which.
        out: Where to.
        order: Places of the first to the last of four.
    """
    given, found = (one.unflatten(0, (4, 4)) for one in (marks, out))
    limit(given[:, order[0]], out=found[:, order[0]])
    for before, here in pairwise(order):
        best(found[:, before], given[:, here], out=found[:, here])
    for before, here in pairwise(order):
        best(found[here], found[before, order[-1]], out=found[here])
