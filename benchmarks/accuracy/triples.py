"""Test scenes -> the images of each part of the protocol, made the same way every time.

Nothing here depends on a measure. Every draw is seeded by the scene's name and by what is drawn.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from fuscore_training.fusions.classic import CLASSIC_FUSIONS, luma, recolour, to_bytes
from fuscore_training.labels.degradations import DEGRADATIONS, Sources, degrade
from fuscore_training.labels.proxy_ratings import Scene, read_image
from fuscore_training.labels.sub_scores import SourcePair
from fuscore_training.split import Split
from numpy.typing import NDArray
from PIL import Image as PILImage

from benchmarks.accuracy.held_out_degradations import HELD_OUT

T = TypeVar("T")

Pixels = NDArray[np.uint8]
"""(H, W) or (H, W, 3)."""

UNDAMAGED = "none"
"""Name of an item that nothing was done to."""
UNDAMAGED_KINDS = ("method", "plain")
"""Kinds of rated rows that nothing was done to."""
STEPS = 5
"""Strengths of a ladder, above the undamaged image."""
GOOD, MOST_GOOD = 3.5, 4
"""Least proxy rating of a good fusion, and how many a scene gives at most."""
MOST_STABILITY = 3
MOST_ROADSCENE = 8
"""RoadScene has 26 of the 43 test scenes: only so many of them climb ladders, evenly picked."""
RATED_SHARE = 4
"""One in so many of the damaged and control rows of the ratings is measured."""


@dataclass(frozen=True)
class Item:
    """One triple to measure.

    Attributes:
        group: The fusion it was made from.
        name: What was done to it.
        level: Severity of a ladder's damage, 0 for none.
        ir, vis, fused: uint8 images of one size.
        target: Its proxy rating, if it has one.
    """

    group: str
    name: str
    level: int
    ir: Pixels
    vis: Pixels
    fused: Pixels
    target: float = math.nan


@dataclass(frozen=True)
class Loaded:
    """A scene in memory: sources, and undamaged fusions by method, plain ones included."""

    scene: Scene
    ir: Pixels
    vis: Pixels
    fused: dict[str, Pixels]

    @property
    def published(self) -> list[str]:
        """Fusions by published methods."""
        return list(self.scene.fused)


def load(scene: Scene) -> Loaded:
    """Read a scene and make its plain fusions."""
    ir, vis = read_image(scene.ir), read_image(scene.vis)
    fused = {method: to_bytes(read_image(path)) for method, path in scene.fused.items()}
    for name, fuse in CLASSIC_FUSIONS.items():
        made = fuse(luma(ir), luma(vis))
        fused[f"plain_{name}"] = to_bytes(recolour(made, vis) if vis.ndim == 3 else made)
    return Loaded(scene, to_bytes(ir), to_bytes(vis), fused)


def seeded(scene: Scene, what: str) -> np.random.Generator:
    """Randomness of one draw in a scene."""
    return np.random.default_rng(zlib.crc32(f"{scene.name} {what}".encode()))


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """At most `count` of the items, from the first to the last; all by default."""
    if count is None or count >= len(items):
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def ladder_scenes(scenes: Sequence[Scene], count: int | None = None) -> list[Scene]:
    """All scenes but those of RoadScene, and some of these; evenly reduced to `count`."""
    road = [scene for scene in scenes if scene.name.startswith("RoadScene/")]
    left_out = {scene.name for scene in road} - {s.name for s in evenly(road, MOST_ROADSCENE)}
    return evenly([scene for scene in scenes if scene.name not in left_out], count)


def ladder_strengths(kind: str) -> tuple[float, ...]:
    """Strengths of a kind, weakest first; those of training's kinds span what training draws."""
    if kind in HELD_OUT:
        return HELD_OUT[kind][1]
    _, low, high = DEGRADATIONS[kind]
    space = np.linspace if kind == "jpeg" else np.geomspace  # JPEG's strength is linear in quality
    return tuple(map(float, space(low, high, STEPS)))


def ladders(here: Loaded, split: Split) -> Iterator[Item]:
    """Two undamaged fusions, one of a held-out method if there is one, and all ladders of each."""
    sources = Sources(luma(here.ir / 255.0), luma(here.vis / 255.0))
    for base in _ladder_bases(here, split):
        image = here.fused[base] / 255.0
        yield Item(base, UNDAMAGED, 0, here.ir, here.vis, here.fused[base])
        for kind in (*DEGRADATIONS, *HELD_OUT):
            for level, strength in enumerate(ladder_strengths(kind), start=1):
                # Seeded alike at every step: one direction, one sign, one pattern a ladder.
                rng = seeded(here.scene, f"{base} {kind}")
                if kind in HELD_OUT:
                    worse = to_bytes(HELD_OUT[kind][0](image, strength, sources, rng))
                else:
                    worse = degrade(image, kind, strength, sources, rng)
                yield Item(base, kind, level, here.ir, here.vis, worse)


