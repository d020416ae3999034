"""`fuscore info` and `fuscore merge`: what weights are, and an adapter and its base made one."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fuscore_metric.cli.shared.console import make_console
from fuscore_metric.cli.shared.options import Model, Revision
from fuscore_metric.cli.shared.start_up import start_up
from fuscore_metric.compute.placement import choose_dtype
from fuscore_metric.errors import CheckpointError

if TYPE_CHECKING:
    from fuscore_metric.checkpoints.spec import FuScoreSpec
    from fuscore_metric.model import FuScore

EXTRAS = {
    "report": ("jinja2", "matplotlib", "pandas", "pyarrow", "scipy"),
    "ray": ("ray",),
    "large": ("accelerate", "peft"),
    "torchmetrics": ("torchmetrics",),
    "pyiqa": ("pyiqa",),
    "train": ("datasets", "imagehash", "choix", "tensorboard", "pyyaml"),
    "demo": ("gradio", "jinja2", "pyyaml"),
    "bases": ("gguf", "onnx"),
}
"""What the extras for users add; pyproject.toml has it too, with the extras that they include."""

QUICKLY_READ = 2_000_000_000
"""Bytes of weights that are hashed without being asked: a second or two."""


def info(
    model: Model = "embedded",
    revision: Revision = None,
    devices: Annotated[
        bool,
        typer.Option(
            "--devices",
            help="Try which devices PyTorch can use here; it takes a second or two to import.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare a download's files with the hub's hashes, and hash weights of any size; "
            "slow.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show where the weights come from, what kind of labels they learned, and all versions.

    \b
    Examples:
      fuscore info
      fuscore info --devices --json
      fuscore info --model owner/name --revision COMMIT --verify
    """  # noqa: D301 - \b keeps the lines of a paragraph
    from fuscore_metric.checkpoints.locate import locate
    from fuscore_metric.checkpoints.spec import read_spec

    directory = locate(model, revision=revision)
    spec = read_spec(directory)
    facts = {
        "directory": str(directory),
        **asdict(spec),
        "labels": spec.label_statement(),
        "weights_hash": _hash(directory, spec, any_size=verify),
        "versions": _versions(),
        "extras": {extra: _installed(packages) for extra, packages in EXTRAS.items()},
        "cpu": {"cores": _cores(), "machine": platform.machine()},
    }
    if devices:
        facts["devices"] = _devices(spec)
    if verify:
        from fuscore_metric.checkpoints.integrity import verify_content

        facts["verified"] = verify_content(directory) or "no hashes are known of these files"
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _show(facts, spec)


def _hash(directory: Path, spec: FuScoreSpec, *, any_size: bool) -> str | None:
    """As a run's settings have it, but of an adapter alone: its base model may not be here."""
    from fuscore_metric.checkpoints.locate import fingerprint

    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    return fingerprint(directory) if any_size or size <= QUICKLY_READ else None


def _versions() -> dict[str, str]:
    from fuscore_metric.results.settings import versions

    return versions()


def _installed(packages: tuple[str, ...]) -> dict[str, str | None]:
    """The version of each package; None where it is missing."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _devices(spec: FuScoreSpec) -> dict[str, Any]:
    """What PyTorch can compute on, and the dtype that these weights get there unasked."""
    import torch

    from fuscore_metric.backbones import backbone_class
    from fuscore_metric.compute.placement import choose_dtype

    family = backbone_class(spec.family)

    def one(name: str, *, on_cpu: bool = False) -> dict[str, str]:
        dtype = choose_dtype(None, family, on_cpu=on_cpu)
        return {"name": name, "dtype": str(dtype).removeprefix("torch.")}

    found = {"cpu": one(f"{torch.get_num_threads()} threads", on_cpu=True)}
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = one(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found["mps"] = one(platform.processor())
    return found


def _show(facts: dict[str, Any], spec: FuScoreSpec) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    first = dict.fromkeys(("name", "labels"))
    shown = first | {key: value for key, value in facts.items() if key != "label_kind"}
    shown |= {
        "labels": f"{spec.label_kind}: {spec.label_statement()}",
        "training_pairs": f"{len(spec.training_pairs)} hashes" if spec.training_pairs else "",
        "metrics": _measured(spec.metrics),
        "weights_hash": facts["weights_hash"] or "not computed: a large file; --verify does",
        "extras": [_extra(*item) for item in facts["extras"].items()],
        "cpu": f"{facts['cpu']['cores']} cores, {facts['cpu']['machine']}",
        "devices": facts.get("devices", "not tried, which takes some seconds; --devices does"),
    }
    for name, value in shown.items():
        if value not in ("", []):
            table.add_row(name.replace("_", " "), _text(value))
    make_console().print(table, markup=False)


def _measured(metrics: dict[str, Any]) -> list[str]:
    """The rank correlations among the results; the whole is long, and in the JSON."""
    found = []
    for name, result in metrics.items():
        srcc = result.get("srcc") if isinstance(result, dict) else None
        value = srcc.get("value") if isinstance(srcc, dict) else None
        if isinstance(value, (int, float)):  # anybody may have written the file
            found.append(f"{name.replace('_', ' ')}: SRCC {value:.3f}")
    return [*found, "all of them: --json"] if metrics else found


def _extra(extra: str, packages: dict[str, str | None]) -> str:
    missing = [package for package, found in packages.items() if found is None]
    if missing:
        return f"{extra} without {', '.join(missing)}"
    return f"{extra} ({', '.join(f'{name} {found}' for name, found in packages.items())})"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_text(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def merge(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    revision: Revision = None,
    base: Annotated[
        str | None,
        typer.Option(help="The base model's directory or hub id, if it is not where it was."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the merged weights: float32 or bfloat16. Merging is in float32.")
    ] = "bfloat16",
) -> None:
    """Add an adapter to its base model's weights: one checkpoint that needs no peft.

    Example: fuscore merge --model owner/adapter --out merged/
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"Expected `out` not to exist or to be empty, got {str(out)!r}")
    with start_up():
        loaded = _load(model, revision, base)
    if loaded.backbone.adapter is None:
        raise CheckpointError(
            f"Expected an adapter's checkpoint to merge, got {loaded.spec.weights} weights"
        )
    chosen = choose_dtype(dtype, type(loaded.backbone), on_cpu=True)
    loaded.merge().to(chosen).save_pretrained(out)
    Console(highlight=False).print(f"{out}: {loaded.spec.name}, merged", markup=False)


def _load(name: str, revision: str | None, base: str | None) -> FuScore:
    from fuscore_metric.model import FuScore

    if base is None:
        return FuScore.from_pretrained(name, revision=revision, dtype="float32")
    return FuScore.from_pretrained(base, adapter=name, adapter_revision=revision, dtype="float32")
