"""Proxy sub-scores of a fused image from classic measures: the numbers behind the proxy ratings.

Every definition and anchor below is ours. They are not human ratings: they are what the classic
measures and the known making of an image suggest as a person's rating.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from fuscore_metric.measures.formulas.edges import EdgePreservation, edge_preservation, edges
from fuscore_metric.measures.formulas.fidelity import source_fidelity
from fuscore_metric.measures.grey import Grey
from fuscore_training.fusions.classic import Image, average
from fuscore_training.labels.label_measures import (
    as_grey,
    invented_edges,
    perceptual_difference,
    thermal_contrast_retention,
    thermal_targets,
)

THERMAL_ANCHORS = ((0.1, 1.0), (0.3, 2.0), (0.5, 3.0), (0.7, 4.0), (0.9, 5.0))
TEXTURE_ANCHORS = ((0.2, 1.0), (0.4, 2.2), (0.55, 3.2), (0.7, 4.2), (0.82, 5.0))
SHARPNESS_ANCHORS = ((0.25, 1.0), (0.5, 2.3), (0.65, 3.1), (0.8, 4.0), (1.0, 5.0))
"""Raw measure -> score on 1-5, linear in between. Set once on the real methods' outputs so that
their scores span the scale; not tuned on any result of FuScore."""

WEIGHTS = (0.25, 0.3, 0.25, 0.2)
WORST_MARGIN = 1.5


@dataclass(frozen=True)
class SubScores:
    """The four sub-scores of a fused image, each in [1, 5], higher is better."""

    thermal_retention: float
    texture_preservation: float
    artifacts: float
    sharpness: float

    @property
    def overall(self) -> float:
        """Overall rating in [1, 5]: weighted harmonic mean, at most 1.5 above the worst sub-score.

        Both make the worst flaw count most, as it does for people: no sharpness repairs a lost
        pedestrian.
        """
        scores = astuple(self)
        mean = 1 / sum(w / s for w, s in zip(WEIGHTS, scores, strict=True))
        return float(min(mean, min(scores) + WORST_MARGIN))


class SourcePair:
    """A source pair's luma and everything of the measures that does not depend on `fused`.

    Args:
        ir: (H, W) infrared luma in [0, 1].
        vis: (H, W) visible luma in [0, 1].
    """

    def __init__(self, ir: Image, vis: Image) -> None:
        self.ir, self.vis = ir, vis
        self.targets = thermal_targets(ir)
        self._hot = _inside(torch.from_numpy(self.targets.hot))
        self._ir, self._vis = as_grey(ir), as_grey(vis)
        self._average = perceptual_difference(self._ir, self._vis, as_grey(average(ir, vis)))

    def rate(self, fused: Image) -> SubScores:
        """Measure a fused luma image (H, W) in [0, 1] against the sources."""
        grey = as_grey(fused)
        ir, vis = _edges(self._ir, grey), _edges(self._vis, grey)
        own = _inside(grey.once(edges).strength)
        sharpness = _relative_sharpness(ir, vis, own)
        return SubScores(
            _on_scale(self._thermal(ir, fused), THERMAL_ANCHORS),
            _on_scale(self._texture(ir, vis, grey), TEXTURE_ANCHORS),
            self._artifacts(ir, vis, grey, sharpness, _flat_excess(ir, vis, own)),
            _on_scale(sharpness, SHARPNESS_ANCHORS),
        )

    def _thermal(self, ir: EdgePreservation, fused: Image) -> float:
        """Contrast kept by the hot targets (0.6) and edges kept on them (0.4)."""
        kept = np.clip(thermal_contrast_retention(self.targets, self.ir, fused), 0, 1.1)
        edges = _mean(ir.preserved, ir.strength * self._hot)
        return float(0.6 * kept + 0.4 * min(edges / 0.75, 1.0))

    def _texture(self, ir: EdgePreservation, vis: EdgePreservation, fused: Grey) -> float:
        """Edges kept of the stronger source (0.5), of the visible off targets (0.25), VIF (0.25).

        VIF enters as the geometric mean over both sources, so that copying one does not pay.
        """
        stronger = torch.where(ir.strength > vis.strength, ir.preserved, vis.preserved)
        dominant = _mean(stronger, torch.maximum(ir.strength, vis.strength))
        visible = _mean(vis.preserved, vis.strength * (1 - self._hot))
        fidelity = source_fidelity(self._ir, fused) * source_fidelity(self._vis, fused)
        both = 2 * float(fidelity.sqrt())
        return 0.5 * dominant + 0.25 * visible + 0.25 * min(both / 0.8, 1.0)

    def _artifacts(
        self,
        ir: EdgePreservation,
        vis: EdgePreservation,
        fused: Grey,
        sharpness: float,
        flat_excess: float,
    ) -> float:
        """5 less invented gradients, overshoot, and difference beyond plain averaging's.

        No edge counts as invented where neither source has a gradient; `flat_excess` measures
        there. Overshoot counts from a quarter on: below it, more contrast than the sources pleases
        rather than disturbs.
        """
        difference = perceptual_difference(self._ir, self._vis, fused)
        excess = np.log2(max(difference, 1e-6) / max(self._average, 1e-6)) + 0.3
        score = 5 - 6 * invented_edges(ir, vis) - 3 * max(0.0, sharpness - 1.25)
        score -= float(np.clip(excess, 0, 1.5)) + min(flat_excess / 15, 1.5)
        return float(np.clip(score, 1, 5))


def _edges(source: Grey, fused: Grey) -> EdgePreservation:
    """Edge preservation without the outermost pixels, where Sobel meets the zero padding."""
    return EdgePreservation(*map(_inside, edge_preservation(source, fused)))


def _inside(images: Tensor) -> Tensor:
    return images[..., 1:-1, 1:-1]


def _mean(values: Tensor, weights: Tensor) -> float:
    """Weighted mean; 0 where nothing weighs."""
    return float((values * weights).sum() / weights.sum().clamp(min=1e-9))


def _relative_sharpness(ir: EdgePreservation, vis: EdgePreservation, own: Tensor) -> float:
    """Gradient of the fused image over the stronger source's, on the strongest fifth of edges."""
    strongest = torch.maximum(ir.strength, vis.strength)
    most = strongest >= _quantile(strongest, 0.8)
    return float(own[most].sum() / strongest[most].sum().clamp(min=1e-9))


def _flat_excess(ir: EdgePreservation, vis: EdgePreservation, own: Tensor) -> float:
    """Mean gradient beyond the stronger source's where both are flat, in grey levels, >= 0."""
    strongest = torch.maximum(ir.strength, vis.strength)
    flat = strongest <= _quantile(strongest, 0.3)
    return max(0.0, float(own[flat].mean() - 1.3 * strongest[flat].mean()))


def _quantile(values: Tensor, part: float) -> float:
    return float(np.quantile(values.numpy(), part))  # torch's has a limit of 16 million values


def _on_scale(raw: float, anchors: tuple[tuple[float, float], ...]) -> float:
    measured, scores = zip(*anchors, strict=True)
    return float(np.interp(raw, measured, scores))
