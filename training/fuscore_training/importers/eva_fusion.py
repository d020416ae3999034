"""EVAFusion, or any data set of its schema -> checked image files -> a leak-free ratings table.

`HHOODD/EVAFusion_dataset` has 9,350 triples, 850 source pairs by 11 methods, with five scores from
1 to 5. Most come from a tuned language model whose answers experts reviewed, so the table's label
kind is "model". Its own splits are cut without regard to scenes; ours are drawn by whole scenes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fuscore_training.importers.dataset_rows import Row, good_rows
from fuscore_training.importers.dataset_source import fingerprint, open_source
from fuscore_training.importers.import_report import ImportReport
from fuscore_training.importers.imported_images import ImageStore
from fuscore_training.importers.scene_groups import NEAR_BITS, count_leaks, group_pairs, near_pairs
from fuscore_training.importers.study_tables import expect_one_of
from fuscore_training.ratings import (
    DEFAULT_FRACTIONS,
    LABEL_KINDS,
    SPLITS,
    LabelKind,
    RatingsError,
    RatingsTable,
    read_ratings,
    split_by_scene,
    write_ratings,
)

log = logging.getLogger(__name__)

TABLE, REPORT, KEY, IMAGES = "ratings.parquet", "import_report.json", "import_key.json", "images"
"""What an import leaves in its work folder."""
RATERS = {"model": "a model", "human": "people", "proxy": "a formula"}
VERSION = 1
"""Part of the key of a work folder: raised when an import would come out differently."""


def load_ratings(
    source: str | os.PathLike[str],
    *,
    work: str | os.PathLike[str],
    revision: str | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    label_kind: LabelKind = "model",
    local_files_only: bool = False,
) -> RatingsTable:
    """Import a data set of EVAFusion's schema, or read a ratings table.

    Rows without an image or a score, with one that is broken or out of [1, 5], of unequal sizes, or
    that repeat an earlier one are skipped, counted and listed in `WORK/import_report.json`. An
    import that is there already, of the same source with the same options, is read again. For a hub
    data set the same means the same `revision`: name one, as a branch may move.

    Args:
        source: A hub id ("HHOODD/EVAFusion_dataset"), a folder that `save_to_disk` wrote, a Parquet
            file or a folder of them; or a FuScore ratings table with its sidecar, for which
            everything else is ignored.
        work: Folder for `images/` (original bytes, each content once), `ratings.parquet`, its
            sidecar and `import_report.json`.
        revision: Commit, tag or branch of a hub data set.
        fractions: Share of rows of our "train", "val" and "test"; by default the data set's own
            proportions, or `DEFAULT_FRACTIONS` if it has no such splits.
        seed: Seed of our split.
        label_kind: Who rated: "model" for EVAFusion; "human" only if everybody was a person.
        local_files_only: Take a hub data set from the cache, without asking the hub.

    Returns:
        Ratings with `scene` (source pairs and their near-duplicates),
        `source_pair`, `method`, `split` (ours), `original_split`, and `original_scene` and
        `original_id` if the data set has them.

    Raises:
        RatingsError: No such source, no such columns, no good row, too few scenes to split, or an
            unknown label kind.
        ImportError: `datasets` or `imagehash` is not installed.
    """
    path, work = Path(source), Path(work).absolute()  # paths in a table are relative to it
    if path.suffix.lower() == ".csv" or _sidecar_of(path).is_file():
        return read_ratings(path)
    expect_one_of("label_kind", label_kind, LABEL_KINDS)
    options = {
        "version": VERSION,
        "label_kind": label_kind,
        "revision": revision,
        "seed": seed,
        "near_bits": NEAR_BITS,
        "fractions": fractions and dict(fractions),
    }
    key = json.dumps({"source": fingerprint(str(source), revision), **options})
    if (work / KEY).is_file() and (work / KEY).read_text(encoding="utf-8") == key:
        return read_ratings(work / TABLE)
    splits = open_source(str(source), revision=revision, local_files_only=local_files_only)
    report = ImportReport(str(source))
    work.mkdir(parents=True, exist_ok=True)
    (work / KEY).unlink(missing_ok=True)
    try:
        frame = _import(splits, ImageStore(work / IMAGES), report)
        frame["split"] = _split(frame, fractions, seed)
    finally:
        report.write(work / REPORT)
    name = f"{source} {revision or ''}".strip()
    description = f"{name}: scores given by {RATERS[label_kind]}, scenes grouped by us"
    write_ratings(RatingsTable(frame, label_kind, description), work / TABLE)
    (work / KEY).write_text(key, encoding="utf-8")
    return read_ratings(work / TABLE)


def _sidecar_of(path: Path) -> Path:
    return path.parent / f"{path.stem}.meta.json"


def _import(splits: Mapping[str, Any], store: ImageStore, report: ImportReport) -> pd.DataFrame:
    rows = list(good_rows(splits, store, report))
    if not rows:
        raise RatingsError(f"{report.source}: no row can be used, skipped {report.skipped}")
    frame = _table(rows)
    frame["scene"] = _scenes(rows, frame, report)
    _report_leaks(frame, report)
    frame = _without_repeats(frame, report)
    if frame["method"].eq("").any():
        frame["method"] = _numbered_methods(frame)
        report.notes.append(
            "no method names: numbered by order of appearance in each source pair, so that a name "
            "stands for different methods in different scenes"
        )
    report.kept = len(frame)
    return frame.drop(columns=["row", "fused_pixels"])


def _table(rows: list[Row]) -> pd.DataFrame:
    """Rows as a table, the paths of a source pair's first row in all of them."""
    frame = pd.DataFrame(
        {
            "source_pair": row.pair,
            "method": row.names.get("method", ""),
            **{name: image.path for name, image in row.images.items()},
            **row.scores,
            "original_split": row.split,
            **{f"original_{name}": row.names.get(name, "") for name in ("scene", "id")},
            "row": row.number,
            "fused_pixels": row.images["fused"].pixels,
        }
        for row in rows
    )
    for column in ("ir", "vis"):
        frame[column] = frame.groupby("source_pair")[column].transform("first")
    empty = [name for name in ("original_scene", "original_id") if frame[name].eq("").all()]
    return frame.drop(columns=empty)


