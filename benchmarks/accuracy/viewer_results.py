"""Values and viewers' ratings of the same pictures -> agreement, with intervals over scenes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fuscore_training.evaluate import Evaluation, Statistic, evaluate
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.accuracy.panel import TABLES, VIEWINGS, of_vifb
from benchmarks.accuracy.results import Number, Row
from fuscore_metric.measures import catalogue
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT

MEASURES = {"FuScore": True} | {
    name: one.higher_is_better for name, one in catalogue.MEASURES.items()
}
"""Measure -> whether higher is better."""
VIEWERS = "two viewings"
"""Name of the row that compares the two viewings with each other."""
UNDAMAGED = ("fusions", "modern", "own", "made", "drawn")
"""Tables of undamaged fusions, which are also taken together."""
RESULTS = {**TABLES, "undamaged": f"all pictures of {', '.join(UNDAMAGED)}"}
"""Table of the results -> what its pictures are."""
SCOPES = ("validation", "all")
"""Validation scenes of the split, and all scenes, which contain those that FuScore learned from."""
DRAWS = 500
"""Resamples of scenes for an interval."""
LEAST_IN_SCENE = 5
"""A scene needs so many pictures for a correlation inside it."""
PUBLISHED = "VIFB's 13"
PUBLISHED_LOWER_IS_BETTER = ("Cross_entropy", "Qcv", "Rmse")


@dataclass(frozen=True)
class Leaderboard:
    """Methods of VIFB in the order of what viewers said of them.

    Attributes:
        scenes: Scenes by scope; every method is there in all of them.
        means: One line per method, best first: mean of the viewers (0-100), of each measure, and of
            the ranks by VIFB's own 13 measures, turned round so that higher is better.
        taus: Scope -> measure -> Kendall's tau-b of its order and the viewers'.
    """

    scenes: dict[str, int]
    means: pd.DataFrame
    taus: dict[str, Row]


@dataclass(frozen=True)
class ViewerResults:
    """All numbers.

    Attributes:
        scopes: Those of the tables: without "all" where only validation scenes were measured.
        sizes: Table -> scope -> number of pictures and of scenes; only tables with pictures.
        agreement: Table -> scope -> measure -> coefficients with the viewers' overall rating.
        aspects: Likewise -> "FuScore" or "two viewings", and the aspect's name -> coefficients
            with the viewers' rating of that aspect.
        leaderboard: VIFB's methods, always in both scopes.
        kept: What damage leaves in the validation scenes of `colour_and_targets`, see
            `what_is_kept`.
    """

    scopes: Sequence[str]
    sizes: dict[str, dict[str, tuple[int, int]]]
    agreement: dict[str, dict[str, dict[str, Row]]]
    aspects: dict[str, dict[str, dict[str, Row]]]
    leaderboard: Leaderboard
    kept: pd.DataFrame


def fuscore_column(aspect: str) -> str:
    """Name of the column with FuScore's value of an aspect."""
    return "FuScore" if aspect == DEFAULT_ASPECT else f"FuScore {aspect}"


def summarise(frame: pd.DataFrame, data: Path, *, everything: bool) -> ViewerResults:
    """Make all numbers.

    Args:
        frame: What `panel.read_panel` returns, with a column of values a measure.
        data: Folder with VIFB's published measures.
        everything: Whether `frame` has all pictures.
    """
    scopes = SCOPES if everything else ("validation",)
    frame = turned(frame)
    frame = pd.concat([frame, undamaged(frame)], ignore_index=True)
    tables = {table: in_scopes(frame[frame["table"] == table], scopes) for table in RESULTS}
    parts = {table: of for table, of in tables.items() if any(map(len, of.values()))}
    vifb = frame[of_vifb(frame)]
    published = published_ranks(data / "VIFB" / "published_metrics" / "per_image.csv", vifb)
    return ViewerResults(
        scopes=scopes,
        sizes={
            t: {s: (len(p), p["scene"].nunique()) for s, p in of.items()} for t, of in parts.items()
        },
        agreement={t: {s: overall_rows(p) for s, p in of.items()} for t, of in parts.items()},
        aspects={t: {s: aspect_rows(p) for s, p in of.items()} for t, of in parts.items()},
        leaderboard=leaderboard(vifb.assign(**{PUBLISHED: published})),
        kept=what_is_kept(tables["colour_and_targets"]["validation"]),
    )


def turned(frame: pd.DataFrame) -> pd.DataFrame:
    """With measures of which lower is better turned round."""
    return frame.assign(**{name: -frame[name] for name, up in MEASURES.items() if not up})


def undamaged(frame: pd.DataFrame) -> pd.DataFrame:
    """The pictures of the tables of undamaged fusions, as one table.

    Each table was rated on a scale of its own, so a scene that is in two of them counts as two.
    """
    rows = frame[frame["table"].isin(UNDAMAGED)]
    return rows.assign(table="undamaged", scene=rows["table"] + " " + rows["scene"])


def in_scopes(frame: pd.DataFrame, scopes: Sequence[str] = SCOPES) -> dict[str, pd.DataFrame]:
    """Choose the rows of each scope."""
    return {s: frame[frame["validation"]] if s == "validation" else frame for s in scopes}


def overall_rows(frame: pd.DataFrame) -> dict[str, Row]:
    """Compare the viewings with each other, and every measure with the mean of the viewers."""
    rows = {VIEWERS: between_viewings(frame, DEFAULT_ASPECT)}
    return rows | {name: agree(frame, name, DEFAULT_ASPECT) for name in MEASURES}


