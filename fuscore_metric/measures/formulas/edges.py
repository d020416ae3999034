"""Measures that ask how much of the sources' edges is in `fused`, and what it has beyond them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

from fuscore_metric.measures.formulas.windows import length, pad, sobel
from fuscore_metric.measures.grey import WHITE, Grey
from fuscore_metric.measures.kinds import Compute, Measure

KUMAR_STRENGTH, KUMAR_ORIENTATION = (0.9999, 19.0, 0.5), (0.9995, 22.0, 0.5)
XYDEAS_STRENGTH, XYDEAS_ORIENTATION = (0.9994, 15.0, 0.5), (0.9879, 22.0, 0.8)
"""Highest value, slope and middle of the sigmoids that turn agreement into preservation."""

STRONG, WEAK_WEIGHT, POWER = 2.0, 0.001, 1.5
"""Kumar's weights: gradients from `STRONG` grey levels per pixel on count by their `POWER`."""


class Edges(NamedTuple):
    """Gradient of an image at each pixel."""

    strength: Tensor
    """(N, H, W) its length."""
    direction: Tensor
    """(N, H, W) its angle in radians; pi/2 where the image is flat."""


class EdgePreservation(NamedTuple):
    """Gradient strength and per-pixel edge preservation of one source in the fused image."""

    strength: Tensor
    """(N, H, W) Sobel gradient magnitude of the source, in grey levels."""
    preserved: Tensor
    """(N, H, W) how much of the source's edge is kept in the fused image, in [0, 1]."""
    exceeded: Tensor
    """(N, H, W) True where the fused gradient is stronger than the source's."""


def edges(pixels: Tensor) -> Edges:
    """Sobel's gradient (weights 1, 2, 1) with zeros beyond the border.

    Args:
        pixels: (N, H, W).
    """
    return _edges(*sobel(pixels, "constant"))


def mirrored_edges(pixels: Tensor) -> Edges:
    """Sobel's gradient per pixel (weights 1/8, 2/8, 1/8) with a mirrored border.

    Args:
        pixels: (N, H, W).
    """
    return _edges(*sobel(pixels / 8, "reflect"))


def _edges(across: Tensor, down: Tensor) -> Edges:
    strength = length(across, down)
    flat = strength == 0
    direction = torch.atan2(torch.where(flat, 1.0, down), torch.where(flat, 0.0, across))
    return Edges(strength, direction)


def edge_preservation(source: Grey, fused: Grey) -> EdgePreservation:
    """Preservation of edges as Xydeas and Petrovic define it for Qabf.

    The product of two sigmoids: of the ratio of the weaker to the stronger gradient, and of the
    angle between both, where right angles count 0 and parallels 1.

    Args:
        source: `ir` or `vis`.
        fused: The fused image.
    """
    own, kept = source.once(edges), fused.once(edges)
    strength = _sigmoid(_ratio(own.strength, kept.strength), *XYDEAS_STRENGTH)
    preserved = strength * _sigmoid(_aligned(own, kept), *XYDEAS_ORIENTATION)
    return EdgePreservation(own.strength, preserved, kept.strength > own.strength)


