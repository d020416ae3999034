"""A CSV of pairwise choices and one of triples -> a ratings table of scale values."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuscore_training.importers.import_report import ImportReport
from fuscore_training.importers.scale_values import (
    ALPHA,
    Model,
    ScaleValues,
    components,
    scale_values,
)
from fuscore_training.importers.study_tables import (
    ITEM,
    check_triples_of,
    expect_one_of,
    read_study,
)
from fuscore_training.ratings import (
    LABEL_KINDS,
    PATH_COLUMNS,
    SCORE_MAX,
    SCORE_MIN,
    LabelKind,
    RatingsError,
    RatingsTable,
)

CENTRE = (SCORE_MIN + SCORE_MAX) / 2
SLOPE = 0.8
"""Score units per unit of a scale value: 2.5 units, which win 994 of 1,000 comparisons, reach from
the middle to the end of the scale."""
CHOICES = ("a", "b", "tie")


def import_preferences(
    source: str | os.PathLike[str],
    triples: str | os.PathLike[str],
    *,
    label_kind: LabelKind,
    model: Model = "thurstone",
    alpha: float = ALPHA,
    disconnected: Literal["error", "separate"] = "error",
    report: str | os.PathLike[str] | None = None,
) -> RatingsTable:
    """Import a study in which raters chose between two fusions.

    `source` has one row per choice: `scene, method_a, method_b, choice`, the latter a, b or tie;
    perhaps `rater`, which is only counted. With `scene_a` and `scene_b` in place of `scene`,
    fusions of different scenes are compared. `triples` names what was shown: `scene, method, ir,
    vis, fused`, perhaps `source_pair` and `anchor`, a score from 1 to 5 known from elsewhere.

    A scale value t with posterior variance v becomes ::

        overall = 3 + 0.8 t,  cut to [1, 5]        sigma^2 = 0.8^2 (1/2 + v)

    Each item carries half of the unit variance of a choice, so that the preference which training
    derives from two rows, Phi((mu_a - mu_b) / sqrt(sigma_a^2 + sigma_b^2)), is the probability
    Phi((t_a - t_b) / sqrt(1 + v_a + v_b)) of the next vote. More votes shrink v to 0, and `sigma`
    to 0.57. Choices fix differences only: each connected part of the comparisons has mean 3, or has
    its anchored triples' mean at the mean of their anchors. Without comparisons across scenes or
    anchors, scores of different scenes therefore cannot be compared.

    Args:
        source: CSV of choices.
        triples: CSV of triples.
        label_kind: Who chose; "human" only if every rater was a person.
        model: "thurstone" or "bradley-terry", see `scale_values`.
        alpha: Inverse variance of the prior of scale values.
        disconnected: What to do if fusions of one scene were never compared, not even through
            others: refuse, or scale the parts separately.
        report: Where to write the account of all rows, as JSON.

    Returns:
        One row per triple that was compared: `scene`, `method`, paths, `overall`, `sigma`,
        `scale_value`, `scale_variance`, `comparisons` (how many) and `component`; no sub-scores.

    Raises:
        RatingsError: A file is not such a table, nothing is left, or comparisons are disconnected.
        ImportError: `choix` is not installed.
    """
    path, account = Path(source), ImportReport(str(source))
    expect_one_of("label_kind", label_kind, LABEL_KINDS)
    expect_one_of("model", model, get_args(Model))
    expect_one_of("disconnected", disconnected, ("error", "separate"))
    if not (math.isfinite(alpha) and alpha > 0):
        raise RatingsError(f"Expected `alpha` > 0, got {alpha}")
    choices = _read_choices(path)
    shown = read_study(Path(triples), [*ITEM, *PATH_COLUMNS])
    account.rows = len(choices)
    try:
        anchors = _anchors(shown, Path(triples))
        items = check_triples_of(shown, Path(triples), account)
        good = _known_choices(choices, items, account)
        items, good = _compared(items, good, Path(triples), account)
        pairs = good[["item_a", "item_b"]].to_numpy(dtype=np.int64)
        _check_connected(items, pairs, disconnected, path, account)
        values = _values(good, pairs, len(items), model, alpha)
        table = _scored(items, values, anchors, account)
        table["comparisons"] = np.bincount(pairs.ravel(), minlength=len(items))
        account.kept = len(table)
    finally:
        if report is not None:
            account.write(Path(report))
    words = f"{path.name}: {model} scale values of {len(good)} pairwise choices"
    return RatingsTable(table, label_kind, words)


def _read_choices(path: Path) -> pd.DataFrame:
    """The choices, with `scene_a` and `scene_b` whatever the file has."""
    frame = read_study(path, ["method_a", "method_b", "choice"])
    across = {"scene_a", "scene_b"} <= set(frame)
    if across == ("scene" in frame):
        there = ", ".join(frame.columns.drop("row"))
        raise RatingsError(
            f"{path}: expected either column 'scene' or both 'scene_a' and 'scene_b'; "
            f"there: {there}"
        )
    return frame if across else frame.assign(scene_a=frame["scene"], scene_b=frame["scene"])


def _anchors(shown: pd.DataFrame, path: Path) -> dict[tuple[str, str], float]:
    """Known scores by scene and method."""
    if "anchor" not in shown:
        return {}
    given = shown[shown["anchor"] != ""]
    values = pd.to_numeric(given["anchor"], errors="coerce").astype(np.float64)
    if not (good := values.between(SCORE_MIN, SCORE_MAX)).all():
        row = given[~good].iloc[0]
        raise RatingsError(
            f"{path}: row {row['row']}: expected 'anchor' empty or from 1 to 5, "
            f"got {row['anchor']!r}"
        )
    names = zip(given["scene"], given["method"], strict=True)
    return dict(zip(names, values.tolist(), strict=True))


def _known_choices(
    choices: pd.DataFrame, items: pd.DataFrame, account: ImportReport
) -> pd.DataFrame:
    """Choices between two usable triples, with `item_a` and `item_b`; others are skipped."""
    names = zip(items["scene"], items["method"], strict=True)
    number = {name: place for place, name in enumerate(names)}
    good = choices.assign(choice=choices["choice"].str.lower())
    for side in "ab":
        keys = zip(good[f"scene_{side}"], good[f"method_{side}"], strict=True)
        good[f"item_{side}"] = [number.get(key, -1) for key in keys]
    itself = (good["scene_a"] == good["scene_b"]) & (good["method_a"] == good["method_b"])
    reasons = [
        ("no such choice", ~good["choice"].isin(CHOICES)),
        ("compared with itself", itself),
        ("no usable triple of that name", (good["item_a"] < 0) | (good["item_b"] < 0)),
    ]
    bad = pd.Series(False, index=good.index)
    for reason, rows in reasons:
        for row in choices[rows & ~bad].astype(str).itertuples():
            detail = f"{row.scene_a} {row.method_a} / {row.scene_b} {row.method_b}: {row.choice!r}"
            account.skip(reason, detail, row=int(str(row.row)))
        bad |= rows
    if bad.all():
        raise RatingsError(f"{account.source}: no choice can be used, skipped {account.skipped}")
    return good[~bad]


def _compared(
    items: pd.DataFrame, good: pd.DataFrame, path: Path, account: ImportReport
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leave out triples that were never compared, and number the others anew."""
    used = np.unique(good[["item_a", "item_b"]].to_numpy())
    for row in items[~items.index.isin(used)].itertuples():
        account.skip("never compared", f"{row.scene} {row.method}", table=path.name)
    place = np.full(len(items), -1)
    place[used] = np.arange(len(used))
    numbers = {side: place[good[side].to_numpy()] for side in ("item_a", "item_b")}
    if "rater" in good:
        account.facts["raters"] = int(good["rater"].nunique())
    account.facts["choices"] = len(good)
    account.facts["ties"] = int((good["choice"] == "tie").sum())
    return items.loc[used].reset_index(drop=True), good.assign(**numbers)


