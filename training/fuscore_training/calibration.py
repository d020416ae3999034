"""How sure a model may be: one temperature, reliability, and std against error.

P(a better than b) = Phi((s_a - s_b) / (T sqrt(v_a + v_b))). The variance that the soft labels teach
holds their width and the coarseness of five levels, so at T = 1 the model is less sure of an order
than it could be. T is fitted on validation scenes and stored in `fuscore.json`.
Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature, expected
calibration error), here for a Thurstone preference instead of a softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr
from scipy.stats import spearmanr

from fuscore_metric.thurstone import standard_difference

Array = NDArray[np.float64]
PAIRS = 40_000
"""Pairs drawn of each kind: within scenes and across scenes."""
BINS = 10
RESAMPLES = 500
TEMPERATURES = (0.02, 20.0)


@dataclass(frozen=True)
class Predictions:
    """Scores of rated triples, in score units.

    Attributes:
        score: (N,) predicted scores.
        std: (N,) predicted standard deviations, > 0.
        mu: (N,) ratings.
        scene: (N,) scene ids.
    """

    score: Array
    std: Array
    mu: Array
    scene: NDArray[Any]

    def __post_init__(self) -> None:
        sizes = {name: len(values) for name, values in vars(self).items()}
        if len(set(sizes.values())) > 1 or not len(self.mu):
            raise ValueError(f"Expected as many of each, at least 1, got {sizes}")
        if not (np.isfinite([self.score, self.std, self.mu]).all() and (self.std > 0).all()):
            raise ValueError("Expected finite `score` and `mu`, and `std` above 0")


@dataclass(frozen=True)
class Pairs:
    """Differences of pairs a, b in standard deviations at T = 1, and who is rated higher.

    Attributes:
        z: (P,) of `fuscore_metric.thurstone.standard_difference`.
        won: (P,) whether a is rated above b.
    """

    z: Array
    won: NDArray[np.bool_]

    def preference(self, temperature: float) -> Array:
        """P(a better than b), (P,)."""
        return np.asarray(ndtr(self.z / temperature))


@dataclass(frozen=True)
class Reliability:
    """One line a bin of P: how often what was called likelier came true.

    Attributes:
        predicted: Mean P of the bin, in [0.5, 1].
        observed: Share of pairs whose likelier member is rated higher.
        count: Pairs in the bin.
    """

    predicted: list[float]
    observed: list[float]
    count: list[int]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` finds; JSON-ready by `dataclasses.asdict`.

    Attributes:
        temperature: T, fitted on validation scenes.
        ece_before: Expected calibration error on the test scenes at T = 1: "all" pairs, those
            "within" scenes and those "across".
        ece: The same at T.
        reliability_before, reliability: Of all pairs, at T = 1 and at T.
        std_error_srcc: Spearman between predicted std and |score - rating|, with the ends of its
            95 % interval over scenes.
        std_deciles, error_deciles: Mean predicted std and mean |error| by decile of std.
    """

    temperature: float
    ece_before: dict[str, float]
    ece: dict[str, float]
    reliability_before: Reliability
    reliability: Reliability
    std_error_srcc: tuple[float, float, float]
    std_deciles: list[float]
    error_deciles: list[float]

    def summary(self) -> dict[str, Any]:
        """The numbers without the curves, as stored in `fuscore.json`."""
        low, high = self.std_error_srcc[1:]
        return {
            "temperature": self.temperature,
            "ece_before": self.ece_before,
            "ece": self.ece,
            "std_error_srcc": {"value": self.std_error_srcc[0], "low": low, "high": high},
        }


def calibrate(val: Predictions, test: Predictions) -> Calibration:
    """Fit the temperature on validation scenes and measure calibration on test scenes.

    Args:
        val: Predictions of the validation scenes.
        test: Predictions of the test scenes.

    Raises:
        ValueError: No pair of different ratings can be drawn.
    """
    temperature = fit_temperature(join(sample_pairs(val)))
    kinds = sample_pairs(test)
    groups = {"all": join(kinds), **kinds}
    std, error = _by_decile(test)
    return Calibration(
        temperature=temperature,
        ece_before={name: expected_calibration_error(reliability(p)) for name, p in groups.items()},
        ece={
            name: expected_calibration_error(reliability(p, temperature))
            for name, p in groups.items()
        },
        reliability_before=reliability(groups["all"]),
        reliability=reliability(groups["all"], temperature),
        std_error_srcc=_std_error_srcc(test),
        std_deciles=std,
        error_deciles=error,
    )


