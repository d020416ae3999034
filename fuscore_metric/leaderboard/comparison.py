"""Two methods of a results table -> which is better, how surely, and on which scenes not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from fuscore_metric.errors import InputError
from fuscore_metric.leaderboard.inference import mean_interval, paired_p_value, preference
from fuscore_metric.leaderboard.scenes import pivot
from fuscore_metric.leaderboard.statistics import CONFIDENCE, RESAMPLES, check_options


@dataclass(frozen=True)
class SceneComparison:
    """The comparison on one scene.

    Attributes:
        scene: Its name.
        score_a: Score of method a, in [1, 5].
        score_b: Score of method b.
        preference: P(a is better than b) here, in [0, 1].
    """

    scene: str
    score_a: float
    score_b: float
    preference: float

    @property
    def difference(self) -> float:
        """Score of a minus score of b."""
        return self.score_a - self.score_b


@dataclass(frozen=True)
class Comparison:
    """Method a against method b, on the scenes that both have.

    Attributes:
        a: Name of the one method.
        b: Name of the other.
        scenes: The comparison on each scene, surest for a first.
        left_out: Scenes where one of the two has no score.
        win_rate: Share of scenes where a has the higher score, in [0, 1]; ties count half.
        win_low: Lower end of its Wilson interval.
        win_high: Upper end.
        mean_a: Mean score of a.
        mean_b: Mean score of b.
        difference: Mean of score a minus score b.
        low: Lower end of its bootstrap interval over scenes; NaN for a single scene.
        high: Upper end.
        p_value: Two-sided Wilcoxon signed-rank test that the differences lie about zero. Of one
            planned comparison: it is not corrected for other pairs that were compared.
        preference: Mean over scenes of P(a is better than b).
        notes: Sentences for the reader: what was left out, what cannot be concluded.
        confidence: Of both intervals, such as 0.95.
        resamples: Bootstrap resamples.
    """

    a: str
    b: str
    scenes: tuple[SceneComparison, ...]
    left_out: tuple[str, ...]
    win_rate: float
    win_low: float
    win_high: float
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    preference: float
    notes: tuple[str, ...]
    confidence: float
    resamples: int

    @property
    def winner(self) -> str | None:
        """The method with the higher mean; None if the means are equal."""
        if self.difference == 0:
            return None
        return self.a if self.difference > 0 else self.b

    @property
    def disagreeing(self) -> tuple[SceneComparison, ...]:
        """Scenes where the loser has the higher score, the surest first; none without a winner."""
        sign = np.sign(self.difference)
        against = [scene for scene in self.scenes if scene.difference * sign < 0]
        # P is that of a: where a leads, the lower, the surer for b.
        return tuple(sorted(against, key=lambda s: (sign * s.preference, sign * s.difference)))


def compare(
    table: pd.DataFrame,
    a: str,
    b: str,
    *,
    temperature: float = 1.0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two methods scene by scene.

    Args:
        table: A results table, as `leaderboard` takes it; other methods in it are ignored.
        a: Name of the one method.
        b: Name of the other.
        temperature: T of P(a better than b), from the settings of the run.
        confidence: Of the intervals, in (0, 1).
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        The `Comparison`; it does not depend on the order of the rows.

    Raises:
        InputError: A method is not in the table, the two share no scene, or the table is bad.
        ValueError: An option is out of range.
    """
    check_options(temperature, confidence, resamples)
    if a == b:
        raise InputError(f"Expected two methods, got {a!r} twice")
    scores, stds = pivot(table)
    for name in (a, b):
        if name not in scores.columns:
            raise InputError(
                f"Expected a method of the table, got {name!r}; there are "
                f"{', '.join(scores.columns)}"
            )
    scores, stds = scores[[a, b]], stds[[a, b]]
    has = scores.notna()
    shared = has.all(axis=1)
    partly = has.any(axis=1) & ~shared
    if not shared.any():
        raise InputError(f"Expected {a!r} and {b!r} to share a scene with scores, got none")
    scores, stds = scores[shared], stds[shared]
    difference = (scores[a] - scores[b]).to_numpy()
    preferences = preference(difference, (stds**2).sum(axis=1).to_numpy(), temperature)
    wins = float(((np.sign(difference) + 1) / 2).mean())
    win_low, win_high = wilson(wins, len(difference), confidence)
    low, high = mean_interval(difference, confidence=confidence, resamples=resamples, seed=seed)
    scenes = [
        SceneComparison(str(scene), *map(float, numbers))
        for scene, *numbers in zip(scores.index, scores[a], scores[b], preferences, strict=True)
    ]
    return Comparison(
        a=a,
        b=b,
        # By name where P is equal, so that the order is always one.
        scenes=tuple(sorted(scenes, key=lambda s: (-s.preference, -s.difference, s.scene))),
        left_out=tuple(map(str, has.index[partly])),
        win_rate=wins,
        win_low=win_low,
        win_high=win_high,
        mean_a=float(scores[a].mean()),
        mean_b=float(scores[b].mean()),
        difference=float(difference.mean()),
        low=float(low[0]),
        high=float(high[0]),
        p_value=paired_p_value(difference),
        preference=float(preferences.mean()),
        notes=tuple(_notes(has, a, b, len(difference))),
        confidence=confidence,
        resamples=resamples,
    )


def wilson(share: float, number: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); also for shares in which ties count half.

    Unlike a bootstrap, it does not shrink to a point where all scenes agree. scipy has it for whole
    numbers of wins only.

    Args:
        share: In [0, 1].
        number: Of scenes, at least 1.
        confidence: Such as 0.95.

    Returns:
        Lower and upper end, in [0, 1].
    """
    z = float(ndtri((1 + confidence) / 2))
    middle = share + z**2 / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    scale = 1 + z**2 / number
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _notes(has: pd.DataFrame, a: str, b: str, scenes: int) -> list[str]:
    notes = []
    for one, other in ((a, b), (b, a)):
        number = int((has[one] & ~has[other]).sum())
        if number:
            notes.append(
                f"{number} scene{'s' if number > 1 else ''} left out: no score of {other}."
            )
    if scenes == 1:
        notes.append("One scene gives no interval of the difference, and no test.")
    elif scenes < 6:
        notes.append(
            f"With {scenes} scenes the test cannot reach p = 0.05, whatever they say; 6 can."
        )
    return notes