def edge_transfer(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Qabf: sum(q_ir g_ir + q_vis g_vis) / sum(g_ir + g_vis), with edge preservation q, gradient g.

    VIFB, Tang and CDDFuse do not wrap the angle between two gradients at pi, though an edge at 89
    and one at -89 degrees are all but parallel. They also take for the ratio of two equal gradients
    the gradient itself, not 1, which matters where pixels are in [0, 1], as in the table that Tang
    published in 2022. Their values are mostly 0.01 to 0.08 lower.

    Source: C. S. Xydeas and V. Petrovic, "Objective image fusion performance measure", Electronics
    Letters 36(4), 2000; their constants.

    Returns:
        (N,) in [0, 1]; at most 0.975, for copies of equal sources; 0 for flat sources. Higher is
        better. Differentiable.
    """
    one, other = edge_preservation(ir, fused), edge_preservation(vis, fused)
    return _weighted_mean(one.preserved, one.strength, other.preserved, other.strength)


def artefacts(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Nabf: the share of the sources' edges that is lost under stronger edges of `fused`.

    sum(n ((1 - q_ir) w_ir + (1 - q_vis) w_vis)) / sum(w_ir + w_vis), with n = 1 where the gradient
    of `fused` is stronger than both of the sources', else 0; preservation q; and weights w, which
    are powers of the sources' gradients: what `fused` invents where both sources are flat hardly
    counts. The preserved share, Labf and Nabf add up to 1.

    Equals the evaluator of Tang.

    Source: B. K. Shreyamsha Kumar, "Multifocus and multispectral image fusion based on pixel
    significance using discrete cosine harmonic wavelet transform", Signal, Image and Video
    Processing 7(6), 2013, after V. Petrovic and C. Xydeas, "Objective image fusion performance
    characterisation", ICCV 2005; Kumar's constants.

    Returns:
        (N,) in [0, 1]; 0 for flat images. Lower is better. Differentiable, but for the border
        between stronger and weaker edges.
    """
    lost, beyond, total = _losses(ir, vis, fused)
    return (lost * beyond).sum((1, 2)) / total


def loss(ir: Grey, vis: Grey, fused: Grey) -> Tensor:
    """Labf: the share of the sources' edges that is lost elsewhere.

    As `artefacts`, but with n = 1 where the gradient of `fused` is not stronger than both.

    Source: V. Petrovic and C. Xydeas, "Objective image fusion performance characterisation", ICCV
    2005; constants as for `artefacts`.

    Returns:
        (N,) in [0, 1]; 0.991 for flat images, where there is nothing to preserve. Lower is better.
        Differentiable, but for the border between stronger and weaker edges.
    """
    lost, beyond, total = _losses(ir, vis, fused)
    return (lost * ~beyond).sum((1, 2)) / total


def _losses(ir: Grey, vis: Grey, fused: Grey) -> tuple[Tensor, Tensor, Tensor]:
    """(N, H, W) what is not preserved, and where `fused` exceeds both; (N,) sum of the weights."""
    lost = fused.once_with(ir, _lost) + fused.once_with(vis, _lost)
    strongest = torch.maximum(*(one.once(mirrored_edges).strength for one in (ir, vis)))
    beyond = fused.once(mirrored_edges).strength > strongest
    return lost, beyond, (ir.once(_kumar_weight) + vis.once(_kumar_weight)).sum((1, 2))


def _lost(fused: Grey, source: Grey) -> Tensor:
    own, kept = source.once(mirrored_edges), fused.once(mirrored_edges)
    strength = _sigmoid(_ratio(own.strength, kept.strength), *KUMAR_STRENGTH)
    preserved = (strength * _sigmoid(_aligned(own, kept), *KUMAR_ORIENTATION)).sqrt()
    return (1 - preserved) * source.once(_kumar_weight)


def _kumar_weight(pixels: Tensor) -> Tensor:
    strength = length(*sobel(pixels / 8, "reflect"))
    strong = strength >= STRONG
    return torch.where(strong, torch.where(strong, strength, 1) ** POWER, WEAK_WEIGHT)


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    """The weaker over the stronger; 0 where both are 0."""
    return torch.minimum(one, other) / torch.maximum(one, other).clamp(min=1e-12)


def _aligned(one: Edges, other: Edges) -> Tensor:
    """1 for parallels, whatever their direction, to 0 for right angles."""
    angle = (one.direction - other.direction).abs()
    return ((angle - pi).abs() - pi / 2).abs() * (2 / pi)


def _sigmoid(values: Tensor, high: float, slope: float, middle: float) -> Tensor:
    return high * torch.sigmoid(slope * (values - middle))


def _weighted_mean(one: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    total = (weight + other_weight).sum((1, 2))
    return (one * weight + other * other_weight).sum((1, 2)) / total.clamp(min=1e-12)


def _published_edge_transfer(
    ir: Grey, vis: Grey, fused: Grey, *, edges_of: Callable[[Tensor], Edges], unit: float = 1.0
) -> Tensor:
    """Qabf of the evaluators: angles are not wrapped, equal gradients have themselves as ratio.

    Args:
        ir: As everywhere.
        vis: As everywhere.
        fused: As everywhere.
        edges_of: Their gradient.
        unit: How many of their units of it make a grey level.
    """
    kept, pairs = fused.once(edges_of), []
    for own in (ir.once(edges_of), vis.once(edges_of)):
        same = own.strength == kept.strength
        ratio = torch.where(same, unit * own.strength, _ratio(own.strength, kept.strength))
        aligned = 1 - (own.direction - kept.direction).abs() * (2 / pi)
        preserved = _sigmoid(ratio, *XYDEAS_STRENGTH) * _sigmoid(aligned, *XYDEAS_ORIENTATION)
        pairs += [preserved, own.strength]
    return _weighted_mean(*pairs)


def _folded_edges(pixels: Tensor) -> Edges:
    """Gradients whose direction is that of their line, in (-pi/2, pi/2]."""
    return _folded(*sobel(pixels, "constant"))


def _folded(across: Tensor, down: Tensor) -> Edges:
    # The evaluators' gradient points left. Only unwrapped angles notice, at upright ones.
    upright = across == 0
    slope = down / torch.where(upright, 1, -across)
    return Edges(length(across, down), torch.where(upright, pi / 2, slope.atan()))


def _unit_edges(pixels: Tensor) -> Edges:
    """The same of images in [0, 1], rounded as by MATLAB's `conv2`.

    In [0, 1], rounding decides which gradients are equal, so the order of additions counts: from
    the last column to the first, in each from the last row to the first.
    """
    # A GPU would multiply by the rounded reciprocal of a plain number.
    wide = pad(pixels / pixels.new_tensor(WHITE), 1, "constant")
    height, width = pixels.shape[-2:]

    def added(weights: tuple[tuple[int, ...], ...]) -> Tensor:
        total = torch.zeros_like(pixels)
        for column in (2, 1, 0):
            for row in (2, 1, 0):
                if weights[row][column]:
                    part = wide[:, row : row + height, column : column + width]
                    total = total + weights[row][column] * part
        return total

    return _folded(
        added(((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))), added(((-1, -2, -1), (0, 0, 0), (1, 2, 1)))
    )


MEASURES = (
    Measure("Qabf", "edges kept", edge_transfer, "Xydeas, Petrovic 2000", high=1.0),
    Measure(
        "Nabf",
        "edges invented",
        artefacts,
        "Shreyamsha Kumar 2013",
        higher_is_better=False,
        high=1.0,
    ),
    Measure("Labf", "edges lost", loss, "Petrovic, Xydeas 2005", higher_is_better=False, high=1.0),
)

PUBLISHED: dict[str, dict[str, Compute]] = {
    "vifb": {"Qabf": partial(_published_edge_transfer, edges_of=_folded_edges, unit=WHITE)},
    "tang": {"Qabf": partial(_published_edge_transfer, edges_of=_folded_edges)},
    "tang2022": {"Qabf": partial(_published_edge_transfer, edges_of=_unit_edges)},
    "cddfuse": {"Qabf": partial(_published_edge_transfer, edges_of=_folded_edges)},
}
"""By evaluator and measure: formulas that differ from the definitions above."""
