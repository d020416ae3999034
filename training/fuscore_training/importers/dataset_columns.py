"""A data set's features -> where its images, scores and names are, whatever their spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuscore_training.ratings import SCORE_COLUMNS, RatingsError

Place = tuple[str, ...]
"""Keys that lead to a value in a row: ("scores", "Overall Score")."""

IMAGE_NAMES = {
    "ir": ("infrared", "ir", "infraredimage", "thermal", "thermalimage"),
    "vis": ("visible", "vis", "visibleimage", "vi"),
    "fused": ("fused", "fusedimage", "fusion", "fusionimage"),
}
SCORE_NAMES = {
    "overall": ("overall", "overallscore", "overallquality"),
    "thermal_retention": ("thermalretention",),
    "texture_preservation": ("texturepreservation",),
    "artifacts": ("artifacts", "artifact"),
    "sharpness": ("sharpness",),
}
OPTIONAL_NAMES = {
    "scene": ("scene", "sceneid"),
    "method": ("method", "fusionmethod", "methodname"),
    "id": ("id",),
}
"""Columns that are used if they are there. `id` is only carried along: it may number rows."""


@dataclass(frozen=True)
class Columns:
    """Where things are in a row.

    Attributes:
        images: Place of "ir", "vis" and "fused".
        scores: Place of each of `SCORE_COLUMNS`.
        names: Place of those of "scene", "method" and "id" that there are.
    """

    images: dict[str, Place]
    scores: dict[str, Place]
    names: dict[str, Place]

    @property
    def top_level(self) -> list[str]:
        """The data set's columns that are needed."""
        places = [*self.images.values(), *self.scores.values(), *self.names.values()]
        return sorted({place[0] for place in places})


def find_columns(features: Mapping[str, Any]) -> Columns:
    """Find the columns of EVAFusion's schema, up to case, spaces, signs and nesting.

    "Thermal Retention", "thermal_retention", `scores.thermal_retention`, `scores_thermal_retention`
    and `scores["Thermal Retention"]` are one name.

    Args:
        features: A data set's features, as of `datasets`: nested ones are dicts.

    Raises:
        RatingsError: A column is not there, or is there twice; the message lists what was there.
    """
    leaves = _leaves(features)
    wanted = {**IMAGE_NAMES, **SCORE_NAMES, **OPTIONAL_NAMES}
    found = {name: _matching(leaves, spellings) for name, spellings in wanted.items()}
    there = ", ".join(".".join(place) for place in leaves) or "none"
    required = (*IMAGE_NAMES, *SCORE_COLUMNS)
    if missing := [name for name in required if not found[name]]:
        names = ", ".join(repr(wanted[name][0]) for name in missing)
        raise RatingsError(f"Expected columns of EVAFusion, found none for {names}; there: {there}")
    if twice := [name for name, places in found.items() if len(places) > 1]:
        raise RatingsError(f"Expected one column for {twice[0]!r}, got several; there: {there}")
    place = {name: places[0] for name, places in found.items() if places}
    images, scores = ({name: place[name] for name in ones} for ones in (IMAGE_NAMES, SCORE_COLUMNS))
    return Columns(images, scores, {name: place[name] for name in OPTIONAL_NAMES if name in place})


def at(row: Mapping[str, Any], place: Place) -> Any:
    """The value at a place of a row; None if anything on the way there is missing."""
    value: Any = row
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _leaves(features: Mapping[str, Any], above: Place = ()) -> list[Place]:
    found: list[Place] = []
    for key, feature in features.items():
        # An image that lost its type in a Parquet file is a dict of bytes and path.
        nested = isinstance(feature, Mapping) and set(feature) != {"bytes", "path"}
        found += _leaves(feature, (*above, key)) if nested else [(*above, key)]
    return found


def _matching(leaves: list[Place], spellings: tuple[str, ...]) -> list[Place]:
    plain = {place: re.sub(r"[^a-z0-9]", "", "".join(place).lower()) for place in leaves}
    return [
        place
        for place, name in plain.items()
        if name in spellings or re.sub("^scores?", "", name) in spellings
    ]
