"""Tables of what viewers said -> one line per picture: its files, and the mean of the viewers.

A viewer is a multimodal LLM that looked at blind sheets of fusions beside their sources; the data's
README says more. No test scene and no held-out method of the split ever enters.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import pandas as pd
from fuscore_training.split import Split
from fuscore_training.viewer_pictures import find_picture

from fuscore_metric.prompts import ASPECTS

TABLES = {
    "fusions": "undamaged fusions of published methods",
    "modern": "newer methods, and known ones beside them",
    "own": "fusions made by a script",
    "damaged": "damaged fusions",
    "colour": "fusions with changed colours",
}
"""Table in the data's folder `panel` -> what its pictures are."""
PICTURES_WITH_TABLE = ("own", "damaged", "colour")
"""Tables whose pictures lie beside them, in a folder of the table's name."""
VIEWINGS = ("A", "B")


def read_panel(data: Path, split: Split) -> pd.DataFrame:
    """Read all tables.

    Args:
        data: Folder of real source pairs and fusions, with `panel` and `modern` in it.
        split: Its test scenes and held-out methods are left out, its validation scenes marked.

    Returns:
        One line per picture: `table`, `picture` (its name in the table), `scene` (set/stem),
        `method`, `group` (the method; kind and strength of what was done to the picture where the
        table has them), `validation`, paths `ir`, `vis`, `fused`, and by aspect the mean of all
        viewers and that of each one, as `overall`, `overall A`, `overall B`, ...; NaN where a
        viewer did not look. Overall is 0-100, the other aspects are 1-5, higher is better.
    """
    frames = [_pictures(data, name, split) for name in TABLES]
    return pd.concat(frames, ignore_index=True)


def _pictures(data: Path, table: str, split: Split) -> pd.DataFrame:
    said = pd.read_csv(data / "panel" / f"{table}.csv", dtype={"scene": str})
    said = said.rename(columns={"scene": "stem", "overall_0_100": "overall"})
    said["scene"] = said["set"] + "/" + said["stem"]
    said = said[~said["scene"].isin(split.test) & ~split.is_held_out(said)]
    changed = "kind" in said
    said["group"] = said["kind"] + " " + said["strength"].astype(str) if changed else said["method"]
    beside = table in PICTURES_WITH_TABLE
    said["picture"] = said["image"] if beside else said["method"] + " " + said["scene"]
    facts = ["picture", "set", "stem", "scene", "method", "group"]
    by_viewer = said.pivot_table(list(ASPECTS), facts, "viewer")  # (pictures, aspects x viewers)
    by_viewer.columns = [" ".join(column) for column in by_viewer.columns]
    by_viewer = by_viewer.reindex(columns=[f"{a} {v}" for a in ASPECTS for v in VIEWINGS])
    frame = said.groupby(facts)[list(ASPECTS)].mean().join(by_viewer).reset_index()
    frame["table"], frame["validation"] = table, frame["scene"].isin(split.val)
    for name in ("ir", "vis", "fused"):
        frame[name] = [str(_file(data, table, row, name)) for row in frame.to_dict("records")]
    return frame


def _file(data: Path, table: str, row: dict[Hashable, str], name: str) -> Path:
    """Find one of the three images; newer methods and their scenes have a folder of their own."""
    if name == "fused" and table in PICTURES_WITH_TABLE:
        return data / "panel" / table / row["picture"]
    place = f"fused/{row['method']}" if name == "fused" else name
    return Path(find_picture(data, row["set"], row["stem"], place))
