"""How much of an image's quality people keep granting it under a degradation of known strength.

The retention r in (0, 1] multiplies what lies above the worst score: mu' = 1 + (mu - 1) r.
Noise, stripes and blur are fitted on the opinions of 27 people (Moreno-Villamarin,
Benitez-Restrepo and Bovik, IEEE TIP 2017; `human_severity.csv`). No human data was reachable for
the other kinds: their anchors are our estimate, by eye, of the strength that hurts as much as a
given blur.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import curve_fit

HUMAN_KINDS = {
    "noise": "gaussian_noise_sigma",
    "stripes": "stripe_noise_std",
    "blur": "gaussian_blur_sigma_px",
}

ANCHORS: dict[str, tuple[tuple[float, float], ...]] = {
    "jpeg": ((10, 0.99), (40, 0.95), (70, 0.86), (85, 0.68), (92, 0.48), (97, 0.28)),
    "contrast": ((0.05, 0.99), (0.2, 0.92), (0.4, 0.77), (0.6, 0.56), (0.8, 0.3)),
    "exposure": ((0.05, 0.99), (0.2, 0.9), (0.4, 0.7), (0.6, 0.5), (0.9, 0.25)),
    "ghost": ((1, 0.93), (3, 0.78), (6, 0.6), (12, 0.42), (20, 0.32)),
    "halo": ((0.2, 0.97), (0.6, 0.85), (1.2, 0.64), (2.0, 0.45), (3.0, 0.3)),
    "thermal_suppression": ((0.1, 0.96), (0.3, 0.84), (0.6, 0.6), (1.0, 0.38)),
    "texture_suppression": ((0.1, 0.97), (0.3, 0.86), (0.6, 0.6), (1.0, 0.35)),
}
"""Kind -> (strength, retention) anchors; strengths as in `degradations`."""

HITS: dict[str, tuple[float, float, float, float]] = {
    "noise": (0.5, 0.7, 1.6, 0.5),
    "stripes": (0.5, 0.6, 1.7, 0.3),
    "blur": (0.4, 1.2, 0.2, 1.7),
    "jpeg": (0.3, 0.8, 1.5, 0.8),
    "contrast": (1.2, 1.0, 0.1, 1.0),
    "exposure": (0.8, 1.0, 0.5, 0.5),
    "ghost": (0.8, 0.7, 1.5, 0.9),
    "halo": (0.3, 0.5, 1.6, 0.1),
    "thermal_suppression": (1.8, 0.1, 0.3, 0.2),
    "texture_suppression": (0.1, 1.7, 0.3, 1.2),
}
"""Kind -> exponents on the retention for thermal, texture, artifacts, sharpness. The overall rating
always takes the retention itself; an exponent above 1 says that people would blame this first."""

AVERAGING_NOISE_GAIN = 1 / np.sqrt(2)
"""Averaging two sources with independent noise leaves 1/sqrt(2) of its sigma in the fused image."""


@dataclass(frozen=True)
class Severity:
    """Retention curves, the human ones as r = exp(-(strength / scale)^power).

    Attributes:
        human: Kind -> (scale, power) fitted on people's mean opinions.
    """

    human: dict[str, tuple[float, float]]

    def retention(self, kind: str, strength: float) -> float:
        """Share of the quality above 1 that is kept, in (0, 1]; falls with strength."""
        if kind in self.human:
            scale, power = self.human[kind]
            return float(np.exp(-((strength / scale) ** power)))
        if kind not in ANCHORS:
            known = ", ".join([*self.human, *ANCHORS])
            raise ValueError(f"Expected `kind` to be one of {known}, got {kind!r}")
        strengths, kept = zip(*((0.0, 1.0), *ANCHORS[kind]), strict=True)
        return float(np.interp(strength, strengths, kept))


def fit_severity(human_severity_csv: Path) -> Severity:
    """Fit the noise, stripe and blur curves on the mean human opinions.

    Opinions are taken relative to the same fusion method's undistorted opinion. The study put the
    distortion on the sources; its strength *in the fused image* is what counts here, so noise and
    stripes under plain averaging are scaled by 1/sqrt(2).

    Args:
        human_severity_csv: The table `human_severity.csv` of the shared data.
    """
    table = pd.read_csv(human_severity_csv, keep_default_na=False)
    clean = table[table["distortion"] == "none"].set_index("fusion_method")["mean_opinion_0_100"]
    human = {}
    for kind, name in HUMAN_KINDS.items():
        rows = table[table["distortion"] == name]
        strength = rows["parameter"].astype(float).to_numpy()
        if kind != "blur":
            averaged = (rows["fusion_method"] == "average").to_numpy()
            strength = np.where(averaged, strength * AVERAGING_NOISE_GAIN, strength)
        opinion = rows["mean_opinion_0_100"].astype(float).to_numpy()
        kept = opinion / clean[rows["fusion_method"]].to_numpy(dtype=float)
        human[kind] = _fit_curve(strength, np.minimum(kept, 1.0))
    return Severity(human)


def _fit_curve(strength: NDArray[np.floating], kept: NDArray[np.floating]) -> tuple[float, float]:
    fitted, _ = curve_fit(
        lambda x, scale, power: np.exp(-((x / scale) ** power)),
        strength,
        kept,
        p0=(float(strength.max()), 1.2),
        bounds=([1e-4, 0.3], [1e3, 4.0]),
    )
    return float(fitted[0]), float(fitted[1])
