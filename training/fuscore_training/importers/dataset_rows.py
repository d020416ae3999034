"""Data sets by split -> their good rows, checked, images stored; the others are accounted for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fuscore_metric.errors import InputError
from fuscore_training.importers.dataset_columns import Columns, Place, at, find_columns
from fuscore_training.importers.import_report import ImportReport
from fuscore_training.importers.imported_images import ImageStore, StoredImage, check_sizes
from fuscore_training.importers.optional import optional_module
from fuscore_training.ratings import SCORE_MAX, SCORE_MIN


class SkippedRowError(Exception):
    """A row of the data set cannot be used: a reason to count, and words about this one."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Row:
    """A good row, not yet grouped.

    Attributes:
        split: The data set's split.
        number: Row in it, from 0.
        images: "ir", "vis" and "fused".
        scores: By aspect, in [1, 5].
        names: Those of "scene", "method" and "id" that it has.
    """

    split: str
    number: int
    images: dict[str, StoredImage]
    scores: dict[str, float]
    names: dict[str, str]

    @property
    def pair(self) -> str:
        """Source pair: what both sources show, however they are stored."""
        both = self.images["ir"].pixels + self.images["vis"].pixels
        return "pair-" + sha256(both.encode()).hexdigest()[:16]


def good_rows(splits: Mapping[str, Any], store: ImageStore, report: ImportReport) -> Iterator[Row]:
    """Read row by row, so that only one row's images are in memory.

    Args:
        splits: Data sets by split.
        store: Where images go.
        report: Counts the rows, and lists those that are skipped.

    Raises:
        RatingsError: A split lacks a column.
    """
    undecoded = optional_module("datasets").Image(decode=False)
    for split, dataset in splits.items():
        columns = find_columns(dataset.features)
        dataset = dataset.select_columns(columns.top_level)
        for place in columns.images.values():
            if type(dataset.features[place[0]]) is type(undecoded):
                dataset = dataset.cast_column(place[0], undecoded)
        for number, row in enumerate(dataset):
            report.rows += 1
            try:
                yield _row(row, columns, store, split, number)
            except SkippedRowError as error:
                report.skip(error.reason, error.detail, split=split, row=number)


def _row(
    row: Mapping[str, Any], columns: Columns, store: ImageStore, split: str, number: int
) -> Row:
    data = {name: _image_bytes(at(row, place), name) for name, place in columns.images.items()}
    scores = {name: _score(at(row, place), name) for name, place in columns.scores.items()}
    images: dict[str, StoredImage] = {}
    for name, content in data.items():
        try:
            images[name] = store.add(content, name)
        except InputError as error:
            raise SkippedRowError("broken image", str(error)) from error
    try:
        check_sizes(images["ir"], images["vis"], images["fused"])
    except InputError as error:
        raise SkippedRowError("unequal sizes", str(error)) from error
    return Row(split, number, images, scores, _names(row, columns.names))


def _image_bytes(value: Any, name: str) -> bytes:
    """The file behind an undecoded image: {"bytes", "path"}, bytes, or a path."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
    else:
        content, path = (value, None) if isinstance(value, bytes) else (None, value)
    if content:
        return bytes(content)
    # Beside embedded bytes `path` is a bare name, which must not be found in this folder by chance.
    if path and os.path.isabs(path) and os.path.isfile(path):
        return Path(path).read_bytes()
    detail = f"{name}: {'no image' if path is None else f'no such file {path}'}"
    raise SkippedRowError("missing image", detail)


def _score(value: Any, name: str) -> float:
    try:
        score = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isnan(score):
        raise SkippedRowError("missing score", f"{name}: expected a number, got {value!r}")
    if not SCORE_MIN <= score <= SCORE_MAX:
        raise SkippedRowError("score out of range", f"{name}: expected 1 to 5, got {score:g}")
    return score


def _names(row: Mapping[str, Any], places: Mapping[str, Place]) -> dict[str, str]:
    values = {name: at(row, place) for name, place in places.items()}
    texts = {name: str(value).strip() for name, value in values.items() if value is not None}
    return {name: text for name, text in texts.items() if text}
