"""Stored values of every measure -> the numbers of the tables, intervals over scenes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from fuscore_training.evaluate import evaluate
from fuscore_training.labels.degradations import DEGRADATIONS
from fuscore_training.split import Split
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.accuracy import no_reference
from benchmarks.accuracy.held_out_degradations import HELD_OUT
from benchmarks.accuracy.triples import UNDAMAGED, UNDAMAGED_KINDS
from fuscore_metric.measures.catalogue import MEASURES, PAPER

PARTS = ("ladders", "controls", "agreement", "stability")
HIGHER_IS_BETTER = {
    "FuScore": True,
    **{name: MEASURES[name].higher_is_better for name in PAPER},
    **no_reference.HIGHER_IS_BETTER,
}
CONTROLS = ("ir copy", "vis copy", "average", "foreign", "sources swapped")
CHANGES = ("shift", "mirror", "jpeg95", "resize 0.9", "fused as jpeg")
SUBSETS = ("all", "undamaged", "held-out methods")
COEFFICIENTS = ("srcc", "plcc", "krcc", "within_srcc")
SAME_SCENES = "FuScore, same scenes"
DRAWS = 1000


class Number(NamedTuple):
    """A value and the ends of its 95 % interval, NaN if there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def text(self, *, interval: bool) -> str:
        """Three decimals, with the interval if there is one and it is wanted."""
        if math.isnan(self.value):
            return "-"
        ends = f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{ends if interval and not math.isnan(self.low) else ''}"


Row = dict[str, Number]
Values = dict[str, pd.DataFrame]
"""Part -> one line per triple, all measures so that higher is better, NaN where missing."""


@dataclass(frozen=True)
class Results:
    """Tables of numbers: name of the row -> name of the column -> number."""

    main: dict[str, Row]
    ladders: dict[str, Row]
    controls: dict[str, Row]
    agreement: dict[str, Row]


def read_values(out: Path) -> Values:
    """Read all values in `out`; the families of measures become columns of one frame a part."""
    found: Values = {}
    for part in PARTS:
        families = {
            folder.name: pd.concat(map(pd.read_parquet, files))
            for folder in sorted((out / "values").glob("*"))
            if (files := sorted((folder / part).glob("*.parquet")))
        }
        if families:
            found[part] = _joined(families.values())
    if not found:
        raise SystemExit(f"Expected values in {out / 'values'}, found none")
    return found


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    keys = ["scene", "number", "group", "name", "level", "target"]
    numbered = [frame.assign(number=frame.groupby("scene").cumcount()) for frame in frames]
    together = reduce(lambda left, right: left.merge(right, "outer", on=keys), numbered)
    for name in _measures_in(together):
        together[name] *= 1 if HIGHER_IS_BETTER[name] else -1
    return together.sort_values(["scene", "number"], ignore_index=True)


def _measures_in(frame: pd.DataFrame) -> list[str]:
    return [name for name in HIGHER_IS_BETTER if name in frame]


def over_scenes(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64] | None = None
) -> Number:
    """Ratio of two means over scenes (S,), or one mean, with its bootstrap interval."""
    below = np.ones(len(numerators)) if denominators is None else denominators
    if not len(numerators) or below.sum() <= 0:
        return Number(math.nan)
    value = float(numerators.sum() / below.sum())
    if len(numerators) < 2:
        return Number(value)
    n = len(numerators)
    copies = np.random.default_rng(0).multinomial(n, [1 / n] * n, DRAWS)  # (DRAWS, S)
    drawn = (copies @ numerators) / (copies @ below)
    return Number(value, *map(float, np.quantile(drawn, [0.025, 0.975])))


def summarise(values: Values, split: Split) -> Results:
    """Make all tables; a measure that a part was not run for has empty cells there."""
    climbed = _ladder_frames(values.get("ladders"))
    opposed = by_measure(values.get("controls"))
    rated = by_measure(values.get("agreement"))
    changed = by_measure(values.get("stability"))
    ladder = {name: ladder_row(frame) for name, frame in climbed.items()}
    control = {name: control_row(frame) for name, frame in opposed.items()}
    agreed: dict[str, Row] = {}
    for name, frame in rated.items():
        agreed |= agreement_rows(name, frame, split)
    moved = {name: stability_row(changed[name], rated[name]) for name in changed if name in rated}
    main = {}
    for name in dict.fromkeys(["FuScore", SAME_SCENES, *HIGHER_IS_BETTER]):
        if row := _main_row(name, ladder, control, agreed) | moved.get(name, {}):
            main[name] = row
    return Results(main, ladder, control, agreed)


