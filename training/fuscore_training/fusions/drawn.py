"""Fusions put together from more parts than `made_fusions`: closer to what published methods do.

Each source is cut into bands of detail and a base, in one of four ways; every band and the base has
a rule of its own. Some pictures then get what networks and decision maps leave behind: softness, a
grid, grain, ringing, haze, a pale or grey colour, sources that do not lie on each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from fuscore_training.fusions import made as made_fusions
from fuscore_training.fusions.classic import Image, luma, recolour

BAND_RULES = {
    "stronger": 0.35,
    "energy": 0.2,
    "weighted": 0.15,
    "sum": 0.12,
    "grey": 0.1,
    "warm": 0.08,
}
BASE_RULES = {
    "share": 0.25,
    "salient": 0.2,
    "lift": 0.15,
    "brighter": 0.12,
    "spread": 0.1,
    "warm": 0.09,
    "blocks": 0.09,
}
FLAWS = ("soft", "grid", "grain", "ringing", "haze", "shifted", "crushed")
FLAWED = 0.3
"""Share of pictures with one of `FLAWS`."""


def draw_fusion(ir: Image, vis: Image, rng: np.random.Generator) -> Image:
    """Fuse a source pair as a generator draws it.

    Args:
        ir: (H, W) or (H, W, 3) in [0, 1].
        vis: Likewise, of the same size.
        rng: Decides everything; the same one makes the same picture.

    Returns:
        (H, W, 3) in [0, 1] where `vis` has colour and the picture keeps it, else (H, W).
    """
    warm, grey = luma(ir), luma(vis)
    flaw = str(rng.choice(FLAWS)) if rng.random() < FLAWED else ""
    if flaw == "shifted":
        warm = np.asarray(ndimage.shift(warm, rng.normal(0, 2.5, 2), order=1, mode="nearest"))
    split = SPLITS[str(rng.choice(list(SPLITS)))]
    octaves = int(rng.integers(2, 6))
    bands = list(zip(split(warm, octaves), split(grey, octaves), strict=True))
    fused = _base(_drawn(BASE_RULES, rng), *bands.pop(), rng)
    rule, gain = _drawn(BAND_RULES, rng), float(np.exp(rng.normal(0.05, 0.25)))
    for one, other in bands:
        if rng.random() < 0.2:
            rule = _drawn(BAND_RULES, rng)
        fused = fused + gain * np.exp(rng.normal(0, 0.12)) * _band(rule, one, other, rng)
    toned = np.clip(_toned(_flawed(flaw, np.clip(fused, 0, 1), rng), rng), 0, 1)
    return _coloured(toned, vis, rng)


def _drawn(chances: dict[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(chances), p=list(chances.values())))


def _gaussian(image: Image, sigma: float) -> Image:
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest"))


def _guided(image: Image, radius: float, floor: float = 4e-3) -> Image:
    """Smooth, but not across edges: He, Sun and Tang's guided filter with itself as the guide."""
    mean = _gaussian(image, radius)
    variance = _gaussian(image**2, radius) - mean**2
    slope = variance / (variance + floor)
    return _gaussian(slope, radius) * image + _gaussian((1 - slope) * mean, radius)


def _median(image: Image, radius: float) -> Image:
    return np.asarray(ndimage.median_filter(image, size=2 * min(4, round(radius)) + 1))