def _scenes(rows: list[Row], frame: pd.DataFrame, report: ImportReport) -> list[str]:
    """Scene of each row: the name that the data set gives, else the first source pair's."""
    first = {row.pair: row for row in reversed(rows)}
    order = list(dict.fromkeys(frame["source_pair"]))
    images = [first[pair].images for pair in order]
    hashes = {name: np.array([one[name].hash for one in images]) for name in ("ir", "vis")}
    near = near_pairs(hashes["ir"], hashes["vis"])
    pixels = {name: [one[name].pixels for one in images] for name in ("ir", "vis")}
    named = frame[frame["original_scene"] != ""] if "original_scene" in frame else frame[:0]
    names = {
        str(pair): list(part["original_scene"].unique())
        for pair, part in named.groupby("source_pair")
    }
    group = group_pairs(pd.DataFrame({"pair": order, **pixels}), near, names)
    title: dict[int, str] = {}
    for number, pair in zip(group.tolist(), order, strict=True):
        title.setdefault(number, names.get(pair, [pair.replace("pair-", "scene-")])[0])
    rows_of = frame["source_pair"].map(dict(zip(order, group.tolist(), strict=True))).value_counts()
    report.facts["source_pairs_with_a_near_duplicate"] = len(np.unique(near))
    report.facts["share_of_the_largest_scene"] = round(float(rows_of.iloc[0]) / len(frame), 4)
    scene = {pair: title[number] for pair, number in zip(order, group.tolist(), strict=True)}
    return [scene[pair] for pair in frame["source_pair"]]


def _report_leaks(frame: pd.DataFrame, report: ImportReport) -> None:
    leaks = report.facts["leakage_of_its_own_splits"] = count_leaks(frame)
    if leaks["scenes_in_several_splits"]:
        log.warning(
            "%s: its own splits share %d of %d scenes (%d source pairs); rows of a training scene: "
            "%s. The column `split` is a new one without such leaks",
            report.source,
            leaks["scenes_in_several_splits"],
            leaks["scenes"],
            leaks["source_pairs_in_several_splits"],
            leaks["rows_of_a_train_scene"],
        )


def _without_repeats(frame: pd.DataFrame, report: ImportReport) -> pd.DataFrame:
    """Keep the first of rows that repeat a source pair's method, or its fused image."""
    again = frame.duplicated(["source_pair", "fused_pixels"])
    same = frame.duplicated(["source_pair", "method"]) & (frame["method"] != "") & ~again
    for reason, rows in (("repeated fused image", again), ("repeated method", same)):
        for row in frame[rows].itertuples():
            detail = f"{row.source_pair} {row.method}".strip()
            report.skip(reason, detail, split=row.original_split, row=row.row)
    return frame[~(again | same)].reset_index(drop=True)


def _numbered_methods(frame: pd.DataFrame) -> pd.Series[str]:
    unnamed = frame["method"] == ""
    place = unnamed.groupby(frame["source_pair"]).cumsum()
    return frame["method"].where(~unnamed, place.map("unnamed-{:02d}".format))


def _split(frame: pd.DataFrame, fractions: Mapping[str, float] | None, seed: int) -> pd.Series[str]:
    """Our split of each row, whole scenes at a time."""
    own = frame["original_split"].value_counts(normalize=True)
    proportions = dict(own) if len(own) > 1 and set(own.index) <= set(SPLITS) else None
    shares = fractions if fractions is not None else proportions or DEFAULT_FRACTIONS
    table = RatingsTable(frame.assign(place=np.arange(len(frame))), "model")
    parts = split_by_scene(table, fractions=shares, seed=seed)
    places = [part.frame["place"].to_numpy() for part in parts.values()]
    names = np.repeat(list(parts), [len(place) for place in places])
    return pd.Series(names, index=np.concatenate(places)).sort_index()
