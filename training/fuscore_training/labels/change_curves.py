"""Opinions of damaged pictures -> for each kind, the quality kept as a function of visible change.

mu' = 1 + (mu - 1) kept, kept = exp(-(change / scale)^power). Scale and power are such that on our
pictures the mean of `kept` at each published strength is that of people's opinions, or of viewers'
where people were not asked. Each sub-score takes `kept` to a power of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from fuscore_training.ratings import SUB_SCORE_COLUMNS

CURVES_FILE = "visible_change.csv"
LEAST = 0.02
"""Shares below this are taken as this: an opinion of 0 means no more than "worst"."""


@dataclass(frozen=True)
class Curve:
    """What a kind of damage leaves.

    Attributes:
        scale: Visible change at which 1/e is kept.
        power: Steepness.
        hits: Powers of `kept` for thermal retention, texture, artifacts, sharpness.
        source: Whose opinions they are.
    """

    scale: float
    power: float
    hits: tuple[float, float, float, float]
    source: str

    def kept(self, change: ArrayLike) -> NDArray[np.float64]:
        """Share of the quality above 1 that is kept, in (0, 1]."""
        share = (np.asarray(change, dtype=np.float64) / self.scale) ** self.power
        kept: NDArray[np.float64] = np.exp(-share)
        return kept


def fit_curve(changes: Sequence[ArrayLike], kept: Sequence[float]) -> tuple[float, float]:
    """Scale and power by least squares over strengths.

    Args:
        changes: For each strength, the visible change of any number of pictures.
        kept: For each strength, the mean share kept.
    """
    positive = [np.maximum(np.asarray(change, dtype=np.float64), 1e-9) for change in changes]

    def error(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        scale, power = np.exp(logs)
        means = [np.exp(-((change / scale) ** power)).mean() for change in positive]
        return np.asarray(np.asarray(means) - np.clip(kept, LEAST, 1.0))

    start = [np.log(np.median(np.concatenate(positive))), 0.0]
    bounds = ([np.log(1e-3), np.log(0.3)], [np.log(10.0), np.log(4.0)])
    scale, power = np.exp(least_squares(error, start, bounds=bounds).x)
    return float(scale), float(power)


def fit_hits(overall: ArrayLike, sub_scores: NDArray[np.float64]) -> tuple[float, ...]:
    """Powers that turn the share kept of the overall quality into those of the sub-scores.

    Args:
        overall: (N,) shares kept.
        sub_scores: (N, S) likewise, of each sub-score.

    Returns:
        S powers, by least squares on logarithms.
    """
    log = np.log(np.clip(np.asarray(overall, dtype=np.float64), LEAST, 1.0))
    logs = np.log(np.clip(sub_scores, LEAST, 1.0))
    return tuple(map(float, (log @ logs) / max(float(log @ log), 1e-9)))


def read_curves(ratings: Path) -> dict[str, Curve]:
    """Curves by kind, from the folder of viewers' ratings."""
    table = pd.read_csv(ratings / CURVES_FILE)
    return {
        row["kind"]: Curve(
            row["scale"], row["power"], tuple(row[s] for s in SUB_SCORE_COLUMNS), row["source"]
        )
        for row in table.to_dict("records")
    }
