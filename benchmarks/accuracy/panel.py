"""Tables of what viewers said -> one line per picture: its files, and the mean of the viewers.

A viewer is a multimodal LLM that looked at blind sheets of fusions beside their sources; the README
of `training/ratings` says more. No test scene and no held-out method of the split ever enters.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from fuscore_training.labels.panel import PICTURE
from fuscore_training.labels.viewer_pictures import find_files
from fuscore_training.split import Split

from fuscore_metric.prompts import ASPECTS

TABLES = {
    "fusions": "undamaged fusions of published methods",
    "modern": "newer methods, and known ones beside them",
    "own": "fusions made by a script",
    "made": "undamaged fusions drawn by `made_fusions`",
    "drawn": "undamaged fusions drawn by `drawn_fusions`",
    "copies": "copies of a source among fusions",
    "damaged": "damaged fusions",
    "colour": "fusions with changed colours",
    "colour_and_targets": "casts, blotches, lost targets and more",
}
"""Table in the folder of ratings -> what its pictures are."""
VIEWINGS = ("A", "B")
PROCESSES = 2
ABSENT: dict[str, Any] = {"kind": "none", "strength": 0.0, "image": "", "part": 0, "seed": -1}
"""What a column that a table lacks would say in each row."""


def read_panel(
    ratings: Path, data: Path, made: Path, split: Split, *, whole: Container[str] = ()
) -> pd.DataFrame:
    """Choose pictures from all tables, and make those that have a seed and are not there yet.

    Args:
        ratings: Folder of `TABLES` as CSV.
        data: Folder of real source pairs and fusions, with `panel` and `modern` in it.
        made: Folder for pictures that have a seed.
        split: Its test scenes and held-out methods are left out, its validation scenes marked.
        whole: Tables of which all pictures are chosen, not only those of validation scenes and
            `of_vifb`.

    Returns:
        One line per picture: `table`, `picture` (its name in the table), the columns of `PICTURE`,
        with `scene` as set/stem, `stem`, `group` (the method, or what was done to the picture
        where that was damage), `validation`, paths `ir`, `vis`, `fused`, and by aspect the mean of
        all viewers and that of each one, as `overall`, `overall A`, `overall B`, ...; NaN where a
        viewer did not look. Overall is 0-100, the other aspects are 1-5, higher is better.
    """
    frames = [_pictures(ratings, name, split) for name in TABLES]
    frame = pd.concat(frames, ignore_index=True)
    all_of = frame["table"].map(lambda table: table in whole)
    frame = frame[frame["validation"] | of_vifb(frame) | all_of].reset_index(drop=True)
    rows = frame.to_dict("records")
    with ProcessPoolExecutor(PROCESSES) as pool:
        files = list(pool.map(partial(_files, data=data, made=made), rows, chunksize=8))
    return frame.join(pd.DataFrame(files, frame.index))


def of_vifb(frame: pd.DataFrame) -> pd.Series[bool]:
    """Rows of VIFB's published fusions, which its leaderboard needs of all scenes."""
    return (frame["table"] == "fusions") & (frame["set"] == "VIFB")


def _pictures(ratings: Path, table: str, split: Split) -> pd.DataFrame:
    said = pd.read_csv(ratings / f"{table}.csv", dtype={"scene": str}, keep_default_na=False)
    said = said.rename(columns={"overall_0_100": "overall"})
    for column, value in ABSENT.items():
        if column not in said:
            said[column] = value
    said["stem"], said["scene"] = said["scene"], said["set"] + "/" + said["scene"]
    said = said[~said["scene"].isin(split.test) & ~split.is_held_out(said)]
    said["group"] = _groups(said, table)
    name = said["method"] + " " + said["scene"]
    said["picture"] = said["image"].where(said["image"] != "", name)
    facts = ["picture", "stem", "group", *PICTURE]
    by_viewer = said.pivot_table(list(ASPECTS), facts, "viewer")  # (pictures, aspects x viewers)
    by_viewer.columns = [" ".join(column) for column in by_viewer.columns]
    by_viewer = by_viewer.reindex(columns=[f"{a} {v}" for a in ASPECTS for v in VIEWINGS])
    frame = said.groupby(facts)[list(ASPECTS)].mean().join(by_viewer).reset_index()
    frame["table"], frame["validation"] = table, frame["scene"].isin(split.val)
    return frame


def _groups(said: pd.DataFrame, table: str) -> pd.Series[str]:
    """The method; in tables of damage its kind, with its strength if few strengths were used."""
    if table == "colour_and_targets":
        return said["kind"]
    if table in ("damaged", "colour"):
        return said["kind"] + " " + said["strength"].astype(str)
    return said["method"]


def _files(row: Mapping[Any, Any], data: Path, made: Path) -> dict[str, str]:
    return find_files({**row, "scene": row["stem"]}, row["table"], data, made)
