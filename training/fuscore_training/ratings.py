"""Ratings on disk -> a checked table of triples and scores -> splits that share no scene."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fuscore_metric.runs.parquet_files import check_rows

LabelKind = Literal["proxy", "human", "model"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
PATH_COLUMNS = ("ir", "vis", "fused")
SUB_SCORE_COLUMNS = ("thermal_retention", "texture_preservation", "artifacts", "sharpness")
SCORE_COLUMNS = ("overall", *SUB_SCORE_COLUMNS)
REQUIRED_COLUMNS = ("scene", "method", *PATH_COLUMNS, *SCORE_COLUMNS)
SCORE_MIN, SCORE_MAX = 1.0, 5.0
SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
_Problem = tuple[int, str, str, type[ValueError]]  # row from 0, column, message, error to raise


class RatingsError(ValueError):
    """A ratings table, its sidecar or its split breaks a rule; the message says where."""


class RatingsFileNotFoundError(RatingsError, FileNotFoundError):
    """The table, its sidecar, or an image that it names is not there."""


@dataclass(frozen=True, eq=False)
class RatingsTable:
    """Ratings of (ir, vis, fused) triples, one per row.

    Attributes:
        frame: `REQUIRED_COLUMNS`, optional `sigma` (score units, >= 0), and any further columns.
            With `sigma`, all four `SUB_SCORE_COLUMNS` may be left out: studies that asked for the
            overall quality alone.
        label_kind: Who rated: a formula ("proxy"), people ("human") or another model ("model").
        description: Free text about where the ratings come from.
    """

    frame: pd.DataFrame
    label_kind: LabelKind
    description: str = ""

    def __post_init__(self) -> None:
        if self.label_kind not in LABEL_KINDS:
            raise ValueError(f"Expected label_kind in {LABEL_KINDS}, got {self.label_kind!r}")

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def source_pairs(self) -> pd.Series[str]:
        """Source pair id of each row (N,): column `source_pair` if it is there, else `scene`."""
        return self.frame["source_pair" if "source_pair" in self.frame else "scene"]

    @property
    def has_sub_scores(self) -> bool:
        """Whether the four sub-scores are there; if not, `sigma` is."""
        return set(SUB_SCORE_COLUMNS) <= set(self.frame)


def read_ratings(path: str | os.PathLike[str], *, check_files: bool = True) -> RatingsTable:
    """Read and check a ratings table and its sidecar `<table stem>.meta.json`.

    Ids stay text ("001", "NA"), image paths become absolute (relative ones start at the table's
    folder), scores float64. Further columns are kept as they stand: text in CSV, typed in Parquet.

    Args:
        path: A `.csv` (UTF-8, comma) or `.parquet` file.
        check_files: Whether every image must exist.

    Raises:
        RatingsError: A ValueError that gives file, row and column of the first problem in row order
            and counts the others. As a spreadsheet shows it, the header is row 1, data starts at 2.
        RatingsFileNotFoundError: The same, for a file that is not there (a FileNotFoundError too).
    """
    path = Path(path)
    expect_file(path, "ratings table")
    label_kind, description = _read_sidecar(_sidecar(path))
    frame = _checked(read_cells(path), path, check_files=check_files)
    return RatingsTable(frame, label_kind, description)


def write_ratings(table: RatingsTable, path: str | os.PathLike[str]) -> None:
    """Check a table, then write it and its sidecar so that `read_ratings` accepts both.

    Paths to images inside the folder of `path` are written relative to it, so that the folder can
    be moved; others are written absolute. Relative paths in `table` are relative to that folder.

    Raises:
        RatingsError: The table breaks a rule; nothing is written. Images need not exist yet.
    """
    path = Path(path)
    folder, sidecar = os.path.abspath(path.parent), _sidecar(path)
    frame = _checked(table.frame.reset_index(drop=True), path, check_files=False)
    for column in PATH_COLUMNS:
        frame[column] = frame[column].str.removeprefix(os.path.join(folder, ""))
    os.makedirs(folder, exist_ok=True)
    meta = {"label_kind": table.label_kind, "description": table.description}
    sidecar.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    write = frame.to_csv if path.suffix.lower() == ".csv" else frame.to_parquet
    write(path, index=False)


def split_by_scene(
    table: RatingsTable,
    *,
    fractions: Mapping[str, float] | None = None,
    scenes: Mapping[str, Collection[str]] | None = None,
    seed: int = 0,
) -> dict[str, RatingsTable]:
    """Split into train, val and test so that no scene and no source image is in two of them.

    Scenes that share a source pair, an ir or a vis file, or a byte-identical copy of one stay
    together (re-encoded copies are not recognised; images that are not there are told apart by
    path). A `split` column is obeyed; without one, `scenes` or `fractions` (by default
    `DEFAULT_FRACTIONS`) decide. The result does not depend on the order of rows.

    A column `other_scene`, if there is one, names the scene whose fusion a row shows in the place
    of its own; such rows are dropped where that would let one split see images of a later one.

    Args:
        table: Ratings to split.
        fractions: Share of rows by split name, sum 1; met about, as related scenes stay together.
        scenes: Scene ids by split name; together they must list every scene once.
        seed: Seed of the draw by `fractions`.

    Returns:
        One table for each of "train", "val", "test"; empty for a split without a share.

    Raises:
        RatingsError: The split leaks (names scenes and splits), what decides is bad or is doubled
            (drop the column `split` to split anew), or there are too few scenes.
    """
    frame, group = table.frame.reset_index(drop=True), _groups(table)
    if "split" in frame:
        split = frame["split"].map(str)
    elif scenes is not None:
        split = _listed(frame["scene"], scenes)
    else:
        split = _drawn(group, DEFAULT_FRACTIONS if fractions is None else fractions, seed)
    _check_split(frame["scene"], group, split)
    if ["split" in frame, scenes is not None, fractions is not None].count(True) > 1:
        raise RatingsError("Expected only one of scenes, fractions and a 'split' column")
    kept = ~_seen_too_early(frame, split)
    parts = {name: frame[kept & (split == name)].reset_index(drop=True) for name in SPLITS}
    return {name: replace(table, frame=part) for name, part in parts.items()}


def _seen_too_early(frame: pd.DataFrame, split: pd.Series[str]) -> pd.Series[bool]:
    """Rows that show an image of a scene in a later split, in the order of `SPLITS`."""
    if "other_scene" not in frame:
        return pd.Series(False, index=frame.index)
    order = split.map(SPLITS.index)
    given = frame["other_scene"].astype(object)  # of any kind: it is kept as it stands
    names = given.where(given.notna(), "").map(str)
    other = names.map(order.groupby(frame["scene"]).first())
    return other > order  # an unknown scene is in no split: NaN, never later


def expect_file(path: Path, what: str) -> None:
    """Refuse a path that leads to no file, as `what` it was to be says.

    Raises:
        RatingsError: It is a directory.
        RatingsFileNotFoundError: There is nothing.
    """
    if path.is_dir():
        raise RatingsError(f"Expected the file of a {what}, got the directory {str(path)!r}")
    if not path.is_file():
        raise RatingsFileNotFoundError(f"{path}: no such {what}")


def _sidecar(path: Path) -> Path:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise RatingsError(f"{path}: expected suffix .csv or .parquet, got {path.suffix!r}")
    return path.with_name(path.stem + ".meta.json")


def _read_sidecar(sidecar: Path) -> tuple[LabelKind, str]:
    hint = 'write {"label_kind": "human", "description": "who rated"} (or "proxy", "model") into it'
    if not sidecar.is_file():
        raise RatingsFileNotFoundError(f"{sidecar}: no such sidecar; {hint}")
    try:
        meta = json.loads(sidecar.read_text(encoding="utf-8"))
        kind, description = meta["label_kind"], str(meta["description"])
        if kind not in LABEL_KINDS:
            raise ValueError(f"expected label_kind in {LABEL_KINDS}, got {kind!r}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RatingsError(f"{sidecar}: {type(error).__name__}: {error}; {hint}") from error
    return kind, description


def read_cells(path: Path) -> pd.DataFrame:
    """Read a CSV (all cells text) or Parquet table as it stands; its index counts blank lines.

    Raises:
        RatingsError: It cannot be read; the message names the file.
    """
    try:
        if path.suffix.lower() == ".parquet":
            check_rows(path)
            return pd.read_parquet(path).reset_index(drop=True)
        # Text throughout, and blank lines counted: ids survive, and row numbers are the file's own.
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
    except MemoryError:
        raise
    except Exception as error:  # pandas and pyarrow raise nearly anything, and name no file
        raise RatingsError(f"{path}: not a readable table ({error})") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the surplus cells for an index
        raise RatingsError(f"{path}: rows have more cells than the header has columns")
    return frame[(frame.fillna("") != "").any(axis=1)]  # the index still counts blank lines


def _checked(raw: pd.DataFrame, path: Path, *, check_files: bool) -> pd.DataFrame:
    """Return a clean copy of `raw`, read from `path` (its index: data rows from 0), or raise."""
    scores = _score_columns(raw)
    if missing := [c for c in ("scene", "method", *PATH_COLUMNS, *scores) if c not in raw]:
        hint = "; 'sigma' may stand in for all four sub-scores"
        more = hint if set(SUB_SCORE_COLUMNS) <= set(missing) else ""
        raise RatingsError(f"{path}: missing column {', '.join(map(repr, missing))}{more}")
    if raw.empty:
        raise RatingsError(f"{path}: the table has no rows")
    frame = raw.copy()
    for column in ("scene", "method", *PATH_COLUMNS, *({"source_pair"} & set(raw))):
        frame[column] = raw[column].astype(object).where(raw[column].notna(), "").map(str)
    for column in PATH_COLUMNS:
        paths = [os.path.abspath(path.parent / p) if p.strip() else "" for p in frame[column]]
        frame[column] = paths
    problems = [*_scene_problems(frame), *_text_problems(frame, check_files=check_files)]
    for column in (*scores, *({"sigma"} & set(raw))):
        numbers = pd.to_numeric(raw[column], errors="coerce")
        frame[column] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        problems += _score_problems(raw[column], frame[column])
    if not problems:
        return frame.reset_index(drop=True)
    order = list(raw)
    row, column, message, kind = min(problems, key=lambda one: (one[0], order.index(one[1])))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f"{path}: row {row + 2} (the header is row 1), column {column!r}"
    raise kind(f"{where}: {message}{more}")


def _score_columns(raw: pd.DataFrame) -> tuple[str, ...]:
    """The scores a table must have: the overall one alone if `sigma` stands in for the others."""
    only_overall = "sigma" in raw and not set(SUB_SCORE_COLUMNS) & set(raw)
    return ("overall",) if only_overall else SCORE_COLUMNS


def _score_problems(raw: pd.Series, numbers: pd.Series[float]) -> Iterator[_Problem]:
    low, high = (0.0, np.finfo(float).max) if raw.name == "sigma" else (SCORE_MIN, SCORE_MAX)
    expected = "a number >= 0" if raw.name == "sigma" else f"a number in [{low:g}, {high:g}]"
    is_bool = raw.map(lambda value: isinstance(value, bool | np.bool_))  # pandas reads True as 1
    for row in raw.index[is_bool | ~numbers.between(low, high)]:
        got = str(raw[row]).strip() or "an empty cell"
        yield row, str(raw.name), f"expected {expected}, got {got}", RatingsError


def _text_problems(frame: pd.DataFrame, *, check_files: bool) -> Iterator[_Problem]:
    for column in ("scene", "method", *PATH_COLUMNS, *({"source_pair"} & set(frame))):
        is_path = check_files and column in PATH_COLUMNS
        there = {text: not is_path or os.path.isfile(text) for text in set(frame[column])}
        for row, text in zip(frame.index, frame[column], strict=True):
            if not text.strip():
                yield row, column, "expected text, got an empty cell", RatingsError
            elif not there[text]:
                yield row, column, f"no such image file {text}", RatingsFileNotFoundError


def _scene_problems(frame: pd.DataFrame) -> Iterator[_Problem]:
    """Yield rows that repeat a (source pair, method), or contradict the pair's ir, vis or scene."""
    # A scene may hold several source pairs: its own, and degraded versions of it.
    pair = "source_pair" if "source_pair" in frame else "scene"
    for row in frame.index[frame.duplicated([pair, "method"])]:
        name, method = frame.loc[row, [pair, "method"]]
        message = f"{pair} {name!r} has method {method!r} in an earlier row"
        yield row, "method", message, RatingsError
    for column in ("ir", "vis", *({"scene"} - {pair})):
        known = frame[column].where(frame[column] != "")  # an empty cell is reported as such
        first = known.groupby(frame[pair]).transform("first")
        for row in frame.index[known.notna() & (known != first)]:
            message = f"{pair} {frame.loc[row, pair]!r} has {known[row]} here, {first[row]} above"
            yield row, column, message, RatingsError


