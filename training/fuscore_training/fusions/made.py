"""Fusions with drawn parameters, good and bad: for scenes that no method's output exists for.

A fusion is put together from what published ones are made of: weights for the two sources, a rule
for details, a tone, and the visible image's colour. What is drawn decides how good it gets: weights
that change from pixel to pixel make blotches, too much detail halos, a tone darkness or haze.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fuscore_training.fusions.classic import Image, luma, recolour

METHOD = "made"
RULES = ("even", "contrast", "decision", "bright", "hot", "visible")


def make_fusion(ir: Image, vis: Image, rng: np.random.Generator) -> Image:
    """Fuse a source pair as a generator draws it.

    Args:
        ir: (H, W) or (H, W, 3) in [0, 1].
        vis: Likewise, of the same size.
        rng: Decides everything; the same one makes the same picture.

    Returns:
        As `vis` in shape, in [0, 1].
    """
    warm, grey = luma(ir), luma(vis)
    reach = float(np.exp(rng.uniform(np.log(1.5), np.log(0.06 * max(warm.shape)))))
    smooth_warm, smooth_grey = (ndimage.gaussian_filter(x, reach) for x in (warm, grey))
    weight = _weight(str(rng.choice(RULES)), warm, grey, reach, rng)
    base = weight * smooth_warm + (1 - weight) * smooth_grey
    fused = base + rng.uniform(0.4, 1.9) * _detail(warm - smooth_warm, grey - smooth_grey, rng)
    toned = _toned(np.clip(fused, 0, 1), rng)
    return recolour(toned, vis) if vis.ndim == 3 else toned


def _weight(
    rule: str, warm: Image, grey: Image, reach: float, rng: np.random.Generator
) -> Image | float:
    """Weight of the infrared's base, (H, W) or one for all, in [0, 1]."""
    share = float(rng.uniform(0.15, 0.85))
    if rule == "even":
        return share
    if rule == "visible":
        return 0.3 * share
    if rule == "bright":
        return np.asarray((warm > grey).astype(np.float64))
    if rule == "hot":
        above = (warm - warm.mean()) / max(float(warm.std()), 1e-3)
        return np.asarray(np.clip(ndimage.gaussian_filter(above, 2.0) * share, 0, 1))
    contrast = [ndimage.gaussian_filter(x**2, reach) for x in (_fine(warm), _fine(grey))]
    weight = contrast[0] / (contrast[0] + contrast[1] + 1e-6)
    return np.asarray((weight > 0.5).astype(np.float64)) if rule == "decision" else weight


def _fine(image: Image) -> Image:
    return np.asarray(image - ndimage.gaussian_filter(image, 2.0))


def _detail(warm: Image, grey: Image, rng: np.random.Generator) -> Image:
    """The stronger detail at each pixel, their sum, or one of the two alone."""
    rule = rng.choice(["stronger", "sum", "grey", "warm"], p=[0.55, 0.2, 0.15, 0.1])
    if rule == "stronger":
        return np.where(np.abs(warm) > np.abs(grey), warm, grey)
    return {"sum": (warm + grey) / 1.5, "grey": grey, "warm": warm}[str(rule)]


def _toned(image: Image, rng: np.random.Generator) -> Image:
    """As it is half of the time; else another gamma, contrast or softness."""
    if rng.random() < 0.5:
        return image
    tone = rng.choice(["gamma", "contrast", "soft"])
    if tone == "gamma":
        return np.asarray(image ** np.exp(rng.uniform(-0.6, 0.7)))
    if tone == "contrast":
        mean = image.mean()
        return np.asarray(np.clip(mean + rng.uniform(0.4, 1.8) * (image - mean), 0, 1))
    return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.6, 2.0)))
