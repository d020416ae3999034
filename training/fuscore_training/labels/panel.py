"""Viewers' ratings of pictures (`training/ratings`) + the pictures -> a ratings table.

A viewer is a multimodal LLM that was shown a picture and both its sources, but not told how it was
made; the label kind is "model". Each group of pictures was rated on a scale of its own, so a
source pair of one file is not the source pair of another: `source_pair` tells them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fuscore_training.fusions.drawn import MAKERS
from fuscore_training.labels.raters import mean_opinions
from fuscore_training.labels.viewer_pictures import find_files
from fuscore_training.ratings import SCORE_COLUMNS, SUB_SCORE_COLUMNS, RatingsTable

PANELS = (
    "fusions",
    "modern",
    "own",
    "made",
    "drawn",
    "copies",
    "damaged",
    "colour",
    "colour_and_targets",
)
"""Files of opinions, by what was shown."""
PICTURE = ("set", "scene", "method", "kind", "strength", "image", "part", "seed")
"""What names a picture; all but three are missing where fusions are undamaged and published. One
with a seed of 0 or more can be made: see `viewer_pictures`."""
DESCRIPTION = (
    "Ratings by a multimodal LLM that looked at the pictures, not people's ratings of "
    "infrared-visible fusions."
)


def read_panel(ratings: Path, data: Path, made: Path) -> RatingsTable:
    """Read viewers' ratings, and find the pictures that they were shown.

    The overall opinion, 0 to 100, becomes 1 to 5 linearly; the sub-scores are on 1 to 5 already.
    Several viewers of one picture are averaged.

    Args:
        ratings: Folder of `PANELS` as CSV.
        data: Folder of the pictures: `<set>/...` and `modern/<set>/...` as `proxy_ratings` takes
            them, and `panel/<file's stem>/<image>` of pictures made for the viewers.
        made: Folder for pictures that have a seed; those that are not there yet are made.

    Returns:
        The table: scene `<set>/<scene>`, `method` (distinct within a source pair), `base` (the
        method behind the picture), `kind` of damage ("method" for none,
        "copy" of a source), `strength`, `seed` (-1 of
        stored pictures), `panel` (the file's stem), `viewers` (how many) and `spread` between
        them on 1 to 5.

    Raises:
        RatingsError: A picture is not there.
    """
    found = [_read(ratings / f"{name}.csv", name, data, made) for name in PANELS]
    return RatingsTable(pd.concat(found, ignore_index=True), "model", DESCRIPTION)


def _read(path: Path, panel: str, data: Path, made: Path) -> pd.DataFrame:
    opinions = pd.read_csv(path, keep_default_na=False, dtype={"scene": str})
    opinions["overall"] = 1 + 4 * opinions["overall_0_100"] / 100
    keys = [name for name in PICTURE if name in opinions]
    opinions["item"] = opinions.groupby(keys, sort=False).ngroup()
    opinions["rater"] = opinions["viewer"]
    means = mean_opinions(opinions, list(SCORE_COLUMNS))
    frame = opinions.drop_duplicates("item").set_index("item")[keys].join(means)
    rows = frame.to_dict("records")
    return pd.DataFrame([_row(picture, panel, data, made) for picture in rows])


def _row(picture: dict[Any, Any], panel: str, data: Path, made: Path) -> dict[str, object]:
    folder, stem, method = (str(picture[name]) for name in ("set", "scene", "method"))
    seed = int(picture.get("seed", -1))
    kind = str(picture.get("kind", "none"))
    strength = f"{picture.get('strength', 0):g}"
    drawn = f"#{seed}" if seed >= 0 else ""
    damage = "" if kind in ("none", "copy") else f"+{kind}={strength}{drawn}"
    return {
        "scene": f"{folder}/{stem}",
        "method": method + (drawn if method in MAKERS else "") + damage,
        "base": method,
        **find_files(picture, panel, data, made),
        **{name: picture[name] for name in ("overall", *SUB_SCORE_COLUMNS)},
        "source_pair": f"{folder}/{stem} of {panel}",
        "kind": "method" if kind == "none" else kind,
        "strength": strength,
        "seed": seed,
        "panel": panel,
        "viewers": picture["raters"],
        "spread": picture["spread"],
    }
