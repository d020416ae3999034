"""Trained networks -> what FuScore and measures that no one trained on say of held-out scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from fuscore_metric import FuScore, predict
from fuscore_metric.colour import luma, recolour
from fuscore_training.proxy_ratings import Scene
from measures import HIGHER_IS_BETTER as CLASSIC
from measures import Pixels, classic, grey
from network import FusionNet
from scenes import Pair, read_pair
from skimage.measure import blur_effect

MEASURES = {"FuScore": True, "Qabf": True, "VIF": True, "SSIM": True, "EN": True, "SCD": True}
MEASURES |= {"Nabf": False, "blur effect": False}
"""Whether higher is better. All but FuScore were not trained on; the last needs no reference
(Crete et al. 2007, scikit-image)."""
if find_spec("pyiqa"):
    MEASURES["pyiqa PIQE"] = False


@torch.no_grad()
def fuse(network: FusionNet, pair: Pair) -> Pixels:
    """Fuse a whole scene as its user would store it: (H, W, 3) uint8."""
    ir, vis = (image[None].float() / 255 for image in pair)
    fused = recolour(network(ir, luma(vis)), vis)[0]
    return np.asarray((fused * 255).round().to(torch.uint8).movedim(0, -1).numpy())


def evaluate(
    networks: dict[str, FusionNet], scenes: Sequence[Scene], judge: FuScore
) -> pd.DataFrame:
    """One row a scene and network: all of `MEASURES`."""
    no_reference = _no_reference()
    rows = []
    for scene in scenes:
        pair = read_pair(scene)
        ir, vis = pair[0][0].numpy(), pair[1].movedim(0, -1).numpy()
        for name, network in networks.items():
            fused = fuse(network, pair)
            values = classic(ir, vis, fused)
            values["FuScore"] = predict(ir, vis, fused, model=judge).score.item()
            values["blur effect"] = float(blur_effect(grey(fused) / 255))
            values |= no_reference(ir, vis, fused)
            rows.append({"scene": scene.name, "network": name} | values)
    return pd.DataFrame(rows)[["scene", "network", *MEASURES]]


def _no_reference() -> Callable[[Pixels, Pixels, Pixels], dict[str, float]]:
    if "pyiqa PIQE" not in MEASURES:
        return lambda *_: {}
    from no_reference import NoReference

    return NoReference()


def summary(frame: pd.DataFrame, *, base: str, resamples: int = 2000) -> str:
    """Markdown: mean of each measure by network, and the paired change from `base`.

    Intervals are 95 % percentiles over resampled scenes.
    """
    means = frame.groupby("network", sort=False)[list(MEASURES)].mean()
    by_scene = {name: part.set_index("scene") for name, part in frame.groupby("network")}
    rng = np.random.default_rng(0)
    draws = rng.integers(len(by_scene[base]), size=(resamples, len(by_scene[base])))
    arrows = [f"{name} {'↑' if better else '↓'}" for name, better in MEASURES.items()]
    lines = ["| network | " + " | ".join(arrows) + " |", "|---" * (1 + len(arrows)) + "|"]
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


assert set(MEASURES) - {"FuScore", "blur effect", "pyiqa PIQE"} <= set(CLASSIC)
