"""Checkpoints -> backbones with their description, and back: what `FuScore` loads and saves."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError

from fuscore_metric.backbones import backbone_class
from fuscore_metric.backbones.base import INT8, Backbone
from fuscore_metric.checkpoints.locate import find_checkpoint
from fuscore_metric.checkpoints.spec import FuScoreSpec, replace_checkpoint
from fuscore_metric.compute.forking import outlast_fork
from fuscore_metric.compute.own_terms import own_terms
from fuscore_metric.compute.placement import check_device, choose_dtype, default_device
from fuscore_metric.errors import CheckpointError

# What readers of files, of JSON and of state dicts raise at damaged or foreign weights.
_LOADING_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError)


def load(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    adapter: str | Path | None = None,
    adapter_revision: str | None = None,
    device: str | int | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
    local_files_only: bool = False,
) -> tuple[Backbone, FuScoreSpec]:
    """Load weights; the arguments and errors are those of `FuScore.from_pretrained`."""
    if device is not None and device_map is not None:
        raise ValueError("Expected one of `device` and `device_map`, got both")
    outlast_fork()
    found = find_checkpoint(
        str(name_or_path),
        revision=revision,
        adapter=None if adapter is None else str(adapter),
        adapter_revision=adapter_revision,
        local_files_only=local_files_only,
    )
    family = backbone_class(found.spec.family)
    if device is None:
        device = "cpu" if quantize == INT8 else default_device()
    place = check_device(device)
    on_cpu = place.type == "cpu" and (device_map is None or not torch.cuda.is_available())
    dtype = choose_dtype(dtype, family, on_cpu=on_cpu)
    family.check_options(device_map=device_map, quantize=quantize)
    if quantize == INT8 and not (on_cpu and device_map is None):
        raise ValueError("Expected `quantize='int8'` on a CPU; '8bit' is for GPUs")
    if quantize not in (None, INT8) and device_map is None:
        device_map = {"": str(place)}  # quantised weights are made where they stay
    try:
        with own_terms():
            backbone = family.load(
                found.weights,
                found.spec.preprocessing,
                dtype=dtype,
                device_map=device_map,
                quantize=quantize,
            )
            if found.adapter is not None:
                backbone.add_adapter(found.adapter)
            if quantize == INT8:
                backbone.quantize_linear()
    except (CheckpointError, torch.OutOfMemoryError, ImportError):
        raise
    except _LOADING_ERRORS as error:
        raise CheckpointError(
            f"Cannot load the weights in {str(found.weights)!r}: {' '.join(str(error).split())}"
        ) from error
    return backbone.to(place) if device_map is None else backbone, found.spec


def save(backbone: Backbone, spec: FuScoreSpec, directory: Path) -> None:
    """Write a checkpoint; an earlier one in the directory is replaced once all is written.

    Raises:
        ValueError: The weights are quantised.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=directory, prefix=".saving-") as folder:
        backbone.save(Path(folder))
        spec.save(Path(folder))
        replace_checkpoint(Path(folder), directory)


def push(
    backbone: Backbone,
    spec: FuScoreSpec,
    repo_id: str,
    card: str,
    *,
    private: bool,
    revision: str | None,
    token: str | None,
) -> str:
    """Upload a checkpoint; the arguments and errors are those of `FuScore.push_to_hub`."""
    from fuscore_metric.checkpoints.hub import upload

    with TemporaryDirectory() as folder:
        save(backbone, spec, Path(folder))
        (Path(folder) / "README.md").write_text(card or spec.short_card(repo_id))
        return upload(Path(folder), repo_id, private=private, revision=revision, token=token)


def weights_name(model: str | Path) -> str:
    """The name of weights that are to be loaded.

    Raises:
        TypeError: It is neither a name nor a path.
    """
    if not isinstance(model, (str, Path)):
        raise TypeError(
            "Expected `model` as a FuScore, or as a name or path of weights, "
            f"got {type(model).__name__}"
        )
    return str(model)