def _groups(table: RatingsTable) -> pd.Series[str]:
    """Name each row's group of scenes (N,), tied by pair or source image, by its first scene."""
    frame = table.frame.reset_index(drop=True)
    content = {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else path
        for path in {*frame["ir"], *frame["vis"]}
    }
    ties = ["scene " + frame["scene"], "pair " + table.source_pairs.reset_index(drop=True)]
    ties += ["image " + frame[column].map(content) for column in ("ir", "vis")]
    codes, names = pd.factorize(pd.concat(ties))
    size = len(frame) + len(names)  # nodes of the graph: rows, then what ties them
    edges = (np.tile(np.arange(len(frame)), len(ties)), len(frame) + codes)
    graph = coo_array((np.ones(len(codes)), edges), shape=(size, size))
    label = connected_components(graph, directed=False)[1][: len(frame)]
    return frame.groupby(label)["scene"].transform("min")


def _check_split(scene: pd.Series[str], group: pd.Series[str], split: pd.Series[str]) -> None:
    if unknown := sorted(set(split) - set(SPLITS)):
        raise RatingsError(f"Expected split names {', '.join(SPLITS)}, got {unknown}")
    rows = pd.DataFrame({"group": group, "split": split, "scene": scene}).drop_duplicates()
    if leaks := [part for _, part in rows.groupby("group") if part["split"].nunique() > 1]:
        first = leaks[0].sort_values(["split", "scene"]).drop_duplicates("split")
        more = f" (and {len(leaks) - 1} more leaks)" if len(leaks) > 1 else ""
        where = ", ".join(f"scene {row.scene!r} in {row.split!r}" for row in first.itertuples())
        raise RatingsError(f"Expected splits with no source in common, got {where}{more}")


