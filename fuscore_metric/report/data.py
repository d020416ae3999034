"""Results table -> what the page shows: scores by scene and method, counts, and compact JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuscore_metric.prompts import LEVEL_WORDS
from fuscore_metric.results.rows import FURTHER_ASPECTS, columns, measures_in

Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Failure:
    """A row without a score."""

    scene: str
    method: str
    error: str


@dataclass(frozen=True)
class Grid:
    """The table as arrays over S scenes and M methods.

    Attributes:
        scenes: Names, in the order of the table.
        methods: Names, best first, those without any score last.
        columns: Column of numbers -> (S, M), NaN where there is none.
        failures: Rows without a score, in the order of the table.
        files: (scene, method) -> paths of ir, vis and fused.
    """

    scenes: tuple[str, ...]
    methods: tuple[str, ...]
    columns: Mapping[str, Numbers]
    failures: tuple[Failure, ...]
    files: Mapping[tuple[str, str], tuple[str, str, str]]

    @property
    def score(self) -> Numbers:
        """(S, M) scores."""
        return self.columns["score"]

    @property
    def mean(self) -> Numbers:
        """(S,) mean over the methods that have a score; NaN where none has."""
        known = np.isfinite(self.score)
        total = np.where(known, self.score, 0).sum(1)
        return np.where(known.any(1), total / known.sum(1).clip(min=1), np.nan)

    @property
    def spread(self) -> Numbers:
        """(S,) best minus worst score; NaN where fewer than two methods have one."""
        known = np.isfinite(self.score)
        highest = np.where(known, self.score, -np.inf).max(1, initial=-np.inf)
        lowest = np.where(known, self.score, np.inf).min(1, initial=np.inf)
        return np.where(known.sum(1) > 1, highest - lowest, np.nan)

    @property
    def best(self) -> NDArray[np.int64]:
        """(S,) number of the best method; -1 where none has a score."""
        known = np.isfinite(self.score)
        if not self.methods:
            return np.full(len(self.scenes), -1)
        best = np.where(known, self.score, -np.inf).argmax(1)
        return np.where(known.any(1), best, -1)

    def scores_by_method(self) -> dict[str, Numbers]:
        """Method -> its finite scores, best method first."""
        columns = ((name, self.score[:, place]) for place, name in enumerate(self.methods))
        return {name: values[np.isfinite(values)] for name, values in columns}


def make_grid(table: pd.DataFrame, best_first: Sequence[str]) -> Grid:
    """Arrange a results table by scene and method.

    Args:
        table: Columns as in `fuscore_metric.results.rows.COLUMNS`, of which all but the first
            three may be missing, and any classic measures; (scene, method) is unique.
        best_first: Methods in the order wanted; others of the table follow.
    """
    measures = measures_in(table.columns)
    table = table.reindex(columns=list(columns(measures))).astype({"scene": str, "method": str})
    scenes = list(dict.fromkeys(table["scene"]))
    methods = list(dict.fromkeys([*best_first, *table["method"]]))
    rows = pd.Index(scenes).get_indexer(pd.Index(table["scene"]))
    places = pd.Index(methods).get_indexer(pd.Index(table["method"]))
    arrays = {}
    for name in ("score", "std", *LEVEL_WORDS, *FURTHER_ASPECTS, *measures):
        values = np.full((len(scenes), len(methods)), np.nan)
        values[rows, places] = pd.to_numeric(table[name]).to_numpy(float, na_value=np.nan)
        arrays[name] = values
    failed = table[pd.to_numeric(table["score"]).isna()]
    failures = tuple(
        Failure(scene, method, _text(error) or "no score and no error in the table")
        for scene, method, error in zip(
            failed["scene"], failed["method"], failed["error"], strict=True
        )
    )
    keys = zip(table["scene"], table["method"], strict=True)
    paths = zip(*(map(_text, table[name]) for name in ("ir", "vis", "fused")), strict=True)
    return Grid(
        tuple(scenes), tuple(methods), arrays, failures, dict(zip(keys, paths, strict=True))
    )


def compact(grid: Grid) -> dict[str, Any]:
    """Make what the page's script reads: numbers in thousandths, flat, a scene after the other.

    Whole numbers are a third of the characters of decimals, and no less than the page shows.
    """
    levels = np.stack([grid.columns[name] for name in LEVEL_WORDS], axis=-1)  # (S, M, 5)
    aspects = [name for name in FURTHER_ASPECTS if np.isfinite(grid.columns[name]).any()]
    scene_of = {name: number for number, name in enumerate(grid.scenes)}
    method_of = {name: number for number, name in enumerate(grid.methods)}
    errors = {
        scene_of[one.scene] * len(grid.methods) + method_of[one.method]: one.error
        for one in grid.failures
    }
    return {
        "scenes": grid.scenes,
        "methods": grid.methods,
        "levels": LEVEL_WORDS,
        "aspects": [name.replace("_", " ") for name in aspects],
        "score": _thousandths(grid.score),
        "std": _thousandths(grid.columns["std"]),
        "probabilities": _thousandths(levels),
        "aspectScores": [_thousandths(grid.columns[name]) for name in aspects],
        "mean": _thousandths(grid.mean),
        "spread": _thousandths(grid.spread),
        "best": grid.best.tolist(),
        "errors": errors,
    }


def script_json(data: Any) -> str:
    """JSON that cannot end a `<script>` nor begin a comment, whatever the strings in it say."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _thousandths(values: Numbers) -> list[int | None]:
    flat = values.reshape(-1)
    known = np.isfinite(flat)
    whole = np.rint(np.where(known, flat, 0) * 1000).astype(int).tolist()
    return [value if there else None for value, there in zip(whole, known, strict=True)]


def _text(value: Any) -> str:
    """A cell as text; what is missing is empty."""
    return value if isinstance(value, str) else ""
