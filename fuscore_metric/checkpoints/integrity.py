"""Is a checkpoint directory whole? Asked between finding and loading it, and before uploading."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fuscore_metric.checkpoints.spec import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SPEC_FILE
from fuscore_metric.checkpoints.strict_json import read_json, short, walk
from fuscore_metric.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
"""Endings of files that can run code when they are read; they are never read here."""
_PICKLED = (b"PK\3\4", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
"""How what `torch.save` and `pickle.dump` write begins: a zip archive, a protocol's number."""
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_TEXTS = (".json", ".jinja", "merges.txt")  # what libraries read whole
MAX_TEXT_BYTES = 64_000_000  # the tokenizers of the large families have some 10 MB

OWN_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Keys of transformers that name code to run."""
OTHER_LOADING = ("transformers_weights", "quantization_config")
"""Keys that have transformers read other files or quantise: scores would be another model's."""
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Keys whose values may be hub ids of compiled code."""
_SHARD = re.compile(r"[A-Za-z0-9_.-]+\.safetensors")
_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_CHUNK = 1 << 22  # bytes hashed at a time


def verify(directory: Path, *, hub_id: str | None = None, spec: bool = True) -> None:
    """Check that no file is missing or cut, reading no more of the weights than their headers.

    Also that nothing in it asks for code of its own to be run, or for files elsewhere: pickles,
    Python files named by a configuration, shards outside. (Symbolic links are followed: weights
    often lie on another disk, and a file is only read here. `check_links` is for uploads.) The
    directory itself is checked, not its subdirectories. Damage that keeps a file's size passes;
    `verify_content` finds it.

    Args:
        directory: A checkpoint: `fuscore.json` and either `model.safetensors`, the shards listed
            in `model.safetensors.index.json`, or an adapter.
        hub_id: The hub id that the directory was downloaded for; shapes the advice in errors.
        spec: Whether `fuscore.json` must be there; a base model has none.

    Raises:
        CheckpointError: Something is missing, damaged or not to be trusted; the message names the
            file and says what to do.
    """
    if spec and not (directory / SPEC_FILE).is_file():
        raise CheckpointError(_no_spec(directory, hub_id))
    for path in sorted(path for path in directory.iterdir() if path.name.endswith(_TEXTS)):
        if not (path.is_file() and path.stat().st_size <= MAX_TEXT_BYTES):
            raise CheckpointError(f"Expected {path} to be a file of up to {MAX_TEXT_BYTES} bytes")
    for path in sorted(directory.glob("*.json")):
        content = _json(path)
        if not isinstance(content, (dict, list)):
            raise CheckpointError(
                f"{path} is cut or damaged, it holds no JSON: {_again(path, hub_id)}"
            )
        if path.name.endswith("config.json"):
            _check_asks_for_nothing(path, content)
    _check_weights(directory, hub_id)
    for path in sorted(directory.glob("*.safetensors")):
        if damage := _damage(path):
            raise CheckpointError(f"{path} {damage}: {_again(path, hub_id)}")


def check_links(directory: Path) -> None:
    """Refuse links out of a directory that is to be sent away: a link may lead to a secret.

    Links to the blobs of the hub's cache are good: the hub has sent them.

    Raises:
        CheckpointError: There is such a link; the message names it.
    """
    home = directory.resolve()
    blobs = home.parent.parent / "blobs"
    for path in sorted(directory.iterdir()):
        target = Path(os.path.realpath(path))
        from_cache = home.parent.name == "snapshots" and target.parent == blobs
        if target.parent != home and not from_cache:
            raise CheckpointError(
                f"{path} is a link out of the checkpoint, to {short(str(target))}: "
                "copy the file into the directory"
            )


def verify_content(directory: Path) -> list[str]:
    """Compare every file of a downloaded checkpoint with its hash; reads them all.

    The hub's cache names a file by the hash that the hub gave for it. Elsewhere, and in caches
    without symbolic links, no hash is known.

    Returns:
        Names of the files that were compared.

    Raises:
        CheckpointError: A file is not what the hub has; the message says what to do.
    """
    compared = []
    for path in sorted(path for path in directory.iterdir() if path.is_symlink()):
        same = has_content(path, os.path.basename(os.readlink(path)))
        if same is False:
            raise CheckpointError(f"{path} is not what the hub has: {_again(path, 'hub')}")
        if same:
            compared.append(path.name)
    return compared


def has_content(path: Path, name: str) -> bool | None:
    """Whether a file's content has the hash that the hub's cache has named it by.

    Args:
        path: The file.
        name: SHA-256 for large files, the SHA-1 that git gives a blob for others, in hex.

    Returns:
        None if the name is no hash or the file is not there.
    """
    if not _HASH.fullmatch(name) or not path.is_file():
        return None
    digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(name) == 40:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == name


def pickles(names: list[str]) -> list[str]:
    """Those of some file names that end like pickles."""
    return sorted(name for name in names if name.lower().endswith(PICKLES))


def check_listing(hub_id: str, names: list[str], *, spec: bool = True) -> None:
    """Refuse a repository by the names of its files, before gigabytes of it are downloaded.

    Raises:
        CheckpointError: It has no `fuscore.json`, or weights as pickles only.
    """
    if spec and SPEC_FILE not in names:
        raise CheckpointError(_no_spec(None, hub_id))
    if not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(_no_weights(repr(hub_id), names))


def _check_weights(directory: Path, hub_id: str | None) -> None:
    names = [path.name for path in directory.iterdir()]
    advice = _incomplete(hub_id)
    for name in _expected_weights(directory, names, advice):
        if not (directory / name).is_file():
            if (pickle := Path(name).with_suffix(".bin").name) in names:
                raise CheckpointError(_pickles_only(name, str(directory), [pickle]))
            raise CheckpointError(f"{directory} lacks {name}: {advice}")


def _check_asks_for_nothing(path: Path, content: Any) -> None:
    """Refuse a configuration that wants more than the numbers of a known architecture."""
    for key, value in walk(content):
        if key in OWN_CODE and value:
            raise CheckpointError(
                f"{path} asks for code of its own to be run (`{key}`), which is never done: "
                "remove the key if the weights need none"
            )
        if key in OTHER_LOADING and value:
            raise CheckpointError(
                f"{path} asks for another way of loading (`{key}`), which would give other scores: "
                "give plain weights in float32, bfloat16 or float16"
            )
        if key in KERNELS and "/" in str(value):  # one for all parts, or by part
            raise CheckpointError(
                f"{path} asks for compiled code from the hub (`{key}`: {short(value)}), which is "
                "never loaded: remove the key"
            )


def _expected_weights(directory: Path, names: list[str], advice: str) -> list[str]:
    """The files that the directory's other files require."""
    if WEIGHTS in names:  # transformers prefers it to shards, too
        return [WEIGHTS]
    if INDEX in names:
        return _shards(directory / INDEX)
    if ADAPTER_CONFIG in names or ADAPTER_WEIGHTS in names:
        return [ADAPTER_WEIGHTS, ADAPTER_CONFIG]
    raise CheckpointError(_no_weights(str(directory), names, f": {advice}"))