def _blocks(image: Image, radius: float) -> Image:
    """Means of square blocks, as Haar wavelets take them."""
    size = max(2, round(2 * radius))
    rows, columns = (np.arange(length) // size for length in image.shape)
    labels = rows[:, None] * (columns[-1] + 1) + columns
    means = np.bincount(labels.ravel(), image.ravel()) / np.bincount(labels.ravel())
    return np.asarray(means[labels])


def _by(smooth: Callable[[Image, float], Image]) -> Callable[[Image, int], list[Image]]:
    def split(image: Image, octaves: int) -> list[Image]:
        """Bands from fine to coarse, then the base; their sum is the image."""
        found, rest = [], image
        for octave in range(octaves):
            smoother = smooth(rest, 1.2 * 2.0**octave)
            found.append(rest - smoother)
            rest = smoother
        return [*found, rest]

    return split


SPLITS = {
    "gaussian": _by(_gaussian),
    "guided": _by(_guided),
    "median": _by(_median),
    "blocks": _by(_blocks),
}


def _band(rule: str, warm: Image, grey: Image, rng: np.random.Generator) -> Image:
    if rule in ("warm", "grey"):
        return warm if rule == "warm" else grey
    if rule == "sum":
        return (warm + grey) / float(rng.uniform(1.0, 1.6))
    if rule == "stronger":
        return np.where(np.abs(warm) > np.abs(grey), warm, grey)
    reach = float(np.exp(rng.uniform(np.log(1.0), np.log(8.0))))
    energy = [_gaussian(band**2, reach) for band in (warm, grey)]
    weight = energy[0] / (energy[0] + energy[1] + 1e-7)
    if rule == "energy":
        weight = (weight > 0.5).astype(np.float64)
    return weight * warm + (1 - weight) * grey


def _base(rule: str, warm: Image, grey: Image, rng: np.random.Generator) -> Image:
    share = float(rng.uniform(0.2, 0.75))
    if rule == "warm":
        share = float(rng.uniform(0.75, 1.0))
    if rule in ("share", "warm"):
        return share * warm + (1 - share) * grey
    if rule == "brighter":
        return np.maximum(warm, grey)
    if rule == "lift":  # hot places are lifted from the visible picture
        hot = np.clip((warm - warm.mean()) / max(float(warm.std()), 1e-3) * share, 0, 1)
        return np.asarray(grey + hot * np.maximum(warm - grey, 0))
    if rule == "spread":  # by the variance of the whole picture, as principal components do
        of_warm = float(warm.var() / (warm.var() + grey.var() + 1e-9))
        return of_warm * warm + (1 - of_warm) * grey
    distance = [np.abs(base - np.median(base)) for base in (warm, grey)]
    weight = distance[0] / (distance[0] + distance[1] + 1e-3)
    if rule == "blocks":
        weight = (_blocks(weight, float(rng.uniform(4, 20))) > 0.5).astype(np.float64)
    return np.asarray(weight * warm + (1 - weight) * grey)


def _flawed(flaw: str, image: Image, rng: np.random.Generator) -> Image:
    amount = float(rng.uniform(0.3, 1.0))
    if flaw == "soft":
        return _gaussian(image, 2.2 * amount)
    if flaw == "grid":
        period = int(rng.integers(2, 9))
        rows, columns = (np.arange(length) % period < period / 2 for length in image.shape)
        return np.asarray(image + 0.05 * amount * (rows[:, None] ^ columns))
    if flaw == "grain":
        noise = _gaussian(rng.normal(size=image.shape), rng.uniform(0, 1.5))
        return np.asarray(image + 0.06 * amount * noise / noise.std())
    if flaw == "ringing":
        return image + 2.5 * amount * (image - _gaussian(image, rng.uniform(1.0, 4.0)))
    if flaw == "haze":
        return (1 - 0.5 * amount) * image + 0.35 * amount
    if flaw == "crushed":
        return np.asarray(np.clip((image - 0.25 * amount) * (1 + 0.8 * amount), 0, 1))
    return image


def _toned(image: Image, rng: np.random.Generator) -> Image:
    """As it is four times out of ten; else stretched, of another gamma, or evened out locally."""
    tone = str(rng.choice(["none", "stretch", "gamma", "local"], p=[0.4, 0.25, 0.2, 0.15]))
    if tone == "stretch":
        low, high = np.quantile(image, [0.005, 0.995])
        return np.asarray((image - low) / max(float(high - low), 0.05))
    if tone == "gamma":
        return np.asarray(np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.5, 0.5)))
    if tone == "local":
        reach = rng.uniform(0.02, 0.08) * max(image.shape)
        mean = _gaussian(image, reach)
        deviation = np.sqrt(_gaussian((image - mean) ** 2, reach) + 1e-4)
        share = rng.uniform(0.2, 0.8)
        return (1 - share) * image + share * (0.5 * mean + 0.25 + 0.15 * (image - mean) / deviation)
    return image


def _coloured(toned: Image, vis: Image, rng: np.random.Generator) -> Image:
    """With the visible image's colour, or paler, or grey; what a grey visible image can have."""
    keep = str(rng.choice(["all", "pale", "strong", "none"], p=[0.6, 0.12, 0.08, 0.2]))
    if vis.ndim == 2 or keep == "none":
        return toned
    amount = {"all": 1.0, "pale": rng.uniform(0.2, 0.8), "strong": rng.uniform(1.2, 1.8)}[keep]
    coloured = recolour(toned, vis)
    grey = luma(coloured)[..., None]
    return np.asarray(np.clip(grey + amount * (coloured - grey), 0, 1))


MAKERS: dict[str, Callable[[Image, Image, np.random.Generator], Image]] = {
    made_fusions.METHOD: made_fusions.make_fusion,
    "drawn": draw_fusion,
}
"""Method in a ratings table -> what makes its pictures again from a seed."""
