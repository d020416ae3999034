"""Measures of how far `fused` is from the mean of both sources, pixel by pixel.

The mean of the sources is the best fusion by all of them, however little contrast it keeps.
"""

from __future__ import annotations

import math

from torch import Tensor

from fuscore_metric.measures.formulas.windows import root
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure

MOST_DECIBELS = 100.0
"""PSNR of three equal images, and of others that differ by next to nothing."""

SOURCE = "Jagalingam, Hegde 2015"


def _squared_error(source: Grey, fused: Grey) -> Tensor:
    return ((source.pixels - fused.pixels) ** 2).mean((1, 2))


def mean_squared_error(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """MSE: mean of (mean((ir - f)^2), mean((vis - f)^2)), in squared grey levels.

    Equals CDDFuse's evaluator. Tang's has pixels in [0, 1]: this divided by 255^2.

    Source: P. Jagalingam and A. V. Hegde, "A review of quality metrics for fused image", Aquatic
    Procedia 4, 2015.

    Returns:
        (N,) in [0, 255^2]. Lower is better. Differentiable.
    """
    return (_squared_error(ir, fused) + _squared_error(vis, fused)) / 2


def root_mean_squared_error(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """RMSE: sqrt(MSE), in grey levels.

    VIFB's evaluator has the mean of sqrt(sum((s - f)^2)) / (H W) over the sources s, with H W
    outside of the root, so that its numbers fall with the size of an image.

    Source: Jagalingam and Hegde 2015, as for `mean_squared_error`.

    Returns:
        (N,) in [0, 255]. Lower is better. Differentiable.
    """
    return root(mean_squared_error(ir, vis, fused))


def peak_signal_to_noise_ratio(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """PSNR: 10 log10(255^2 / MSE), in dB, at most 100.

    Tang's evaluator divides 255^2 by an MSE of pixels in [0, 1]: 48.13 dB more. CDDFuse's has the
    brightest level of `fused` instead of 255. VIFB's has its RMSE (see there) instead of the MSE.

    Source: Jagalingam and Hegde 2015, as for `mean_squared_error`.

    Returns:
        (N,) in [0, 100]; 100 for three equal images. Higher is better. Differentiable.
    """
    return _decibels(mean_squared_error(ir, vis, fused))


def _decibels(error: Tensor, peak: Tensor | float = WHITE) -> Tensor:
    return 10 * (peak**2 / error.clamp_min(WHITE**2 / 10 ** (MOST_DECIBELS / 10))).log10()


def _mean_squared_error_of_unit_range(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    return mean_squared_error(ir, vis, fused) / WHITE**2


def _peak_signal_to_noise_ratio_of_two_ranges(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    return peak_signal_to_noise_ratio(ir, vis, fused) + 20 * math.log10(WHITE)


def _peak_signal_to_noise_ratio_of_brightest(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    brightest = fused.pixels.amax((1, 2)).clamp_min(1)
    return _decibels(mean_squared_error(ir, vis, fused), brightest)


def _root_outside(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    both = root(_squared_error(ir, fused)) + root(_squared_error(vis, fused))
    return both / 2 / math.sqrt(fused.pixels[0].numel())


def _peak_signal_to_noise_ratio_of_root(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    return _decibels(_root_outside(ir, vis, fused))


MEASURES = (
    Measure(
        "MSE",
        "mean squared error",
        mean_squared_error,
        SOURCE,
        higher_is_better=False,
        high=WHITE**2,
    ),
    Measure(
        "RMSE",
        "root mean squared error",
        root_mean_squared_error,
        SOURCE,
        higher_is_better=False,
        high=WHITE,
    ),
    Measure(
        "PSNR",
        "peak signal-to-noise ratio",
        peak_signal_to_noise_ratio,
        SOURCE,
        high=MOST_DECIBELS,
    ),
)

_TANG: dict[str, Compute] = {
    "MSE": _mean_squared_error_of_unit_range,
    "PSNR": _peak_signal_to_noise_ratio_of_two_ranges,
}

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"RMSE": _root_outside, "PSNR": _peak_signal_to_noise_ratio_of_root},
    "tang": _TANG,
    "tang2022": _TANG,
    "cddfuse": {"PSNR": _peak_signal_to_noise_ratio_of_brightest},
}
"""By evaluator and measure: formulas that differ from the definitions above."""