def _shards(index: Path) -> list[str]:
    content = _json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    names = list(places.values()) if isinstance(places, dict) else []
    if not names:
        raise CheckpointError(f"Expected `weight_map` in {index} to name the files of the weights")
    for name in names:
        if not (isinstance(name, str) and _SHARD.fullmatch(name)):
            raise CheckpointError(
                f"Expected `weight_map` in {index} to name safetensors files beside it, "
                f"got {short(name)}"
            )
    return sorted(set(names))


def _damage(path: Path) -> str:
    """What is wrong with a safetensors file, or nothing."""
    try:
        with safe_open(path, framework="np"):  # reads the header and compares sizes
            return ""
    except (SafetensorError, OSError) as error:
        size, expected = path.stat().st_size, _promised_size(path)
        if _looks_like_a_pickle(path):
            return "looks like a pickle, which can run code and is never loaded"
        if expected is None:
            return "has no readable header, it is cut or damaged"
        if size != expected:
            return f"is {size} of {expected} bytes, it is cut or damaged"
        return f"is damaged ({' '.join(str(error).split())})"


def _looks_like_a_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(8)  # of safetensors the length of the header, which has such values, too
    return start.startswith(_PICKLED) and int.from_bytes(start, "little") > _LONGEST_HEADER


def _promised_size(path: Path) -> int | None:
    """The size that the header of a safetensors file implies: 8 + header + last tensor's end."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= path.stat().st_size:
                return None
            header = json.loads(file.read(length))
        ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _json(path: Path) -> Any:
    try:
        return read_json(path, limit=MAX_TEXT_BYTES, unique_keys=False)
    except PermissionError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}") from error
    except (OSError, ValueError):
        return None


def _again(path: Path, hub_id: str | None) -> str:
    if hub_id is None:
        return "copy or save it again"
    # Deleting the snapshot's link would not help: the cache would link the damaged blob again.
    return f"delete {path.resolve()} and load again"


def _incomplete(hub_id: str | None) -> str:
    if hub_id is None:
        return "copy or save the checkpoint again"
    return (
        "load again with a connection; if it stays away, the repository itself is incomplete: "
        "tell its owner or choose another revision"
    )


def _no_spec(directory: Path | None, hub_id: str | None) -> str:
    if hub_id is None:
        return f"Expected a checkpoint with {SPEC_FILE}, none in {str(directory)!r}"
    return (
        f"Expected {hub_id!r} to be a FuScore checkpoint, it has no {SPEC_FILE}: "
        "give the id of fine-tuned weights, not of their base model"
    )


def _no_weights(where: str, names: list[str], advice: str = "") -> str:
    if found := pickles(names):
        return _pickles_only("weights as safetensors", where, found)
    return f"Expected {WEIGHTS}, {INDEX} or {ADAPTER_WEIGHTS} in {where}, none is there{advice}"


def _pickles_only(expected: str, where: str, found: list[str]) -> str:
    return (
        f"Expected {expected} in {where}, got {', '.join(found)}: pickles can run code "
        "and are never loaded; convert them to safetensors first"
    )
