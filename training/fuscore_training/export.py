"""A trained backbone -> a checkpoint directory with `fuscore.json`, which describes it."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuscore_metric.backbones.base import Backbone
from fuscore_metric.checkpoints.spec import FuScoreSpec
from fuscore_metric.model import FuScore
from fuscore_training.ratings import RatingsTable


def make_fuscore(
    backbone: Backbone,
    *,
    name: str,
    table: RatingsTable,
    base: list[dict[str, str]],
    data: list[str],
    metrics: dict[str, Any],
    training_pairs: list[str],
    temperature: float = 1.0,
) -> FuScore:
    """Join a trained backbone with the record of where it comes from.

    The label kind is the ratings table's: what was trained on proxy ratings is called that.
    """
    spec = FuScoreSpec(
        name=name,
        family=backbone.family,
        preprocessing=backbone.preprocessing,
        label_kind=table.label_kind,
        label_description=table.description,
        base=base,
        data=data,
        training_pairs=training_pairs,
        metrics=metrics,
        temperature=temperature,
        code_revision=code_revision(),
        created=datetime.now(timezone.utc).date().isoformat(),
    )
    return FuScore(backbone.eval(), spec)


def store_as(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Give all that a checkpoint stores another dtype, in place.

    `.to()` leaves the vision part and the statistics' constants in float32, which computing needs
    and storing does not: in float16 the file stays small.
    """
    for tensor in backbone.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.to(dtype)


def code_revision() -> str:
    """Commit of the checkout that this code runs from, with "+changes" if there are any."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
