"""One level of the discrete Meyer wavelet, for the feature of FMI_wavelet."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

TAPS = 102
"""Length of the discrete Meyer wavelet's filters in MATLAB (in PyWavelets it is 62)."""

UNITS = 2**30
"""Coefficients are rounded to this part of their range."""


def meyer_wavelet(pixels: Tensor) -> Tensor:
    """[A, H; V, D] of MATLAB's `dwt2(pixels, 'dmey')`, stretched to [0, 1].

    Args:
        pixels: (N, H, W).

    Returns:
        (N, 2 floor((H + 101) / 2), 2 floor((W + 101) / 2)), multiples of 2^-30.
    """
    # A is low in both directions, H high down, V high across.
    rows = [torch.cat([part.mT for part in _halves(half.mT)], -1) for half in _halves(pixels)]
    parts = torch.cat(rows, -2)
    low, high = parts.amin((1, 2), keepdim=True), parts.amax((1, 2), keepdim=True)
    stretched = torch.where(high > low, (parts - low) / (high - low), 1.0)
    return torch.round(stretched * UNITS) / UNITS


def _halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high half of each row's frequencies, every second value.

    Args:
        images: (N, H, W). Beyond the border lies their mirror image.

    Returns:
        Two (N, H, floor((W + 101) / 2)).
    """
    width, bank = images.shape[-1], _bank().to(images.device)
    length = (width + TAPS - 1) // 2
    reach, block = bank.shape  # so many pixels give half as many values of each as a block has
    blocks = math.ceil(2 * length / block)
    place = torch.arange(2 - TAPS, blocks * block, device=images.device) % (2 * width)
    mirrored = images[..., torch.minimum(place, 2 * width - 1 - place)]
    both = mirrored.unfold(-1, reach, block) @ bank
    low, high = (half.flatten(-2)[..., :length] for half in both.chunk(2, -1))
    return low, high


@lru_cache
def _bank(values: int = 32) -> Tensor:
    """(2 values + 100, 2 values): that many pixels -> low values, then high ones."""
    low = torch.tensor(meyer_taps(), dtype=torch.float64)
    high = low.flip(0)
    high[1::2] *= -1
    bank = torch.zeros(2 * values + TAPS - 2, 2 * values, dtype=torch.float64)
    for n in range(values):
        bank[2 * n : 2 * n + TAPS, n] = low
        bank[2 * n : 2 * n + TAPS, values + n] = high
    return bank


@lru_cache
def meyer_taps() -> tuple[float, ...]:
    """Low-pass filter of the discrete Meyer wavelet, MATLAB's "dmey".

    The Meyer scaling function has the spectrum cos(pi/2 nu(3 |w| / (2 pi) - 1)), where nu(x) is
    x^4 (35 - 84 x + 70 x^2 - 20 x^3) in [0, 1]. Its filter has no end; what is used are the 101
    values about its middle, made to add up to sqrt(2), and a 0. They are within 1e-10 of the 102
    values that the library wavelib has for MATLAB's; they were not compared with MATLAB itself. The
    filter of PyWavelets has 62 values and differs by up to 9e-4.

    Returns:
        102 numbers.
    """
    points = 1 << 14
    x = (torch.linspace(0, 3, points // 2 + 1, dtype=torch.float64) - 1).clamp(0, 1)
    nu = x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
    taps = torch.fft.irfft(torch.cos(math.pi / 2 * nu), points).roll(TAPS // 2 - 1)[: TAPS - 1]
    return (*(taps * (2**0.5 / taps.sum())).tolist(), 0.0)