def _ladder_bases(here: Loaded, split: Split) -> tuple[str, str]:
    names = here.published
    if len(names) < 2:
        return "plain_laplacian_pyramid", names[0] if names else "plain_maximum"
    rng = seeded(here.scene, "ladders")
    unseen = [name for name in names if name in split.held_out_methods]
    first = str(rng.choice(unseen or names))
    return first, str(rng.choice([name for name in names if name != first]))


def controls(here: Loaded, other: Scene) -> Iterator[Item]:
    """Good fusions, and what a fusion metric must rank below them.

    "sources swapped" is a good fusion scored with another scene's sources; its group is the
    fusion's, as it is compared with that one only.
    """
    foreign, rng = load(other), seeded(here.scene, "controls")
    theirs = foreign.fused[str(rng.choice(foreign.published or ["plain_laplacian_pyramid"]))]
    height, width = here.ir.shape[:2]
    their_ir, their_vis, theirs = (
        _resized(image, width, height) for image in (foreign.ir, foreign.vis, theirs)
    )
    good = _good_fusions(here)
    for name in sorted(map(str, rng.choice(good, min(MOST_GOOD, len(good)), replace=False))):
        fused = here.fused[name]
        yield Item(name, UNDAMAGED, 0, here.ir, here.vis, fused)
        yield Item(name, "sources swapped", 1, their_ir, their_vis, fused)
    average = here.fused["plain_average"]
    instead = {"ir copy": here.ir, "vis copy": here.vis, "average": average, "foreign": theirs}
    for name, fused in instead.items():
        yield Item("", name, 1, here.ir, here.vis, fused)


def _good_fusions(here: Loaded) -> list[str]:
    pair = SourcePair(luma(here.ir / 255.0), luma(here.vis / 255.0))
    candidates = {name: f for name, f in here.fused.items() if name != "plain_average"}
    rated = {name: pair.rate(luma(f / 255.0)).overall for name, f in candidates.items()}
    return [name for name, r in rated.items() if r >= GOOD] or [max(rated, key=rated.__getitem__)]


def rated_rows(ratings: pd.DataFrame) -> pd.DataFrame:
    """All undamaged rows, and a fixed quarter of the others, told by a checksum of their names."""
    names = ratings["source_pair"] + " " + ratings["method"]
    drawn = names.map(lambda name: zlib.crc32(name.encode()) % RATED_SHARE == 0)
    return ratings[ratings["kind"].isin(UNDAMAGED_KINDS) | drawn]


def agreement(rows: pd.DataFrame) -> Iterator[Item]:
    """Rated triples of one scene: `group` is the method behind the image, `name` the row's kind."""
    for row in rows.to_dict("records"):
        ir, vis, fused = (to_bytes(read_image(Path(row[name]))) for name in ("ir", "vis", "fused"))
        yield Item(str(row["base"]), str(row["kind"]), 0, ir, vis, fused, float(row["overall"]))


def stability(here: Loaded) -> Iterator[Item]:
    """Some published fusions, and changes that should not matter."""
    names = here.published or ["plain_laplacian_pyramid", "plain_maximum", "plain_two_scale"]
    drawn = seeded(here.scene, "stability").choice(
        names, min(MOST_STABILITY, len(names)), replace=False
    )
    for name in sorted(map(str, drawn)):
        triple = [here.ir, here.vis, here.fused[name]]
        height, width = here.ir.shape[:2]
        small = round(0.9 * width), round(0.9 * height)
        changed = {
            UNDAMAGED: triple,
            "shift": [image[1:, 1:] for image in triple],
            "mirror": [image[:, ::-1] for image in triple],
            "jpeg95": [_jpeg(image) for image in triple],
            "resize 0.9": [_resized(image, *small) for image in triple],
            "fused as jpeg": [*triple[:2], _jpeg(triple[2])],
        }
        for change, images in changed.items():
            ir, vis, fused = (np.ascontiguousarray(image) for image in images)
            yield Item(name, change, 0, ir, vis, fused)


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    picture = PILImage.fromarray(image).resize((width, height), PILImage.Resampling.BICUBIC)
    return np.asarray(picture)


def _jpeg(image: Pixels) -> Pixels:
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)  # 4:4:4
    return np.asarray(PILImage.open(buffer))