def aspect_rows(frame: pd.DataFrame) -> dict[str, Row]:
    """Compare the viewings, and FuScore with the viewers, in each aspect but the overall one."""
    rows = {}
    for aspect in ASPECTS:
        if aspect != DEFAULT_ASPECT:
            rows[f"{VIEWERS} {aspect}"] = between_viewings(frame, aspect)
            rows[f"FuScore {aspect}"] = agree(frame, fuscore_column(aspect), aspect)
    return rows


def what_is_kept(frame: pd.DataFrame) -> pd.DataFrame:
    """Compare damaged pictures with the undamaged one of the same scene.

    Args:
        frame: Pictures of a table that has one undamaged picture a scene.

    Returns:
        One line a kind of damage, the worst for the viewers first: the number of pictures, and
        both for viewers and for FuScore the mean share of the overall score above the worst value
        that is kept and the mean points of thermal retention that are lost.
    """
    clean = frame[frame["kind"] == "none"].set_index("scene")
    base = clean.loc[frame["scene"]].set_axis(frame.index)
    thermal = "thermal_retention"
    scored = fuscore_column(thermal)
    changes = pd.DataFrame(
        {
            "kept, viewers": frame["overall"] / base["overall"],
            "kept, FuScore": (frame["FuScore"] - 1) / (base["FuScore"] - 1),
            "thermal lost, viewers": base[thermal] - frame[thermal],
            "thermal lost, FuScore": base[scored] - frame[scored],
        }
    )
    kinds = changes.groupby(frame["kind"])
    table = kinds.mean().assign(pictures=kinds.size())
    return table.drop(index="none", errors="ignore").sort_values("kept, viewers")


def between_viewings(frame: pd.DataFrame, aspect: str) -> Row:
    """Compare what the two viewers said of the pictures that both looked at."""
    first, second = (f"{aspect} {viewer}" for viewer in VIEWINGS)
    return agree(frame.dropna(subset=[first, second]), first, second)


def agree(frame: pd.DataFrame, value: str, target: str) -> Row:
    """SRCC of two columns: pooled, within scenes (mean), and of the means by group.

    Groups are methods, or kinds and strengths of what was done to the picture. Only those in at
    least two scenes count, and within scenes only scenes of at least `LEAST_IN_SCENE` pictures.

    Returns:
        Nothing for an empty frame; no "within" where fewer than two scenes are large enough.
    """
    if frame.empty:
        return {}
    everything = _evaluated(frame, value, target)
    row = {"pooled": _number(everything.srcc), "by method": _number(everything.method_srcc)}
    large = frame[frame.groupby("scene")["scene"].transform("size") >= LEAST_IN_SCENE]
    if large["scene"].nunique() > 1:
        inside = everything if len(large) == len(frame) else _evaluated(large, value, target)
        row["within"] = _number(inside.within_srcc)
    return row


def _evaluated(frame: pd.DataFrame, value: str, target: str) -> Evaluation:
    columns = (frame[name] for name in (value, target, "scene", "group"))
    return evaluate(*columns, n_boot=DRAWS)


def _number(found: Statistic) -> Number:
    return Number(found.value, found.low, found.high)


def published_ranks(path: Path, rows: pd.DataFrame) -> pd.Series[float]:
    """Mean over VIFB's published measures of the rank among the methods in `rows`, negated.

    Ranks are taken within a scene, as toolboxes' tables are read: all measures count alike.
    """
    table = pd.read_csv(path, dtype={"scene": str})
    table["scene"] = "VIFB/" + table["scene"]
    here = pd.MultiIndex.from_frame(rows[["scene", "method"]])
    table = table[pd.MultiIndex.from_frame(table[["scene", "method"]]).isin(here)]
    lower = table["metric"].isin(PUBLISHED_LOWER_IS_BETTER)
    table["value"] = table["value"].where(lower, -table["value"])  # lower is better
    table["rank"] = table.groupby(["scene", "metric"])["value"].rank()
    ranks = -table.groupby(["scene", "method"])["rank"].mean()
    return pd.Series(ranks.reindex(here).to_numpy(), rows.index)


def leaderboard(rows: pd.DataFrame) -> Leaderboard:
    """Order methods by viewers, and compare the order of every measure with it."""
    columns = [DEFAULT_ASPECT, *MEASURES, PUBLISHED]
    scopes = in_scopes(rows)
    tables = {
        s: {c: part.pivot(index="scene", columns="method", values=c) for c in columns}
        for s, part in scopes.items()
    }
    taus = {scope: tau_row(of) for scope, of in tables.items()}
    means = pd.DataFrame({name: one.mean() for name, one in tables["all"].items()})
    return Leaderboard(
        scenes={scope: part["scene"].nunique() for scope, part in scopes.items()},
        means=means.sort_values(DEFAULT_ASPECT, ascending=False),
        taus=taus,
    )


def tau_row(tables: Mapping[str, pd.DataFrame]) -> Row:
    """Kendall's tau-b of the means by method with the viewers', scenes drawn for the interval.

    Args:
        tables: Measure -> (scenes, methods) values; the viewers' under "overall".
    """
    arrays = {name: table.to_numpy(np.float64) for name, table in tables.items()}  # (S, M)
    viewers = arrays.pop(DEFAULT_ASPECT)
    return {name: order_tau(values, viewers) for name, values in arrays.items()}


def order_tau(values: NDArray[np.float64], viewers: NDArray[np.float64]) -> Number:
    """Tau-b of two orders of methods by their means over scenes, both (S, M)."""
    n = len(viewers)
    if not n:
        return Number(math.nan)
    draws = np.random.default_rng(0).multinomial(n, [1 / n] * n, DRAWS)  # (DRAWS, S)
    taus = [
        float(kendalltau(copies @ values, copies @ viewers).statistic)
        for copies in (np.ones(n), *draws)
    ]
    return Number(taus[0], *map(float, np.quantile(taus[1:], [0.025, 0.975])))
