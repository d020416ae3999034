"""A hub id -> a verified directory in the local cache, and a verified directory -> the hub.

Imported on demand: it needs `huggingface_hub`, which a local directory does not.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import tqdm

from fuscore_metric.checkpoints.hub_errors import FAILURES, HTTPError, explain
from fuscore_metric.checkpoints.integrity import (
    check_links,
    check_listing,
    has_content,
    pickles,
    verify,
)
from fuscore_metric.checkpoints.spec import COMMIT, SPEC_FILE, is_hub_id
from fuscore_metric.errors import CheckpointError

HUB_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What is downloaded: never pickles, never code."""
_SUBFOLDERS = ["*/*"]  # a checkpoint is flat; `*` of the patterns above would match a slash
_WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json", "adapter_config.json"]

_log = logging.getLogger(__name__)


def download(
    hub_id: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    spec: bool = True,
) -> Path:
    """Bring a checkpoint into huggingface_hub's cache, if it is not there, and check it.

    `HF_HUB_OFFLINE=1` never asks the hub. If the hub is asked and does not answer, a cached
    snapshot is used with a warning that names its commit. What was downloaded now is compared
    with the hub's hashes, once. Files that were finished before a failure are kept. Progress bars
    are shown on terminals only; HF_HUB_DISABLE_PROGRESS_BARS decides over this.

    Args:
        hub_id: "owner/name".
        revision: Branch, tag or full commit hash; the main branch by default.
        local_files_only: Use the cache only.
        spec: Whether `fuscore.json` must be there; a base model has none.

    Returns:
        The snapshot's directory, named by the full commit hash.

    Raises:
        CheckpointError: It cannot be downloaded whole; the message says why and what to do.
    """
    options: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": HUB_PATTERNS,
        "ignore_patterns": _SUBFOLDERS,
        "tqdm_class": _bars(),
    }
    with _explained(hub_id, revision), _hashes_checked(hub_id):
        if local_files_only or constants.is_offline_mode():
            folder = Path(snapshot_download(hub_id, local_files_only=True, **options))
            _log.info("Using the cached commit %s of %s", folder.name, hub_id)
        elif _is_cached_commit(hub_id, revision, SPEC_FILE if spec else "config.json"):
            folder = Path(snapshot_download(hub_id, **options))
        else:
            folder = _from_hub(hub_id, spec, options)
    verify(folder, hub_id=hub_id, spec=spec)
    return folder


def upload(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload a FuScore checkpoint",
) -> str:
    """Put a checkpoint (full, merged or adapter alone) on the hub, in one commit.

    Its weights take the place of those that the repository had, so that an adapter is never mixed
    with the full weights of an earlier upload. Of other files only `README.md` goes along;
    subdirectories stay here.

    Args:
        directory: A checkpoint directory.
        repo_id: "owner/name"; made if it does not exist.
        private: Whether a new repository is private; an existing one stays as it is.
        revision: Branch to write to, made from the main branch if it does not exist.
        token: Access token; by default that of `hf auth login` or HF_TOKEN.
        commit_message: First line of the commit.

    Returns:
        The full hash of the commit, for `revision` of `FuScore.from_pretrained`.

    Raises:
        CheckpointError: The directory is not whole or holds pickles, or the hub refuses; the
            message says why and what to do.
    """
    directory = Path(directory)
    _check_uploadable(directory, repo_id)
    api = HfApi(token=token)
    with _explained(repo_id, revision, upload=True):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=[*HUB_PATTERNS, "README.md"],
            ignore_patterns=list(_SUBFOLDERS),  # the library appends to it
            delete_patterns=_WEIGHT_FILES,
        )
    return commit.oid


def _check_uploadable(directory: Path, repo_id: str) -> None:
    if not is_hub_id(repo_id):
        raise CheckpointError(f'Expected a hub id "owner/name" to upload to, got {repo_id!r}')
    if not directory.is_dir():
        raise CheckpointError(f"Expected a checkpoint directory to upload, got {str(directory)!r}")
    if found := pickles([path.name for path in directory.iterdir()]):
        raise CheckpointError(
            f"Expected no pickles in {str(directory)!r}, got {', '.join(found)}: "
            "they can run code and are never uploaded; move them away"
        )
    check_links(directory)
    verify(directory)


def _from_hub(hub_id: str, spec: bool, options: dict[str, Any]) -> Path:
    try:
        # Asked here, too: snapshot_download falls back to the cache without a word.
        info = HfApi().model_info(
            hub_id, revision=options["revision"], timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except (RevisionNotFoundError, HFValidationError):
        raise
    except HTTPError as error:
        return _fall_back(hub_id, error, options)
    check_listing(hub_id, [file.rfilename for file in info.siblings or []], spec=spec)
    folder = Path(snapshot_download(hub_id, **options))
    if folder.name != info.sha:
        _log.warning("Using commit %s of %s, though the hub has %s", folder.name, hub_id, info.sha)
    return folder


def _fall_back(hub_id: str, error: Exception, options: dict[str, Any]) -> Path:
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        raise error from None
    _log.warning(
        "Using the cached commit %s of %s, which may be older than the hub's. %s",
        folder.name,
        hub_id,
        explain(error, hub_id, options["revision"]),
    )
    return folder


def _is_cached_commit(hub_id: str, revision: str | None, filename: str) -> bool:
    """Whether a full commit hash was asked for, and is here: then nothing newer can exist."""
    if revision is None or not COMMIT.fullmatch(revision):
        return False
    return isinstance(try_to_load_from_cache(hub_id, filename, revision=revision), str)


@contextmanager
def _hashes_checked(hub_id: str) -> Iterator[None]:
    """Remove and refuse what comes damaged: the library compares sizes only.

    Files are checked also when another one fails: those that are kept are not downloaded again.
    """
    before = _blobs(hub_id)
    damaged = []
    try:
        yield
    finally:
        for blob in sorted(_blobs(hub_id) - before):
            if has_content(blob, blob.name) is False:
                blob.resolve().unlink()
                damaged.append(blob.name)
    if damaged:
        raise CheckpointError(
            f"Part of {hub_id!r} came damaged and was deleted, load again: the hub gives its hash "
            f"as {', '.join(damaged)}"
        )


def _blobs(hub_id: str) -> set[Path]:
    """Files of a repository that are in the cache, by any name; their own names are hashes."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    blobs = folder / "blobs"
    return set(blobs.iterdir()) if blobs.is_dir() else set()


class _NoBars(tqdm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


def _bars() -> type[tqdm]:
    forced = constants.HF_HUB_DISABLE_PROGRESS_BARS is False
    return tqdm if sys.stderr.isatty() or forced else _NoBars


@contextmanager
def _explained(hub_id: str, revision: str | None, *, upload: bool = False) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except FAILURES as error:
        raise CheckpointError(explain(error, hub_id, revision, upload=upload)) from error