def by_measure(frame: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """One frame a measure with its values as column `value`, without what it was not run on."""
    if frame is None:
        return {}
    return {
        name: frame.assign(value=frame[name]).dropna(subset="value") for name in _measures_in(frame)
    }


def _ladder_frames(frame: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """By measure; FuScore a second time, on the scenes of the others if these are fewer."""
    frames = by_measure(frame)
    others = [set(one["scene"]) for name, one in frames.items() if name != "FuScore"]
    if "FuScore" not in frames or not others:
        return frames
    ours, shared = frames["FuScore"], set.intersection(*others)
    again = {SAME_SCENES: ours[ours["scene"].isin(shared)]} if shared < set(ours["scene"]) else {}
    return {"FuScore": ours, **again, **frames}


def ladder_row(frame: pd.DataFrame) -> Row:
    """Kendall's tau-b of severity and fallen score, mean per kind and over kinds."""
    taus = ladder_taus(frame).pivot_table("tau", "scene", "name")  # (S, kinds)
    groups = {"seen": list(DEGRADATIONS), "held-out": list(HELD_OUT)}
    row = {f"mean {name}": _mean(taus[kinds].mean(axis=1)) for name, kinds in groups.items()}
    return row | {kind: _mean(taus[kind]) for kinds in groups.values() for kind in kinds}


def ladder_taus(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a ladder: scene, name of the kind, tau-b (0 if the measure never moves)."""
    lines = []
    for (scene, _), one in frame.groupby(["scene", "group"]):
        start = one.loc[one["name"] == UNDAMAGED, "value"].iloc[0]
        for kind, steps in one[one["name"] != UNDAMAGED].groupby("name"):
            severity, scores = [0, *steps["level"]], [start, *steps["value"]]
            tau = float(kendalltau(severity, -np.array(scores)).statistic)
            lines.append({"scene": scene, "name": kind, "tau": 0.0 if math.isnan(tau) else tau})
    return pd.DataFrame(lines)


def _mean(values: pd.Series[float]) -> Number:
    return over_scenes(np.asarray(values, np.float64))


def control_row(frame: pd.DataFrame) -> Row:
    """Share of good fusions scored above each control, ties half; mean over scenes."""
    lines = pd.DataFrame([_wins(one) for _, one in frame.groupby("scene")])  # (S, controls)
    return {"mean": _mean(lines.mean(axis=1))} | {name: _mean(lines[name]) for name in CONTROLS}


def _wins(scene: pd.DataFrame) -> dict[str, float]:
    good = scene[scene["name"] == UNDAMAGED].set_index("group")["value"]
    wins = {}
    for name in CONTROLS:
        control = scene[scene["name"] == name].set_index("group")["value"]
        against = control[good.index] if name == "sources swapped" else control.iloc[0]
        wins[name] = float((0.5 + 0.5 * np.sign(good - against)).mean())
    return wins


def agreement_rows(measure: str, frame: pd.DataFrame, split: Split) -> dict[str, Row]:
    """Correlation with the ratings, by subset of rows."""
    undamaged = frame["name"].isin(UNDAMAGED_KINDS)
    unseen = split.is_held_out(frame.rename(columns={"group": "base"}))
    masks = dict(zip(SUBSETS, (undamaged | True, undamaged, unseen), strict=True))
    rows = {}
    for subset, chosen in ((name, frame[mask]) for name, mask in masks.items()):
        if chosen.empty:
            continue
        columns = (chosen[name] for name in ("value", "target", "scene", "group"))
        found = evaluate(*columns, n_boot=DRAWS).statistics()
        statistics = {name: found[name] for name in COEFFICIENTS}
        rows[f"{measure}: {subset}"] = {
            "rows": Number(len(chosen)),
            **{name: Number(s.value, s.low, s.high) for name, s in statistics.items()},
        }
    return rows


def stability_row(frame: pd.DataFrame, rated: pd.DataFrame) -> Row:
    """Mean |change of score| in units of the spread between a scene's undamaged fusions."""
    undamaged = rated[rated["name"].isin(UNDAMAGED_KINDS)]
    spread = undamaged.groupby("scene")["value"].std()
    before = frame[frame["name"] == UNDAMAGED].set_index(["scene", "group"])["value"]
    row = {}
    for change in CHANGES:
        after = frame[frame["name"] == change].set_index(["scene", "group"])["value"]
        moved = (after - before).abs().groupby("scene").mean()
        both = (
            pd.concat([moved, spread], axis=1, join="inner").dropna().to_numpy(np.float64)
        )  # (S, 2)
        row[change] = over_scenes(*both.T)
    return row


def _main_row(
    name: str, ladder: dict[str, Row], control: dict[str, Row], agreed: dict[str, Row]
) -> Row:
    everything, unseen = agreed.get(f"{name}: all", {}), agreed.get(f"{name}: held-out methods", {})
    cells = {
        "ladders seen": ladder.get(name, {}).get("mean seen"),
        "ladders held-out": ladder.get(name, {}).get("mean held-out"),
        "controls": control.get(name, {}).get("mean"),
        "proxy SRCC": everything.get("srcc"),
        "within scenes": everything.get("within_srcc"),
        "held-out methods": unseen.get("srcc"),
    }
    return {column: number for column, number in cells.items() if number is not None}
