"""Logs and networks -> curves and before/after pictures (PNG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from benchmarks.reward.evaluation import fuse
from benchmarks.reward.network import FusionNet
from benchmarks.reward.scenes import Pair

mpl.use("agg")
CURVES = {
    "score": "FuScore of the training batch",
    "usual": "usual loss",
    "charge": "charge of the trust region (points)",
}
SMOOTH = 5
"""Logged steps that a point of a curve averages."""


def draw_curves(log: pd.DataFrame, path: Path) -> None:
    """One panel a quantity, one line a variant."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(13, 3.8), layout="constrained")
    for axis, (column, title) in zip(axes, CURVES.items(), strict=True):
        for variant, part in log.groupby("variant", sort=False):
            smooth = part[column].rolling(SMOOTH, min_periods=1).mean()
            axis.plot(part["step"], smooth, label=variant)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_pictures(
    networks: dict[str, FusionNet], pairs: Sequence[tuple[str, Pair]], path: Path
) -> None:
    """One row per scene: ir, vis, and what each network makes of them."""
    titles = ["ir", "vis", *networks]
    figure, axes = plt.subplots(
        len(pairs),
        len(titles),
        figsize=(3 * len(titles), 2.5 * len(pairs)),
        squeeze=False,
        layout="constrained",
    )
    for row, (scene, pair) in zip(axes, pairs, strict=True):
        sources = [np.repeat(pair[0].numpy(), 3, axis=0), pair[1].numpy()]
        shown = [np.moveaxis(source, 0, -1) for source in sources]
        shown += [fuse(network, pair) for network in networks.values()]
        for axis, picture, title in zip(row, shown, titles, strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(scene, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
