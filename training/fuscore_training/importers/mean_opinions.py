"""A CSV of opinions, one a (triple, rater) -> a ratings table of mean opinions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from fuscore_training.importers.import_report import ImportReport
from fuscore_training.importers.study_tables import (
    ITEM,
    check_triples_of,
    expect_one_of,
    read_study,
)
from fuscore_training.labels.raters import mean_opinions, rejected_by_bt500, standardised
from fuscore_training.ratings import (
    LABEL_KINDS,
    PATH_COLUMNS,
    SCORE_MAX,
    SCORE_MIN,
    SUB_SCORE_COLUMNS,
    LabelKind,
    RatingsError,
    RatingsTable,
)
from fuscore_training.soft_labels import label_sigma

SIGMA_FLOOR = 0.3
"""Least `sigma`: a few raters may agree by chance. The width that agreeing sub-scores give, too."""


def import_mean_opinions(
    source: str | os.PathLike[str],
    *,
    label_kind: LabelKind,
    scale: tuple[float, float] = (SCORE_MIN, SCORE_MAX),
    screening: Literal["none", "bt500"] = "none",
    standardisation: Literal["none", "raters"] = "none",
    sigma_floor: float = SIGMA_FLOOR,
    report: str | os.PathLike[str] | None = None,
) -> RatingsTable:
    """Import a study in which raters scored single fusions.

    The CSV has one row per opinion: `scene, method, ir, vis, fused, rater, overall`, perhaps the
    four sub-scores (all or none), perhaps `source_pair`. Paths start in its folder. Opinions that
    are not numbers or off the scale, and triples whose images cannot be used, are skipped and
    listed. Repeats by one rater are averaged first. A triple's `sigma` is the standard deviation
    (population) between its raters, at least `sigma_floor`; where there was one rater it comes from
    the sub-scores (`label_sigma`), and if there are no sub-scores either, that is an error.

    Args:
        source: The CSV.
        label_kind: Who rated; "human" only if every rater was a person.
        scale: Worst and best value, brought to 1 and 5 linearly. (5, 1) turns a scale around.
        screening: "bt500" leaves out raters by `rejected_by_bt500`.
        standardisation: "raters" gives all raters one mean and spread, after screening.
        sigma_floor: Least `sigma`, > 0.
        report: Where to write the account of all rows, as JSON.

    Returns:
        One row per triple, in the order of the file: `scene`, `method`, paths, mean scores,
        `raters` (how many) and `sigma`; the latter is left out if no triple has two raters.

    Raises:
        RatingsError: The file is not such a table, or nothing is left of it.
    """
    path, account = Path(source), ImportReport(str(source))
    _check_options(scale, sigma_floor)
    expect_one_of("label_kind", label_kind, LABEL_KINDS)
    expect_one_of("screening", screening, ("none", "bt500"))
    expect_one_of("standardisation", standardisation, ("none", "raters"))
    columns = [*ITEM, *PATH_COLUMNS, "rater", "overall"]
    frame = read_study(path, columns)
    scores = ["overall", *_sub_scores(frame, path)]
    account.rows = len(frame)
    try:
        table = _mean_table(frame, scores, path, account, (scale, screening, standardisation))
        _add_sigma(table, scores, sigma_floor, path)
        account.kept = len(table)
    finally:
        if report is not None:
            account.write(Path(report))
    words = f"{path.name}: mean opinions of {account.facts['raters']} raters"
    return RatingsTable(table.drop(columns="spread"), label_kind, words)


def _mean_table(
    frame: pd.DataFrame,
    scores: list[str],
    path: Path,
    account: ImportReport,
    options: tuple[tuple[float, float], str, str],
) -> pd.DataFrame:
    scale, screening, standardisation = options
    triples = check_triples_of(frame, path, account)
    triples["item"] = np.arange(len(triples))
    opinions = _good_opinions(frame, scores, scale, account)
    # Those of unusable triples go with these, which are listed already.
    opinions = opinions.merge(triples[[*ITEM, "item"]], on=ITEM)
    repeats = len(opinions)
    opinions = opinions.groupby(["item", "rater"], as_index=False)[scores].mean()
    if repeats := repeats - len(opinions):
        account.notes.append(f"{repeats} opinions repeat a rater's earlier one: averaged")
    if screening == "bt500":
        rejected = rejected_by_bt500(opinions)
        account.facts["raters_rejected_by_bt500"] = rejected
        opinions = opinions[~opinions["rater"].isin(rejected)]
    if standardisation == "raters":
        opinions = standardised(opinions, scores)
    account.facts["raters"] = int(opinions["rater"].nunique())
    if opinions.empty:
        raise RatingsError(f"{path}: no opinion can be used, skipped {account.skipped}")
    means = mean_opinions(opinions, scores)
    means[scores] = means[scores].clip(SCORE_MIN, SCORE_MAX)  # standardised ones may go beyond
    return triples.merge(means, left_on="item", right_index=True).drop(columns="item")


def _good_opinions(
    frame: pd.DataFrame, scores: list[str], scale: tuple[float, float], account: ImportReport
) -> pd.DataFrame:
    """Opinions on 1 to 5; rows without a rater or without a number as score are skipped."""
    good = frame[["row", *ITEM, "rater"]].copy()
    low, high = min(scale), max(scale)
    worst, best = scale
    faults = pd.Series(np.where(frame["rater"] == "", "no rater", ""), index=frame.index)
    for score in scores:
        values = pd.to_numeric(frame[score], errors="coerce").astype(np.float64)
        reason = np.where(values.isna(), "score is not a number", "score off the scale")
        faults = faults.mask((faults == "") & ~values.between(low, high), pd.Series(reason))
        good[score] = SCORE_MIN + (SCORE_MAX - SCORE_MIN) * (values - worst) / (best - worst)
    for index in faults.index[faults != ""]:
        cells = ", ".join(f"{name} {frame.loc[index, name]!r}" for name in ("rater", *scores))
        account.skip(str(faults[index]), cells, row=int(frame.loc[index, "row"]))
    return good[faults == ""]


def _sub_scores(frame: pd.DataFrame, path: Path) -> Sequence[str]:
    there = [name for name in SUB_SCORE_COLUMNS if name in frame]
    if there and len(there) < len(SUB_SCORE_COLUMNS):
        raise RatingsError(f"{path}: expected all four sub-scores or none, got {', '.join(there)}")
    return there


def _add_sigma(table: pd.DataFrame, scores: list[str], floor: float, path: Path) -> None:
    single = table["raters"] < 2
    sub_scores = scores[1:]
    if not sub_scores and single.any():
        first = table[single].iloc[0]
        raise RatingsError(
            f"{path}: expected two raters or sub-scores for every triple, got one rater and none "
            f"for scene {first['scene']!r}, method {first['method']!r} "
            f"({int(single.sum())} of {len(table)} triples)"
        )
    if single.all():
        return  # the sub-scores decide, by the options of the training
    table["sigma"] = table["spread"].clip(lower=floor)
    if single.any():
        values = torch.from_numpy(
            table.loc[single, sub_scores].to_numpy(dtype=np.float64, copy=True)
        )
        table.loc[single, "sigma"] = label_sigma(values, sigma_min=floor).numpy()


def _check_options(scale: tuple[float, float], sigma_floor: float) -> None:
    if not all(map(math.isfinite, scale)) or scale[0] == scale[1]:
        raise RatingsError(f"Expected `scale` as two different numbers, got {scale}")
    if not (math.isfinite(sigma_floor) and sigma_floor > 0):
        raise RatingsError(f"Expected `sigma_floor` > 0, got {sigma_floor}")
