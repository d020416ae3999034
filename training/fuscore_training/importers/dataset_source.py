"""A hub id, a `save_to_disk` folder or Parquet files -> data sets by split, images undecoded."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from fuscore_training.importers.optional import optional_module
from fuscore_training.ratings import RatingsError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
UNNAMED_SPLIT = "all"
"""Split of a data set without splits."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def open_source(
    source: str, *, revision: str | None = None, local_files_only: bool = False
) -> dict[str, Any]:
    """Open a data set through `datasets`.

    Local Parquet files are streamed, not copied. Code that comes with a data set is never run.

    Args:
        source: A folder that `save_to_disk` wrote, a Parquet file, a folder of Parquet files
            (split by the beginning of their names, as on the hub), or a hub id.
        revision: Commit, tag or branch of a hub data set.
        local_files_only: Take a hub data set from the cache, without asking the hub.

    Returns:
        Data sets by split: "train", "val" and "test" under these names, others under their own.

    Raises:
        RatingsError: There is no such data set, or `revision` is given for files.
    """
    path, datasets = Path(source), optional_module("datasets")
    if path.exists() and revision is not None:
        raise RatingsError(f"Expected `revision` for hub data sets only, got one for {source}")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        opened = datasets.load_from_disk(str(path))
    elif path.exists():
        files = _parquet_files(path)
        opened = datasets.load_dataset("parquet", data_files=files, streaming=True)
    elif _HUB_ID.fullmatch(source):
        opened = _from_hub(source, revision, local_files_only)
    else:
        raise RatingsError(
            f"Expected `source` to be a hub id, a save_to_disk folder, Parquet files or a ratings "
            f"table, got {source!r}, which is not there"
        )
    parts = opened if isinstance(opened, dict) else {str(opened.split or UNNAMED_SPLIT): opened}
    named: dict[str, Any] = {}
    for name, part in parts.items():
        if split_name(name) in named:
            raise RatingsError(f"{source}: two splits are called {split_name(name)!r}")
        named[split_name(name)] = part
    first = [split for split in SPLIT_NAMES if split in named]  # the order that decides on repeats
    return {split: named[split] for split in dict.fromkeys([*first, *named])}


def _from_hub(source: str, revision: str | None, local_files_only: bool) -> Any:
    datasets = optional_module("datasets")
    options = datasets.DownloadConfig(local_files_only=local_files_only)
    try:
        return datasets.load_dataset(source, revision=revision, download_config=options)
    except OSError as error:  # not there, no network, not in the cache
        reason = " ".join(str(error).split())
        message = f"Expected `source` to be there or on the hub, got {source!r}: {reason}"
        raise RatingsError(message) from error


def fingerprint(source: str, revision: str | None) -> str:
    """Tell two contents of a source apart: by revision, or by names, sizes and times of files."""
    path = Path(source)
    if not path.exists():
        return f"{source} {revision}"
    files = sorted(one for one in [path, *path.rglob("*")] if one.is_file())
    states = [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    return f"{path.resolve()} {sha256(repr(states).encode()).hexdigest()}"


def split_name(name: str) -> str:
    """Return "train", "val" or "test" for whatever means that; other names as they are."""
    stem = re.split(r"[-_.]", name.lower())[0]
    return next((split for split, names in SPLIT_NAMES.items() if stem in names), name)


def _parquet_files(path: Path) -> dict[str, list[str]]:
    """Parquet files by split."""
    suffix = ".parquet"
    files = [path] if path.is_file() else sorted(path.rglob(f"*{suffix}"))
    found: dict[str, list[str]] = {}
    for file in files:
        name = split_name(file.stem) if file.suffix == suffix else ""
        found.setdefault(name if name in SPLIT_NAMES else UNNAMED_SPLIT, []).append(str(file))
    if not found or any(Path(file).suffix != suffix for file in found.get(UNNAMED_SPLIT, [])):
        raise RatingsError(f"Expected Parquet files or a save_to_disk folder, got {path}")
    return found
