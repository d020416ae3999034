"""Visual information fidelity: how much of what can be seen in the sources is seen in `fused`.

Both measures model what a source shows, at each place and scale, as a Gaussian signal. `fused` has
it times a gain, plus noise; the eye adds noise of its own. They compare how much information about
the signal the eye gets through `fused` and from the source itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.local import Local, covariance, local, ratio
from fuscore_metric.measures.formulas.windows import gaussian_taps, local_mean, weighted
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure

WIDTHS = (17, 9, 5, 3)
"""Of the Gaussian window at each scale, the finest first; sigma is a fifth."""

NOISE = 2.0
"""Variance of the eye's noise in VIF, in squared grey levels."""

VIFF_NOISE = 0.005 * WHITE**2
"""The same in VIFF."""

VIFF_WEIGHTS = (1 / 2.15, 0.0, 0.15 / 2.15, 1 / 2.15)
"""How much each scale counts in VIFF."""

NOTHING = 1e-10
"""Variances below this are rounding errors, as in the published code of VIF."""


class Channel(NamedTuple):
    """How a source arrives in `fused` at one scale.

    Attributes:
        gain: (N, H, W), not negative.
        variance: Of the source.
        noise: Variance of what else is in `fused`.
    """

    gain: Tensor
    variance: Tensor
    noise: Tensor


def vif(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """VIF: VIF(ir, fused) + VIF(vis, fused), as all evaluators of fusion print it.

    VIF(r, f) = sum of log(1 + g^2 sr^2 / (n + 2)) / sum of log(1 + sr^2 / 2), over all places of
    four scales, with the gain g = srf / sr^2 (at least 0) and the remaining variance
    n = sf^2 - g srf under a Gaussian window of 17, 9, 5, 3 pixels, sigma a fifth of it. Each scale
    is the finer one under its own window, every second pixel. Images with a side under 41 pixels
    have fewer scales.

    Equals the evaluators of Tang and CDDFuse. The values that Tang published in 2022 come from
    products of 8 bits at the finest scale, which MATLAB lets saturate at 255.

    Source: H. R. Sheikh and A. C. Bovik, "Image information and visual quality", IEEE TIP 15(2),
    2006, in the pixel domain, as in their code vifp_mscale.

    Returns:
        (N,) from 0; 2 for three equal images, more where contrast is enhanced. A flat source counts
        as kept (1), as in CDDFuse's evaluator. Higher is better. Differentiable.
    """
    return source_fidelity(ir, fused) + source_fidelity(vis, fused)


def source_fidelity(source: Grey, fused: Grey) -> Tensor:
    """VIF of one source and `fused`, (N,); see `vif`."""
    return _fidelity(fused.once_with(source, channels))


def viff(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """VIFF: one fidelity to both sources, at each place to the one with the lower gain.

    Sums the information as `vif` does, with noise 0.005 * 255^2 of the eye and of one source at
    each place: the one whose gain g is lower, usually that with more contrast; `vis` where the
    gains are equal. Both sums get 1e-7 per place. The ratios of the four scales are averaged with
    weights 1, 0, 0.15 and 1; images with a side under 41 pixels have fewer scales.

    Follows the code of the paper's authors, which was read but not run. Of colour images that code
    takes L of Lab.

    Source: Y. Han et al., "A new image fusion performance metric based on visual information
    fidelity", Information Fusion 14(2), 2013.

    Returns:
        (N,) from 0; 1 for three equal images, flat ones too. Higher is better. Differentiable.
    """
    found, used = [], 0.0
    pairs = zip(*(fused.once_with(one, channels) for one in (ir, vis)), strict=True)
    for weight, (a, b) in zip(VIFF_WEIGHTS, pairs, strict=False):
        if weight:
            lower = a.gain < b.gain
            one = Channel(*(torch.where(lower, x, y) for x, y in zip(a, b, strict=True)))
            seen, shown = (x + 1e-7 for x in _information(one, VIFF_NOISE))
            found.append(weight * seen.sum((1, 2)) / shown.sum((1, 2)))
            used += weight
    return torch.stack(found).sum(0) / used


def bands(pixels: Tensor) -> list[Local]:
    """Local statistics of an image at up to four scales."""
    found: list[Local] = []
    for width in WIDTHS:
        taps = gaussian_taps(width, width / 5)
        if found:
            pixels = _halved(pixels, taps)
        if min(pixels.shape[-2:]) < width:
            break
        found.append(local(pixels, taps))
    return found


def _halved(images: Tensor, taps: Sequence[float]) -> Tensor:
    """Every second row and column of the mean under a window with an odd number of taps."""
    for dim in (-2, -1):
        even, odd = images.unfold(dim, 1, 2), images.narrow(dim, 1, images.shape[dim] - 1)
        even, odd = even[..., 0], odd.unfold(dim, 1, 2)[..., 0]
        images = weighted(even, taps[::2], dim)
        images = images + weighted(odd, taps[1::2], dim).narrow(dim, 0, images.shape[dim])
    return images


def channels(fused: Grey, source: Grey) -> list[Channel]:
    """How a source arrives, at each scale."""
    pairs = zip(source.once(bands), fused.once(bands), strict=True)
    return [_channel(one, other, covariance(one, other)) for one, other in pairs]


def _channel(source: Local, fused: Local, shared: Tensor) -> Channel:
    shows = source.variance >= NOTHING
    arrives = shows & (fused.variance >= NOTHING) & (shared > 0)
    gain = torch.where(arrives, shared / (source.variance + NOTHING), 0)
    noise = (fused.variance - gain * shared).clamp(min=NOTHING)
    return Channel(gain, torch.where(shows, source.variance, 0), noise)


def _information(channel: Channel, eye: float) -> tuple[Tensor, Tensor]:
    """What an eye of this noise gets through `fused`, and from the source itself."""
    seen = torch.log10(1 + channel.gain**2 * channel.variance / (channel.noise + eye))
    return seen, torch.log10(1 + channel.variance / eye)


def _fidelity(scales: Sequence[Channel]) -> Tensor:
    """VIF of one source and `fused`, (N,)."""
    sums = [[part.sum((1, 2)) for part in _information(one, NOISE)] for one in scales]
    seen, shown = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
    return ratio(seen, shown, 0, 1)


def _vif_tang2022(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Products of 8 bits saturate at the finest scale; the coarser ones are not of 8 bits."""
    found = []
    for source in (ir, vis):
        finest = _channel(
            source.once(_saturated),
            fused.once(_saturated),
            _saturated_covariance(source.once(bands)[0], fused.once(bands)[0]),
        )
        found.append(_fidelity([finest, *fused.once_with(source, channels)[1:]]))
    return found[0] + found[1]


def _saturated(pixels: Tensor) -> Local:
    one = local(pixels, gaussian_taps(WIDTHS[0], WIDTHS[0] / 5))
    return one._replace(variance=_saturated_covariance(one, one).clamp(min=0))


def _saturated_covariance(one: Local, other: Local) -> Tensor:
    products = (one.image * other.image).clamp(max=WHITE)
    return local_mean(products, one.taps) - one.mean * other.mean


MEASURES = (
    Measure("VIF", "visual information fidelity", vif, "Sheikh, Bovik 2006"),
    Measure("VIFF", "visual information fidelity for fusion", viff, "Han et al. 2013"),
)

PUBLISHED: dict[str, dict[str, Compute]] = {"tang2022": {"VIF": _vif_tang2022}}
"""By evaluator and measure: formulas that differ from the definitions above."""
