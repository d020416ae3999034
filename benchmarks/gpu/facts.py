"""What the numbers depend on: card, drivers, versions, code."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks import REPOSITORY
from benchmarks.speed.clock import processor
from fuscore_metric import __version__
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.checkpoints.spec import read_spec

OPTIONAL = (
    *("accelerate", "bitsandbytes", "deepspeed", "numpy", "pandas", "peft", "pillow", "pyiqa"),
    *("scikit-image", "scipy", "torchmetrics", "torchvision", "triton"),
)
COMMIT = "FUSCORE_COMMIT"
"""Environment variable with the commit, where the code runs without its git folder."""


def facts(device: torch.device) -> dict[str, Any]:
    """Everything, by name."""
    import transformers

    return {
        "device": device.type,
        **(_card(device) if device.type == "cuda" else {}),
        "cpu": processor(),
        "cpu cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "packages": dict(_versions()),
        "system": platform.platform(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "fuscore": __version__,
        "weights": read_spec(locate("embedded")).name,
    }


def _card(device: torch.device) -> dict[str, Any]:
    card: Any = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "card": card.name,
        "compute capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory, GiB": round(card.total_memory / 2**30, 1),
        "driver": said(query).partition("\n")[0] or "unknown",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _versions() -> Sequence[tuple[str, str]]:
    found = []
    for name in OPTIONAL:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit, marked if the files are no longer those of it."""
    if given := os.environ.get(COMMIT):
        return given
    git = ["git", "-C", str(REPOSITORY)]
    found = said([*git, "rev-parse", "HEAD"])
    changed = said([*git, "status", "--porcelain", "--untracked-files=no"])
    return (found or "unknown") + (" with changes" if changed else "")


def said(command: Sequence[str]) -> str:
    """What a program prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