def sample_pairs(found: Predictions, *, count: int = PAIRS) -> dict[str, Pairs]:
    """Draw pairs of different ratings, `count` "within" scenes and `count` "across" scenes.

    Raises:
        ValueError: There is no such pair of one kind.
    """
    rng = np.random.default_rng(0)
    result = {}
    codes = np.unique(found.scene, return_inverse=True)[1]
    by_scene = np.argsort(codes, kind="stable")
    first = np.searchsorted(codes[by_scene], codes)  # where a row's scene begins
    size = np.bincount(codes)[codes]
    a = rng.integers(0, len(codes), 2 * count)
    partners = {
        "within": by_scene[first[a] + rng.integers(0, size[a])],
        "across": rng.integers(0, len(codes), 2 * count),
    }
    for name, b in partners.items():
        fits = (found.mu[a] != found.mu[b]) & ((codes[a] == codes[b]) == (name == "within"))
        i, j = a[fits][:count], b[fits][:count]
        if not len(i):
            raise ValueError(f"Expected pairs {name} scenes with different ratings, found none")
        variance = found.std[i] ** 2 + found.std[j] ** 2
        z = standard_difference(found.score[i] - found.score[j], variance)
        result[name] = Pairs(z, found.mu[i] > found.mu[j])
    return result


def join(kinds: dict[str, Pairs]) -> Pairs:
    """All pairs of all kinds."""
    pairs = list(kinds.values())
    return Pairs(np.concatenate([p.z for p in pairs]), np.concatenate([p.won for p in pairs]))


def fit_temperature(pairs: Pairs) -> float:
    """The T of greatest likelihood, within `TEMPERATURES`."""
    side = np.where(pairs.won, pairs.z, -pairs.z)  # P(what came true) = Phi(side / T)
    bounds = tuple(np.log(TEMPERATURES))
    found = minimize_scalar(
        lambda log_t: -log_ndtr(side / np.exp(log_t)).mean(), bounds=bounds, method="bounded"
    )
    return float(np.exp(found.x))


def reliability(pairs: Pairs, temperature: float = 1.0) -> Reliability:
    """Pairs by P of the likelier member, in `BINS` bins of equal width over [0.5, 1].

    P(b better than a) = 1 - P(a better than b), so a bin below 0.5 would add nothing.
    """
    p = pairs.preference(temperature)
    likelier = np.maximum(p, 1 - p)
    right = np.where(pairs.z == 0, 0.5, (pairs.z > 0) == pairs.won)
    place = np.minimum((likelier - 0.5) * 2 * BINS, BINS - 1).astype(int)
    bins = [(likelier[place == n], right[place == n]) for n in range(BINS) if (place == n).any()]
    return Reliability(
        predicted=[float(p.mean()) for p, _ in bins],
        observed=[float(r.mean()) for _, r in bins],
        count=[len(p) for p, _ in bins],
    )


def expected_calibration_error(curve: Reliability) -> float:
    """Mean distance of predicted from observed, bins weighted by their pairs; in [0, 1]."""
    gap = np.abs(np.subtract(curve.predicted, curve.observed))
    return float(np.average(gap, weights=curve.count))


def _std_error_srcc(found: Predictions) -> tuple[float, float, float]:
    error = np.abs(found.score - found.mu)
    scenes = [np.flatnonzero(found.scene == one) for one in np.unique(found.scene)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([scenes[n] for n in rng.integers(0, len(scenes), len(scenes))])
        drawn.append(spearmanr(found.std[rows], error[rows]).statistic)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(spearmanr(found.std, error).statistic), float(low), float(high)


def _by_decile(found: Predictions) -> tuple[list[float], list[float]]:
    error = np.abs(found.score - found.mu)
    parts = [part for part in np.array_split(np.argsort(found.std), 10) if len(part)]
    return (
        [float(found.std[part].mean()) for part in parts],
        [float(error[part].mean()) for part in parts],
    )


def plot_calibration(found: Calibration, path: Path) -> None:
    """Draw reliability before and after, and |error| against predicted std; PNG, SVG or PDF."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0.5, 1], [0.5, 1], color="0.7", label="perfect")
    curves = (
        ("T = 1", found.reliability_before, found.ece_before["all"]),
        (f"T = {found.temperature:.2f}", found.reliability, found.ece["all"]),
    )
    for name, curve, ece in curves:
        left.plot(curve.predicted, curve.observed, "o-", label=f"{name}, ECE {ece:.3f}")
    left.set(xlabel="P(likelier is better)", ylabel="share that is", title="Preferences")
    left.legend()
    right.plot(found.std_deciles, found.error_deciles, "o-")
    right.set(
        xlabel="predicted std, mean of a decile",
        ylabel="mean |score - proxy rating|",
        title=f"Uncertainty and error, Spearman {found.std_error_srcc[0]:.2f}",
    )
    figure.savefig(path, dpi=120)
