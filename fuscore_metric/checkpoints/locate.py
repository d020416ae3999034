"""A name -> directories with weights: the embedded checkpoint, a directory or a hub id.

An adapter's checkpoint names its base model and the revision that it was trained on.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fuscore_metric.checkpoints.fields import MAX_NAME
from fuscore_metric.checkpoints.integrity import verify
from fuscore_metric.checkpoints.spec import (
    COMMIT,
    EMBEDDED,
    FINGERPRINT,
    FuScoreSpec,
    is_hub_id,
    read_spec,
)
from fuscore_metric.errors import CheckpointError

log = logging.getLogger(__name__)

MADE_BASE_FILE = "made_of.json"
"""What a base model that `fuscore-train base` made consists of, as `FuScoreSpec.base` says it."""
_MADE_BY = re.compile(r"[a-z0-9]+( --[a-z-]+( [0-9]+)?)*")
_BLOCK = 1 << 24


class Checkpoint(NamedTuple):
    """Where everything is that a score needs.

    Attributes:
        spec: What the weights are.
        weights: Directory with all weights: a checkpoint's own, or the base model's.
        adapter: Directory with an adapter for them, if there is one.
    """

    spec: FuScoreSpec
    weights: Path
    adapter: Path | None


def locate(
    name_or_path: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    base: bool = False,
) -> Path:
    """Find the directory of a checkpoint or base model, downloading it from the hub if need be.

    What is missing or cut there is refused before anything is loaded.

    Args:
        name_or_path: "embedded", a directory, or a hub id "owner/name".
        revision: Hub revision; a commit hash pins the score.
        local_files_only: Never download.
        base: Whether a plain model will do, without `fuscore.json`.

    Raises:
        CheckpointError: Nothing of that name can be found, or it is not whole.
    """
    if name_or_path == EMBEDDED:
        return Path(str(files("fuscore_metric") / "assets" / EMBEDDED))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        verify(path, spec=not base)
        return path
    if path.exists():
        raise CheckpointError(f"Expected a checkpoint directory, got the file {name_or_path!r}")
    return _from_hub(name_or_path, revision, local_files_only, base=base)


def _from_hub(name: str, revision: str | None, local_files_only: bool, *, base: bool) -> Path:
    if not is_hub_id(name):
        raise CheckpointError(
            f'Expected weights to be "{EMBEDDED}", a directory or a hub id, got {name!r}'
        )
    from fuscore_metric.checkpoints.hub import download

    return download(name, revision=revision, local_files_only=local_files_only, spec=not base)


def find_checkpoint(
    name_or_path: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    adapter_revision: str | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find a checkpoint, and the base model if it is an adapter.

    Args:
        name_or_path: A checkpoint as `locate` takes it; the base model, if `adapter` is given.
        revision: Its hub revision.
        adapter: An adapter's checkpoint, likewise, for a base model from elsewhere than it names.
        adapter_revision: The adapter's hub revision.
        local_files_only: Never download.

    Raises:
        CheckpointError: Something cannot be found, or is not the revision that was trained on.
    """
    if adapter is None:
        directory = locate(name_or_path, revision=revision, local_files_only=local_files_only)
        spec = read_spec(directory)
        if spec.weights != "adapter":
            return Checkpoint(spec, directory, None)
        downloaded = not Path(name_or_path).expanduser().is_dir()
        base = _pinned_base(spec, local_files_only, downloaded=downloaded)
        return Checkpoint(spec, base, directory)
    directory = locate(adapter, revision=adapter_revision, local_files_only=local_files_only)
    spec = read_spec(directory)
    if spec.weights != "adapter":
        raise CheckpointError(
            f"Expected `adapter` to be an adapter's checkpoint, got {spec.weights} weights in "
            f"{str(directory)!r}"
        )
    pinned = spec.base_revision if name_or_path == spec.base_model else ""
    here = replace(spec, base_model=name_or_path, base_revision=revision or pinned)
    return Checkpoint(spec, _given_base(here, spec, local_files_only), directory)


def fingerprint(directory: Path) -> str:
    """Identify the weights in a directory by their content: "sha256:...", over all safetensors.

    Raises:
        CheckpointError: There are none.
    """
    found = sorted(directory.glob("*.safetensors"))
    if not found:
        raise CheckpointError(f"Expected *.safetensors in {str(directory)!r}, none there")
    digest = sha256()
    for path in found:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return FINGERPRINT + digest.hexdigest()


def _pinned_base(spec: FuScoreSpec, local_files_only: bool, *, downloaded: bool = False) -> Path:
    """The base model that an adapter names, at its revision.

    An adapter from the hub cannot name a directory of this machine; a base model that is pinned by
    a commit comes from the hub, also where a directory has the same name.
    """
    if spec.base_revision.startswith(FINGERPRINT):
        path = Path(spec.base_model)
        if downloaded or not path.is_dir():
            raise CheckpointError(
                f"Expected the base model of {spec.name} in {spec.base_model!r}, not there: "
                f"{_how_to_make(spec)}give the directory of your copy, and this checkpoint as "
                "`adapter`"
            )
        _check_fingerprint(path, spec)
        return path
    if not COMMIT.fullmatch(spec.base_revision):
        raise CheckpointError(
            f"Expected `base_revision` of {spec.name} to be a commit hash, "
            f"got {spec.base_revision!r}: another commit may give other scores"
        )
    if spec.base_model == EMBEDDED:
        return locate(EMBEDDED, base=True)
    return _from_hub(spec.base_model, spec.base_revision, local_files_only, base=True)


def _how_to_make(spec: FuScoreSpec) -> str:
    """What to do first where the base model was put together from packages."""
    made = [fact["assembled_by"] for fact in spec.base if "assembled_by" in fact]
    if not (made and len(made[0]) < MAX_NAME and _MADE_BY.fullmatch(made[0])):
        return ""
    return (
        f"make it by `pip install 'fuscore-metric[bases]'` and `fuscore-train base {made[0]} --out "
        "DIR`, or "
    )


def _given_base(here: FuScoreSpec, trained: FuScoreSpec, local_files_only: bool) -> Path:
    """The base model that the user names, checked against the one trained on where that can be."""
    if here.base_model == trained.base_model and here.base_revision != trained.base_revision:
        raise CheckpointError(
            f"Expected revision {trained.base_revision} of {trained.base_model!r}, which "
            f"{trained.name} was trained on, got {here.base_revision}"
        )
    if Path(here.base_model).expanduser().is_dir():
        directory = locate(here.base_model, base=True)
        if trained.base_revision.startswith(FINGERPRINT):
            _check_fingerprint(directory, trained)
        else:
            log.warning(
                "Cannot tell whether %s is %s at %s, which %s was trained on",
                *(here.base_model, trained.base_model, trained.base_revision, trained.name),
            )
        return directory
    return _pinned_base(here, local_files_only)


def _check_fingerprint(directory: Path, spec: FuScoreSpec) -> None:
    if (found := fingerprint(directory)) != spec.base_revision:
        raise CheckpointError(
            f"Expected the base model that {spec.name} was trained on, {spec.base_revision}, in "
            f"{str(directory)!r}, got {found}"
        )