def _check_connected(
    items: pd.DataFrame,
    pairs: NDArray[np.int64],
    disconnected: str,
    path: Path,
    account: ImportReport,
) -> None:
    part = pd.Series(components(len(items), pairs), index=items.index)
    account.facts["connected_parts"] = int(part.nunique())
    torn = part.groupby(items["scene"]).nunique()
    if not (names := list(torn.index[torn > 1])):
        return
    inside = items[items["scene"] == names[0]]
    sets = [", ".join(ones["method"]) for _, ones in inside.groupby(part)]
    message = (
        f"scene {names[0]!r} falls into {len(sets)} parts never compared with each other: "
        + "; ".join(sets)
        + (f" (and {len(names) - 1} more scenes)" if len(names) > 1 else "")
    )
    if disconnected == "error":
        raise RatingsError(f"{path}: {message}")
    account.notes.append(f"{message}: each part has its own mean, so they do not compare")


def _values(
    good: pd.DataFrame,
    pairs: NDArray[np.int64],
    count: int,
    model: Model,
    alpha: float,
) -> ScaleValues:
    choice = good["choice"].to_numpy()
    wins = np.where((choice == "b")[:, None], pairs[:, ::-1], pairs)
    ties = choice == "tie"
    return scale_values(count, wins[~ties], pairs[ties], model=model, alpha=alpha)


def _scored(
    items: pd.DataFrame,
    values: ScaleValues,
    anchors: dict[tuple[str, str], float],
    account: ImportReport,
) -> pd.DataFrame:
    """Scale values as scores; see `import_preferences` for the map."""
    score = CENTRE + SLOPE * values.mean
    names = zip(items["scene"], items["method"], strict=True)
    known = pd.Series([anchors.get(name, math.nan) for name in names])
    if anchors:
        shift = (known - score).groupby(values.component).transform("mean")
        account.facts["anchored_triples"] = int(known.notna().sum())
        score = score + shift.fillna(0.0).to_numpy()
    beyond = int(((score < SCORE_MIN) | (score > SCORE_MAX)).sum())
    account.facts["cut_to_the_scale"] = beyond
    return items.assign(
        overall=score.clip(SCORE_MIN, SCORE_MAX),
        sigma=SLOPE * np.sqrt(0.5 + values.variance),
        scale_value=values.mean,
        scale_variance=values.variance,
        component=values.component,
    )
