"""What viewers said of pictures (`training/ratings`) + the pictures -> a ratings table.

A viewer is a multimodal LLM that looked at a picture and both its sources without knowing how it
was made; the label kind is "model". Each group of pictures was rated on a scale of its own, so a
source pair of one file is not the source pair of another: `source_pair` tells them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fuscore_training.raters import mean_opinions
from fuscore_training.ratings import SCORE_COLUMNS, SUB_SCORE_COLUMNS, RatingsError, RatingsTable

PANELS = ("fusions", "modern", "own", "damaged", "colour")
"""Files of opinions, by what was shown."""
PICTURE = ("set", "scene", "method", "kind", "strength", "image")
"""What names a picture; the last three are missing where fusions are undamaged and published."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
DESCRIPTION = (
    "Ratings by a multimodal LLM that looked at the pictures, not people's ratings of "
    "infrared-visible fusions."
)


def read_panel(ratings: Path, data: Path) -> RatingsTable:
    """Read what viewers said, and find the pictures that they saw.

    The overall opinion, 0 to 100, becomes 1 to 5 linearly; the sub-scores are on 1 to 5 already.
    Several viewers of one picture are averaged.

    Args:
        ratings: Folder of `PANELS` as CSV.
        data: Folder of the pictures: `<set>/...` and `modern/<set>/...` as `proxy_ratings` takes
            them, and `panel/<file's stem>/<image>` of pictures made for the viewers.

    Returns:
        The table: scene `<set>/<scene>`, `method` (distinct within a source pair), `base` (the
        method behind the picture), `kind` of damage ("method" for none), `strength`, `panel` (the
        file's stem), `viewers` (how many) and `spread` between them on 1 to 5.

    Raises:
        RatingsError: A picture is not there.
    """
    found = [_read(ratings / f"{name}.csv", name, data) for name in PANELS]
    return RatingsTable(pd.concat(found, ignore_index=True), "model", DESCRIPTION)


def _read(path: Path, panel: str, data: Path) -> pd.DataFrame:
    opinions = pd.read_csv(path, keep_default_na=False, dtype={"scene": str})
    opinions["overall"] = 1 + 4 * opinions["overall_0_100"] / 100
    keys = [name for name in PICTURE if name in opinions]
    opinions["item"] = opinions.groupby(keys, sort=False).ngroup()
    opinions["rater"] = opinions["viewer"]
    means = mean_opinions(opinions, list(SCORE_COLUMNS))
    frame = opinions.drop_duplicates("item").set_index("item")[keys].join(means)
    return pd.DataFrame([_row(picture, panel, data) for picture in frame.to_dict("records")])


def _row(picture: dict[Any, Any], panel: str, data: Path) -> dict[str, object]:
    folder, stem, method = (str(picture[name]) for name in ("set", "scene", "method"))
    roots = (data / folder, data / "modern" / folder)
    if image := picture.get("image"):
        fused = [data / "panel" / panel / str(image)]
    else:
        fused = [
            root / "fused" / method / f"{stem}{suffix}" for root in roots for suffix in SUFFIXES
        ]
    sources = {
        name: [root / name / f"{stem}{suffix}" for root in roots for suffix in SUFFIXES]
        for name in ("ir", "vis")
    }
    kind = str(picture.get("kind", "none"))
    strength = f"{picture.get('strength', 0):g}"
    return {
        "scene": f"{folder}/{stem}",
        "method": method if kind == "none" else f"{method}+{kind}={strength}",
        "base": method,
        **{name: _first(files) for name, files in (*sources.items(), ("fused", fused))},
        **{name: picture[name] for name in ("overall", *SUB_SCORE_COLUMNS)},
        "source_pair": f"{folder}/{stem} of {panel}",
        "kind": "method" if kind == "none" else kind,
        "strength": strength,
        "panel": panel,
        "viewers": picture["raters"],
        "spread": picture["spread"],
    }


def _first(files: list[Path]) -> str:
    for file in files:
        if file.exists():
            return str(file.resolve())
    raise RatingsError(f"No picture {files[0]}, nor the same with {', '.join(SUFFIXES)}")
