"""Fusions of held-out scenes -> what FuScore and measures that no one trained on say of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from measures import Pixels, classic, grey
from network import FusionNet
from scenes import Pair
from skimage.measure import blur_effect
from torch import Tensor

from fuscore_metric import FuScore, predict
from fuscore_metric.colour import luma, recolour

MEASURES = {"FuScore": True, "Qabf": True, "VIF": True, "SSIM": True, "EN": True, "SCD": True}
MEASURES |= {"Nabf": False, "blur effect": False}
"""Whether higher is better. All but FuScore were not trained on; the last needs no reference
(Crete et al. 2007, scikit-image)."""
if find_spec("pyiqa"):
    MEASURES["pyiqa PIQE"] = False


class Evaluation:
    """All of `MEASURES` for one fusion after another."""

    def __init__(self, judge: FuScore) -> None:
        self.judge = judge
        self.no_reference: Callable[[Pixels, Pixels, Pixels], dict[str, float]] = lambda *_: {}
        if "pyiqa PIQE" in MEASURES:
            from no_reference import NoReference

            self.no_reference = NoReference()

    def __call__(self, pair: Pair, fused: Pixels) -> dict[str, float]:
        """Measure one fusion (H, W, 3) of a source pair."""
        ir, vis = pair[0][0].numpy(), pair[1].movedim(0, -1).numpy()
        values = classic(ir, vis, fused) | self.no_reference(ir, vis, fused)
        values["FuScore"] = predict(ir, vis, fused, model=self.judge).score.item()
        values["blur effect"] = float(blur_effect(grey(fused) / 255))
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


def summary(frame: pd.DataFrame, *, base: str, resamples: int = 2000) -> str:
    """Markdown: mean of each measure by `variant`, and the paired change from `base`.

    Intervals are 95 % percentiles over resampled scenes.
    """
    means = frame.groupby("variant", sort=False)[list(MEASURES)].mean()
    by_scene = {name: part.set_index("scene") for name, part in frame.groupby("variant")}
    rng = np.random.default_rng(0)
    draws = rng.integers(len(by_scene[base]), size=(resamples, len(by_scene[base])))
    arrows = [f"{name} {'↑' if better else '↓'}" for name, better in MEASURES.items()]
    lines = ["| variant | " + " | ".join(arrows) + " |", "|---" * (1 + len(arrows)) + "|"]
    for name in means.index:
        cells = []
        for measure in MEASURES:
            text = f"{means.loc[name, measure]:.3f}"
            if name != base:
                change = (by_scene[name][measure] - by_scene[base][measure]).to_numpy()
                low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
                text += f" ({change.mean():+.3f} [{low:+.3f}, {high:+.3f}])"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
