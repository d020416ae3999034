"""Source pairs -> hashes that outlast other formats and sizes: what weights learned from.

A score of a picture that weights learned from means less than one of a new picture. So weights
carry the hashes of the source pairs of their training, and leaderboards mark those scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fuscore_metric.images.colour import luma

NEAR = 10
"""Most bits of 64 in which the hashes of copies of an image differ, in ir and in vis alike.

Measured on 296 real pairs of six sets. Copies (JPEG down to quality 20, a third to 1.5 times the
size, squeezed to 256x256) differ from the original by at most 4 bits, those that are 20 % brighter
by 10, and of those with 2 % cut off each side 95 % by up to 8. Of the 43,660 pairs of scenes four
are within 10, all of them frames of one street a moment apart; the next is at 14.
"""
_SIDE, _FREQUENCIES = 64, 8


def pair_hash(ir: Tensor, vis: Tensor) -> str:
    """Hash a source pair.

    Args:
        ir: (3, H, W) in [0, 1].
        vis: (3, H, W) in [0, 1].

    Returns:
        32 hexadecimal digits, those of ir first; no picture can be made of them.
    """
    return np.packbits(np.concatenate([_bits(ir), _bits(vis)])).tobytes().hex()


def _bits(image: Tensor) -> NDArray[np.bool_]:
    """The lowest frequencies of the luma: which are above their median (a "pHash"), (64,)."""
    small = F.adaptive_avg_pool2d(luma(image.detach().cpu()[None]), (_SIDE, _SIDE))[0, 0].double()
    place = torch.arange(_SIDE, device="cpu", dtype=torch.float64) + 0.5
    waves = torch.arange(_FREQUENCIES, device="cpu", dtype=torch.float64)[:, None]
    cosines = torch.cos(math.pi / _SIDE * waves * place)  # (8, 64)
    found = (cosines @ small @ cosines.T).flatten().numpy()
    return np.asarray(found > np.median(found[1:]))


def _of_both(hashes: Sequence[str]) -> NDArray[np.uint8]:
    """The bytes of P hashes, (P, 2, 8): of ir and of vis."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 2, 8)


class LearnedPairs:
    """Source pairs that weights learned from.

    Args:
        hashes: Of each pair, as `pair_hash` makes them.
    """

    def __init__(self, hashes: Sequence[str]) -> None:
        self._bytes = _of_both(hashes)

    def has(self, ir: Tensor, vis: Tensor, *, bits: int = NEAR) -> bool:
        """Whether a source pair, (3, H, W) in [0, 1] each, or a copy of it is among them."""
        asked = _of_both([pair_hash(ir, vis)])
        differing = np.unpackbits(self._bytes ^ asked, axis=-1).sum(-1)  # (P, 2)
        return bool((differing <= bits).all(-1).any())
