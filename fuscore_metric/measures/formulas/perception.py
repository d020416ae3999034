"""Measures that compare what eyes see: images filtered by the eye's contrast sensitivity.

The frequencies that eyes see depend on how far away they are. As in the only public evaluator, by
Z. Liu, Qcb views an image under 15 degrees and Qcv under 4; here that is the longer side of it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from fuscore_metric.measures.formulas.windows import gaussian_taps, length, local_mean, pad, sobel
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure

NARROW, WIDE = 2.0, 4.0
"""Standard deviations in pixels of the two Gaussians whose difference is local contrast."""

NOTHING = 1e-25
"""A masked contrast that is far below any that 8 bits can show, and far above rounding errors."""

BLOCK = 16


def contrast_preservation(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qcb: mean of w q_ir + (1 - w) q_vis, the part of each source's contrast that is kept.

    Images are filtered by the eye's contrast sensitivity, a difference of Gaussians. The contrast
    c of a pixel is then |narrow / wide - 1|, with means under Gaussians of 2 and 4 pixels; eyes
    see c' = c^3 / (c^2 + 0.0001) of it. q = min(c', f') / max(c', f') for a source's c' and f' of
    `fused`; w = ir'^2 / (ir'^2 + vis'^2). All filters wrap around the border.

    The toolboxes of Liu and VIFB first stretch each of the images to [0, 255], which hides a loss
    of contrast, pad with zeros, so that the border has a high contrast in each image, take both
    sides of an image for equally long, and give NaN where no image has contrast.

    Source: Y. Chen and R. S. Blum, "A new automated quality assessment algorithm for image fusion",
    Image and Vision Computing 27(10), 2009.

    Returns:
        (N,) in [0, 1]; 1 for equal images and for flat ones. Higher is better. Differentiable.
    """
    return _contrast_kept(*(one.once(masked_contrast) for one in (ir, vis, fused)))


def masked_contrast(pixels: Tensor) -> Tensor:
    """What eyes see of local contrast.

    Args:
        pixels: (N, H, W).

    Returns:
        (N, H, W), above 0.
    """
    down, across = frequencies(pixels)
    squared = down**2 + across**2
    seen = _difference_of_gaussians(squared.sqrt() * (max(pixels.shape[-2:]) / 15))
    spectrum = torch.fft.rfft2(pixels) * seen
    narrow, wide = (
        torch.fft.irfft2(spectrum * torch.exp(-2 * (pi * sigma) ** 2 * squared), pixels.shape[-2:])
        for sigma in (NARROW, WIDE)
    )
    return _masked(narrow, wide)


def _difference_of_gaussians(cycles: Tensor) -> Tensor:
    """Contrast sensitivity, after cycles per degree."""
    return torch.exp(-((cycles / 15.387) ** 2)) - 0.7622 * torch.exp(-((cycles / 1.3456) ** 2))


def _masked(narrow: Tensor, wide: Tensor) -> Tensor:
    contrast = (narrow - wide).abs() / wide.abs().clamp(min=1e-9)
    return contrast**3 / (contrast**2 + 1e-4) + NOTHING


