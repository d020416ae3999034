"""Results table -> scores by scene and method, and the scenes that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fuscore_metric.errors import InputError
from fuscore_metric.results.rows import IN_TRAINING, NAMES


def pivot(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spread a results table: scenes down, methods across.

    Args:
        table: As `leaderboard` takes it.

    Returns:
        Scores and standard deviations, each (scenes, methods), sorted by name, NaN where there is
        no score.

    Raises:
        InputError: As `leaderboard`.
    """
    missing = [name for name in (*NAMES, "score", "std") if name not in table.columns]
    if missing:
        raise InputError(
            f"Expected a results table with columns scene, method, score, std; "
            f"got none called {', '.join(missing)}"
        )
    if table[list(NAMES)].isna().to_numpy().any():
        raise InputError("Expected a results table with a scene and a method in every row")
    rows = table[[*NAMES, "score", "std"]].astype(dict.fromkeys(NAMES, str))
    again = rows[rows.duplicated(list(NAMES))]
    if len(again):
        scene, method = again.iloc[0][list(NAMES)]
        raise InputError(
            f"Expected one row for each scene and method, got several for scene {scene!r} and "
            f"method {method!r}"
        )
    rows["score"], rows["std"] = numbers(rows, "score"), numbers(rows, "std")
    if not rows["score"].notna().any():
        raise InputError("Expected a results table with scores, got none at all")
    if (rows["score"].notna() & rows["std"].isna()).any():
        raise InputError("Expected a results table with a std beside every score")
    scores, stds = (
        rows.pivot(index="scene", columns="method", values=name).sort_index().sort_index(axis=1)
        for name in ("score", "std")
    )
    return scores, stds


def numbers(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """Read a column as numbers; a missing one is NaN.

    Raises:
        InputError: The column has something else, or an infinite number.
    """
    try:
        found = pd.to_numeric(rows[name]).astype(float)
    except (ValueError, TypeError) as error:
        raise InputError(f"Expected numbers in column {name}: {error}") from error
    if np.isinf(found).any():
        raise InputError(f"Expected finite numbers in column {name}, got an infinite one")
    return found


def learned_scenes(table: pd.DataFrame) -> dict[str, bool]:
    """Whether the weights learned from a scene, of the scenes of which that is known."""
    if IN_TRAINING not in table.columns:
        return {}
    known = table[table[IN_TRAINING].notna()]
    found = known[IN_TRAINING].astype(bool).groupby(known["scene"].astype(str)).any()
    return {str(scene): bool(learned) for scene, learned in found.items()}


def held_out_rows(table: pd.DataFrame, learned: Mapping[str, bool]) -> pd.DataFrame:
    """The rows of scenes that are known to be held out."""
    if not learned:
        raise InputError(
            "Expected results that tell which scenes the weights learned from, to rank the others; "
            "these weights, or this table, do not tell"
        )
    rows = table[table["scene"].astype(str).map(learned).eq(False)]
    if not len(rows):
        raise InputError(
            f"Expected scenes that the weights did not learn from, got {len(learned)} that they did"
        )
    return rows


def training_notes(
    learned: Mapping[str, bool], counting: int, scenes: int, *, held_out: bool
) -> list[str]:
    """Report how many scenes the weights learned from, or that those do not count."""
    if held_out:
        return [
            f"Held out: {sum(learned.values())} of {len(learned)} scenes do not count, as the "
            "weights learned from them."
        ]
    if not counting:
        return []
    others = "--held-out (held_out=True) ranks the others." if counting < scenes else "none is new."
    return [
        f"{counting} of {_count(scenes, 'scene')} are among those that the weights learned "
        f"from: {others}"
    ]


@dataclass(frozen=True)
class Design:
    """The scenes that count, those that do not, and notes about them for the reader."""

    scenes: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    paired: bool


def choose_scenes(scores: pd.DataFrame) -> Design:
    """Scenes that every method with a score has; all scenes if those are too few."""
    has = scores.notna()
    notes = []
    silent = [name for name in scores.columns if not has[name].any()]
    if silent:
        notes.append(f"Not ranked, because there is no score at all: {', '.join(silent)}.")
    has = has.drop(columns=silent)
    complete = has.all(axis=1)
    paired = bool(complete.all()) or int(complete.sum()) >= 2
    counts = complete if paired else has.any(axis=1)
    left_out = {
        str(scene): tuple(has.columns[~there])
        for scene, there in zip(has.index[~counts], has.to_numpy()[~counts], strict=True)
    }
    if not paired:
        notes.append(
            f"THE MEANS ARE NOT COMPARABLE: {_count(int(complete.sum()), 'scene')} of {len(has)} "
            "has a score of every method, so each mean is over the method's own scenes. Ranks, win "
            "rates and tests compare two methods at a time, on the scenes that both have."
            f"{_worth_dropping(has)}"
        )
    elif left_out:
        absent = (~has).sum().sort_values(ascending=False, kind="stable")
        worst = [f"{name} ({number})" for name, number in absent.items() if number][:3]
        notes.append(
            f"{_count(len(left_out), 'scene')} of {len(has)} left out, where a method has no "
            f"score; most are missing from {', '.join(worst)}.{_worth_dropping(has)}"
        )
    return Design(tuple(map(str, has.index[counts])), left_out, tuple(notes), paired)


def _worth_dropping(has: pd.DataFrame) -> str:
    """Name the methods without which more scenes would count, those that lack most of them first.

    Args:
        has: Scenes x methods, whether there is a score.
    """
    order = (~has).sum().sort_values(ascending=False, kind="stable")
    counts, won = int(has.all(axis=1).sum()), []
    for number in range(1, len(order) - 1):  # two are left at least, to be compared
        without = list(order.index[:number])
        now = int(has.drop(columns=without).all(axis=1).sum())
        if now > counts:
            counts = now
            won.append(f"without {' and '.join(without)}, {_count(now, 'scene')}")
    return f" Scenes can be won back: {'; '.join(won[:3])} would count." if won else ""


def _count(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'s' if number > 1 else ''}"  # "no scene has", "1 scene has"