def _listed(scene: pd.Series[str], scenes: Mapping[str, Collection[str]]) -> pd.Series[str]:
    counts = Counter(one for ones in scenes.values() for one in ones)
    counts.subtract(set(scene))
    if odd := sorted(one for one, count in counts.items() if count):
        raise RatingsError(f"Expected every scene of the table to be listed once, not so: {odd}")
    return scene.map({one: split for split, ones in scenes.items() for one in ones})


def _drawn(group: pd.Series[str], shares: Mapping[str, float], seed: int) -> pd.Series[str]:
    """Draw a split for each row (N,), whole groups at a time."""
    total = sum(shares.get(name, 0) for name in SPLITS)
    if not (min(shares.values(), default=0) >= 0 and np.isclose(total, 1)):
        raise RatingsError(f"Expected fractions >= 0 of {SPLITS}, sum 1, got {dict(shares)}")
    rows = group.value_counts().sort_index()
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    if len(rows) < len(names):
        raise RatingsError(f"Expected unrelated scenes for each of {names}, got {len(rows)} in all")
    open_rows = {name: shares[name] * len(group) for name in names}
    result = {}
    for place, one in enumerate(np.random.default_rng(seed).permutation(len(rows)).tolist()):
        # One group each first: else a small share of few scenes could stay empty.
        name = names[place] if place < len(names) else max(names, key=open_rows.__getitem__)
        open_rows[name] -= rows.iloc[one]
        result[rows.index[one]] = name
    return group.map(result)