def _contrast_kept(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    weight = ir**2 / (ir**2 + vis**2)
    one, other = (torch.minimum(own, fused) / torch.maximum(own, fused) for own in (ir, vis))
    return (weight * one + (1 - weight) * other).mean((1, 2))


def regional_difference(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qcv: sum(w_ir d_ir + w_vis d_vis) / sum(w_ir + w_vis) over blocks of 16x16 pixels.

    d is the mean square, in grey levels squared, of what eyes see of the difference between a
    source and `fused`: of that filtered by the contrast sensitivity of Mannos and Sakrison (1974),
    2.6 (0.0192 + 0.114 r) exp(-(0.114 r)^1.1) at r cycles per degree. w, the block's salience, is
    the sum over its pixels of the fifth power of the source's Sobel gradient.

    The toolboxes of Liu and VIFB pad with zeros, so that the border of an image is its strongest
    edge, whose blocks the fifth power weighs most: by that and by stretching each image to [0, 255]
    first, which hides a loss of contrast, they order fusions quite otherwise. They also write 0.144
    in place of 0.114, and take both sides of an image for equally long.

    Source: H. Chen and P. K. Varshney, "A human perception inspired quality metric for image fusion
    based on regional information", Information Fusion 8(2), 2007.

    Returns:
        (N,) at least 0; 0 for equal images. Where both sources are flat, all blocks weigh the
        same. Lower is better. Differentiable.
    """
    counts = _block_sums(torch.ones_like(fused.pixels[:1]))
    return _regional(ir, vis, fused, salience=salience, visible=visible, counts=counts)


def salience(pixels: Tensor) -> Tensor:
    """Weights of blocks.

    Args:
        pixels: (N, H, W).

    Returns:
        (N, H / 16, W / 16), rounded up, above 0.
    """
    return _salience(pixels, "replicate")


def _salience(pixels: Tensor, border: str) -> Tensor:
    # What is added counts where nothing else does: one grey level at one pixel gives 1 or more.
    return _block_sums(length(*sobel(pixels, border)) ** 5) + 1e-9


def visible(pixels: Tensor) -> Tensor:
    """What eyes see of images, by Mannos and Sakrison.

    Args:
        pixels: (N, H, W).

    Returns:
        (N, H, W) in grey levels.
    """
    down, across = frequencies(pixels)
    cycles = (down**2 + across**2).sqrt() * (max(pixels.shape[-2:]) / 4)
    return filtered(pixels, mannos_sakrison(0.114 * cycles))


def mannos_sakrison(scaled: Tensor) -> Tensor:
    """Contrast sensitivity, after 0.114 times the cycles per degree."""
    return 2.6 * (0.0192 + scaled) * torch.exp(-(scaled**1.1))


def _regional(
    ir: Grey,
    vis: Grey,
    fused: Grey,
    *,
    salience: Callable[[Tensor], Tensor],
    visible: Callable[[Tensor], Tensor],
    counts: Tensor | float,
) -> Tensor:
    weights = [one.once(salience) for one in (ir, vis)]
    squares = [(one.once(visible) - fused.once(visible)) ** 2 for one in (ir, vis)]
    parts = [w * _block_sums(square) / counts for w, square in zip(weights, squares, strict=True)]
    return (parts[0] + parts[1]).sum((1, 2)) / (weights[0] + weights[1]).sum((1, 2))


def _block_sums(images: Tensor) -> Tensor:
    """Sums over blocks, which are smaller at the lower and right border."""
    count, height, width = images.shape
    whole = functional.pad(images, (0, -width % BLOCK, 0, -height % BLOCK))
    return whole.reshape(count, -(-height // BLOCK), BLOCK, -1, BLOCK).sum((2, 4))


def frequencies(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Cycles per pixel of `torch.fft.rfft2`: down (H, 1) and across (W / 2 + 1)."""
    height, width = pixels.shape[-2:]
    down = torch.fft.fftfreq(height, dtype=pixels.dtype, device=pixels.device)
    return down[:, None], torch.fft.rfftfreq(width, dtype=pixels.dtype, device=pixels.device)


def filtered(pixels: Tensor, gain: Tensor) -> Tensor:
    """Images whose frequencies, those of `frequencies`, are multiplied by `gain`."""
    seen: Tensor = torch.fft.irfft2(torch.fft.rfft2(pixels) * gain, pixels.shape[-2:])
    return seen


def _stretched(pixels: Tensor) -> Grey:
    """Images stretched to [0, 255] and rounded; flat ones become black."""
    low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
    levels = (pixels - low) / torch.where(high > low, high - low, 1) * WHITE
    return Grey(levels + (torch.floor(levels + 0.5) - levels).detach())


def _square_cycles(pixels: Tensor, degrees: float) -> Tensor:
    """Cycles per degree, where each side spans as many degrees as the other."""
    (down, across), (height, width) = frequencies(pixels), pixels.shape[-2:]
    return ((down * height) ** 2 + (across * width) ** 2).sqrt() / degrees


def _published_contrast_preservation(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    images = (one.once(_stretched) for one in (ir, vis, fused))
    return _contrast_kept(*(image.once(_published_contrast) for image in images))


def _published_contrast(pixels: Tensor) -> Tensor:
    seen = filtered(pixels, _difference_of_gaussians(_square_cycles(pixels, 15)))
    wide = pad(seen, 15, "constant")
    return _masked(*(local_mean(wide, _cut_taps(sigma)) for sigma in (NARROW, WIDE)))


def _cut_taps(sigma: float) -> list[float]:
    """The middle of a Gaussian, whose sum is a little under 1."""
    return list(gaussian_taps(201, sigma)[85:116])


def _published_regional_difference(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    images = (one.once(_stretched) for one in (ir, vis, fused))
    return _regional(
        *images, salience=_published_salience, visible=_published_visible, counts=BLOCK**2
    )


def _published_salience(pixels: Tensor) -> Tensor:
    return _salience(pixels, "constant")


def _published_visible(pixels: Tensor) -> Tensor:
    return filtered(pixels, mannos_sakrison(0.144 * _square_cycles(pixels, 4)))


MEASURES = (
    Measure("Qcb", "visible contrast kept", contrast_preservation, "Chen, Blum 2009", high=1.0),
    Measure(
        "Qcv",
        "visible difference",
        regional_difference,
        "Chen, Varshney 2007",
        higher_is_better=False,
    ),
)

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"Qcb": _published_contrast_preservation, "Qcv": _published_regional_difference}
}
"""By evaluator and measure: formulas that differ from the definitions above."""
