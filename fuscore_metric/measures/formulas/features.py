"""Feature mutual information: how much of each small window of a source `fused` still tells.

M. Haghighat, A. Aghagolzadeh, H. Seyedarabi, "A non-reference image fusion metric based on mutual
information of image features", Computers & Electrical Engineering 37(5), 2011; in the form of M.
Haghighat and M. A. Razian, "Fast-FMI: non-reference image fusion metric", AICT 2014.

A window of 3 x 3 features, less its minimum and divided by its sum, is taken for a distribution of
the nine positions, counted column by column; a flat one is taken for the uniform distribution. Let
p_a and p_f be those of a source's window and of that of `fused`, with entropies H_a and H_f. Their
joint distribution is phi U + (1 - phi) p_a p_f. U is that of the highest correlation between the
positions which p_a and p_f allow, and phi is Pearson's correlation of the two windows, divided by
that of U. Where the windows' correlation is negative, one of them is turned round first. The
measure is the mean of 2 (H_a + H_f - H_joint) / (H_a + H_f) over all windows and both sources. As
phi may exceed 1, a joint "probability" may be negative; then -x log2|x| is its share of the
entropy, as in the authors' program. Rare windows therefore count as more than 1 or less than 0.

A window that equals that of the source counts as 1, also where both are flat. Otherwise a flat
window counts as 0, and so does one that has a single feature above the others, which are all the
same. Of two flat windows with different values, a rounding error in the authors' program says
whether they count as 0 or as 1; here they count as 0.

`joint` computes the bulk in float32: on photographs the mean is within 1e-6 of that in float64.
There is no gradient, for the two distributions are merged by their bits. It would be of little use:
it jumps wherever the darkest pixel of a window changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.joint import Joint, Windows, source_windows
from fuscore_metric.measures.formulas.wavelet import UNITS, meyer_wavelet
from fuscore_metric.measures.grey import Grey
from fuscore_metric.measures.kinds import Compute, Measure

BAND = 3 << 12
"""Windows at once on a CPU: what is computed of them stays in its cache, and is enough for several
cores."""

Bands: TypeAlias = list[tuple[Tensor, Windows]]
"""Features (2, h + 2, w + 2) of both sources by band, and their windows."""


def pixel_information(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """FMI_pixel: feature mutual information of the grey levels themselves.

    Follows the authors' program with the feature "none", whose code was read but not run. Tang's
    evaluator prints under this name what that program computes when no feature is named: that of
    the binary edges that MATLAB's `edge` finds.

    Source: Haghighat et al. 2011, Haghighat and Razian 2014; see the module for the formula.

    Returns:
        (N,), in practice in [0, 1]; 1 where all three images are equal, 0 where `fused` alone is
        flat. Higher is better. Not differentiable.
    """
    return _information(ir, vis, fused, _levels, _level_bands)


def gradient_information(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """FMI_gradient: feature mutual information of the differences across.

    They are central, and one-sided at the border. Follows the authors' program with the feature
    "gradient", whose code was read but not run. It asks MATLAB's `gradient` for its first output
    only, and so leaves out the differences down.

    Source: Haghighat et al. 2011, Haghighat and Razian 2014; see the module for the formula.

    Returns:
        As `pixel_information`. Not differentiable.
    """
    return _information(ir, vis, fused, _differences, _difference_bands)


def wavelet_information(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """FMI_wavelet: feature mutual information of one level of the discrete Meyer wavelet.

    The four parts of the transform lie side by side and are stretched to [0, 1] together, as in the
    authors' program with the feature "wavelet" (Tang's FMI_w). `wavelet.meyer_taps` says how far
    the filters equal MATLAB's. Coefficients are rounded to 2^-30 of their range: in what is flat
    the authors' program compares rounding errors, which differ from one computer to the next.

    Source: Haghighat et al. 2011, Haghighat and Razian 2014; see the module for the formula.

    Returns:
        As `pixel_information`, but where `fused` alone is flat not quite 0: its parts have
        different levels, and windows lie across their seams. Not differentiable.
    """
    return _information(ir, vis, fused, _coefficients, _coefficient_bands)


def _information(
    ir: Grey,
    vis: Grey,
    fused: Grey,
    features: Callable[[Tensor], Tensor],
    bands: Callable[[Grey, Grey], list[Bands]],
) -> Tensor:
    """The measure (N,) float64.

    Args:
        ir: As everywhere.
        vis: As everywhere.
        fused: As everywhere.
        features: Takes pixels (N, H, W) and gives features (N, H', W') as whole numbers, int32.
        bands: `_source_bands` with these features, under a name of its own to be kept by.
    """
    sources = ir.once_with(vis, bands)
    images = features(fused.pixels.detach())
    return torch.stack([_mean(sources[n % len(sources)], one) for n, one in enumerate(images)])


def _mean(sources: Bands, image: Tensor) -> Tensor:
    """Of the shares of all windows of both sources."""
    sums, joints = [], dict[int, Joint]()
    for (features, windows), band in zip(sources, _cut(image[None]), strict=True):
        count = windows.slope.shape[1]
        if count not in joints:  # the last band has fewer
            joints[count] = Joint(len(features), count, image.device)
        shares = joints[count].shares(windows, band)
        sums.append(shares.masked_fill_(_equal(features, band), 1).sum(dtype=torch.float64))
    return torch.stack(sums).sum() / (2 * (image.shape[0] - 2) * (image.shape[1] - 2))


def _source_bands(ir: Grey, vis: Grey, features: Callable[[Tensor], Tensor]) -> list[Bands]:
    """By image."""
    both = torch.stack([features(one.pixels.detach()) for one in (ir, vis)], 1)
    return [[(band, source_windows(band)) for band in _cut(image)] for image in both]


def _level_bands(ir: Grey, vis: Grey) -> list[Bands]:
    return _source_bands(ir, vis, _levels)


def _difference_bands(ir: Grey, vis: Grey) -> list[Bands]:
    return _source_bands(ir, vis, _differences)


def _coefficient_bands(ir: Grey, vis: Grey) -> list[Bands]:
    return _source_bands(ir, vis, _coefficients)


def _cut(features: Tensor) -> Iterator[Tensor]:
    """Some rows of windows (S, H, W) at a time."""
    height, width = features.shape[1] - 2, features.shape[2] - 2
    rows = height if features.is_cuda else max(1, BAND // width)
    for top in range(0, height, rows):
        yield features[:, top : top + rows + 2]


def _equal(sources: Tensor, fused: Tensor) -> Tensor:
    """Whether windows are the same: (S, h + 2, w + 2), (1, h + 2, w + 2) -> (S, P)."""
    same = sources == fused
    same = same[:, :-2] & same[:, 1:-1] & same[:, 2:]
    return (same[..., :-2] & same[..., 1:-1] & same[..., 2:]).flatten(1)


def _levels(pixels: Tensor) -> Tensor:
    """The grey levels themselves."""
    return pixels.round().int()


def _differences(pixels: Tensor) -> Tensor:
    """Twice the differences across of MATLAB's `gradient` with one output."""
    return _levels(2 * torch.gradient(pixels, dim=-1)[0])


def _coefficients(pixels: Tensor) -> Tensor:
    return _levels(meyer_wavelet(pixels) * UNITS)


MEASURES = (
    Measure(
        "FMI_pixel",
        "feature mutual information, grey levels",
        pixel_information,
        "Haghighat, Razian 2014",
        low=-math.inf,
        differentiable=False,
    ),
    Measure(
        "FMI_gradient",
        "feature mutual information, gradient",
        gradient_information,
        "Haghighat, Razian 2014",
        low=-math.inf,
        differentiable=False,
    ),
    Measure(
        "FMI_wavelet",
        "feature mutual information, wavelet",
        wavelet_information,
        "Haghighat, Razian 2014",
        low=-math.inf,
        differentiable=False,
    ),
)

PUBLISHED: dict[str, dict[str, Compute]] = {}
"""By evaluator and measure: formulas that differ from the definitions above."""
