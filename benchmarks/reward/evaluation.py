"""Fusions of held-out scenes -> what FuScore and measures that no one trained on say of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from skimage.measure import blur_effect
from torch import Tensor

from benchmarks.accuracy.triples import Pixels
from benchmarks.reward.network import FusionNet
from benchmarks.reward.scenes import Pair
from fuscore_metric import FuScore, measure, predict
from fuscore_metric.images.colour import luma, recolour
from fuscore_metric.measures import catalogue
from fuscore_metric.measures.grey import WHITE, luma_levels

CLASSIC = ("Qabf", "VIF", "SSIM", "EN", "SCD", "Nabf")
MEASURES = {
    "FuScore": True,
    **{name: catalogue.MEASURES[name].higher_is_better for name in CLASSIC},
    "blur effect": False,
}
"""Whether higher is better. All but FuScore were not trained on; the last needs no reference
(Crete et al. 2007, scikit-image)."""
if find_spec("pyiqa"):
    MEASURES["pyiqa PIQE"] = False

RESAMPLES = 2000


class Evaluation:
    """All of `MEASURES` for one fusion after another."""

    def __init__(self, model: FuScore) -> None:
        self.model = model
        self.no_reference: Callable[[Pixels, Pixels, Pixels], dict[str, float]] = lambda *_: {}
        if "pyiqa PIQE" in MEASURES:
            from benchmarks.accuracy.no_reference import NoReference

            self.no_reference = NoReference()

    def __call__(self, pair: Pair, fused: Pixels) -> dict[str, float]:
        """Measure one fusion (H, W, 3) of a source pair."""
        ir, vis = pair[0][0].numpy(), pair[1].movedim(0, -1).numpy()
        values = self.no_reference(ir, vis, fused)
        for name, value in measure(ir, vis, fused, names=CLASSIC, device="cpu").items():
            values[name] = value.item()
        values["FuScore"] = predict(ir, vis, fused, model=self.model).score.item()
        levels = luma_levels(torch.from_numpy(fused).movedim(-1, 0)[None] / WHITE)
        values["blur effect"] = float(blur_effect(levels[0, 0].numpy() / WHITE))
        return {name: values[name] for name in MEASURES}


@torch.no_grad()
def fuse(network: FusionNet, pair: Pair) -> Pixels:
    """Fuse a whole scene as its user would store it: (H, W, 3) uint8."""
    ir, vis = (image[None].float() / 255 for image in pair)
    return shown(network(ir, luma(vis)), vis)


def shown(fused: Tensor, vis: Tensor) -> Pixels:
    """(1, 1, H, W) luma in the colours of (1, 3, H, W) -> (H, W, 3) uint8."""
    pixels = (recolour(fused, vis)[0] * 255).round().to(torch.uint8)
    return np.asarray(pixels.movedim(0, -1).numpy())


def summary(frame: pd.DataFrame, *, base: str) -> str:
    """Markdown: mean of each measure by `variant`, and the paired change from `base`.

    Intervals are 95 % percentiles over resampled scenes.
    """
    means = frame.groupby("variant", sort=False)[list(MEASURES)].mean()
    by_scene = {name: part.set_index("scene") for name, part in frame.groupby("variant")}
    rng = np.random.default_rng(0)
    draws = rng.integers(len(by_scene[base]), size=(RESAMPLES, len(by_scene[base])))
    arrows = [f"{name} {'↑' if better else '↓'}" for name, better in MEASURES.items()]
    lines = ["| variant | " + " | ".join(arrows) + " |", "|---" * (1 + len(arrows)) + "|"]
    for name in means.index:
        cells = []
        for column in MEASURES:
            text = f"{means.loc[name, column]:.3f}"
            if name != base:
                change = (by_scene[name][column] - by_scene[base][column]).to_numpy()
                low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
                text += f" ({change.mean():+.3f} [{low:+.3f}, {high:+.3f}])"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
