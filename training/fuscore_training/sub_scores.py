"""Proxy sub-scores of a fused image from classic measures: the numbers behind the proxy ratings.

Every definition and anchor below is ours. They are not human ratings: they say what the classic
measures and the known making of an image suggest that a person would say.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from fuscore_training import classic_measures as cm
from fuscore_training.classic_fusions import average
from fuscore_training.classic_measures import Image

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
        self.targets = cm.thermal_targets(ir)
        self.average_difference = cm.perceptual_difference(ir, vis, average(ir, vis))

    def rate(self, fused: Image) -> SubScores:
        """Measure a fused luma image (H, W) in [0, 1] against the sources."""
        ir, vis = _edges(self.ir, fused), _edges(self.vis, fused)
        own = _edges(fused, fused).strength
        sharpness = _relative_sharpness(ir, vis, own)
        return SubScores(
            _on_scale(self._thermal(ir, fused), THERMAL_ANCHORS),
            _on_scale(self._texture(ir, vis, fused), TEXTURE_ANCHORS),
            self._artifacts(ir, vis, fused, sharpness, _flat_excess(ir, vis, own)),
            _on_scale(sharpness, SHARPNESS_ANCHORS),
        )

    def _thermal(self, ir: cm.EdgePreservation, fused: Image) -> float:
        """Contrast kept by the hot targets (0.6) and edges kept on them (0.4)."""
        hot = _inside(self.targets.hot)
        kept = np.clip(cm.thermal_contrast_retention(self.targets, self.ir, fused), 0, 1.1)
        weight = ir.strength * hot
        edges = float((ir.preserved * weight).sum() / max(float(weight.sum()), 1e-9))
        return float(0.6 * kept + 0.4 * min(edges / 0.75, 1.0))

    def _texture(self, ir: cm.EdgePreservation, vis: cm.EdgePreservation, fused: Image) -> float:
        """Edges kept of the stronger source (0.5), of the visible off targets (0.25), VIF (0.25).

        VIF enters as the geometric mean over both sources, so that copying one does not pay.
        """
        stronger = np.where(ir.strength > vis.strength, ir.preserved, vis.preserved)
        weight = np.maximum(ir.strength, vis.strength)
        dominant = float((stronger * weight).sum() / max(float(weight.sum()), 1e-9))
        cool = vis.strength * (1 - _inside(self.targets.hot))
        visible = float((vis.preserved * cool).sum() / max(float(cool.sum()), 1e-9))
        both = 2 * np.sqrt(cm.vif(self.ir, fused) * cm.vif(self.vis, fused))
        return float(0.5 * dominant + 0.25 * visible + 0.25 * min(both / 0.8, 1.0))

    def _artifacts(
        self,
        ir: cm.EdgePreservation,
        vis: cm.EdgePreservation,
        fused: Image,
        sharpness: float,
        flat_excess: float,
    ) -> float:
        """5 less invented gradients, overshoot, and difference beyond plain averaging's.

        Nabf is blind where neither source has a gradient; `flat_excess` looks there. Overshoot
        counts from a quarter on: below it, more contrast than the sources pleases rather than
        disturbs.
        """
        difference = cm.perceptual_difference(self.ir, self.vis, fused)
        excess = np.log2(max(difference, 1e-6) / max(self.average_difference, 1e-6)) + 0.3
        score = 5 - 6 * cm.nabf(ir, vis) - 3 * max(0.0, sharpness - 1.25)
        score -= float(np.clip(excess, 0, 1.5)) + min(flat_excess / 15, 1.5)
        return float(np.clip(score, 1, 5))


def _edges(source: Image, fused: Image) -> cm.EdgePreservation:
    """Edge preservation without the outermost pixels: there Sobel sees the zero padding."""
    return cm.EdgePreservation(*map(_inside, cm.edge_preservation(source, fused)))


def _inside(image: Any) -> Any:
    return image[1:-1, 1:-1]


def _relative_sharpness(ir: cm.EdgePreservation, vis: cm.EdgePreservation, own: Image) -> float:
    """Gradient of the fused image over the stronger source's, on the strongest fifth of edges."""
    strongest = np.maximum(ir.strength, vis.strength)
    edges = strongest >= np.quantile(strongest, 0.8)
    return float(own[edges].sum() / max(float(strongest[edges].sum()), 1e-9))


def _flat_excess(ir: cm.EdgePreservation, vis: cm.EdgePreservation, own: Image) -> float:
    """Mean gradient beyond the stronger source's where both are flat, in grey levels, >= 0."""
    strongest = np.maximum(ir.strength, vis.strength)
    flat = strongest <= np.quantile(strongest, 0.3)
    return max(0.0, float(own[flat].mean()) - 1.3 * float(strongest[flat].mean()))


def _on_scale(raw: float, anchors: tuple[tuple[float, float], ...]) -> float:
    measured, scores = zip(*anchors, strict=True)
    return float(np.interp(raw, measured, scores))
