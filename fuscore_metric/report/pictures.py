"""Scores by scene -> chosen scenes, with thumbnails and maps of where score was lost.

Pictures are read as for scoring (`images.as_images`), so that the page shows what was scored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fuscore_metric.drawing.overlay import painted
from fuscore_metric.errors import InputError
from fuscore_metric.report.data import Grid, Numbers

if TYPE_CHECKING:
    from torch import Tensor

    from fuscore_metric.images.thermal_range import ThermalRange
    from fuscore_metric.model import FuScore

BEST, WORST, SPREAD, OTHER = "best", "worst", "disagreement", "other"
CONTRARY = "contrary"
"""A scene where a classic measure contradicts the score; it is shown apart from the lists."""
SIDE = 640
"""Longest side of a picture, in pixels; pictures of most data sets are no larger."""
_QUALITY = 80

Map: TypeAlias = NDArray[np.float32]
"""(H, W) points of score lost per pixel."""
Pixels: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) as shown."""
Progress: TypeAlias = Callable[[str], None]
"""Takes what was just done, once for each picture and each map."""


@dataclass(frozen=True)
class Choice:
    """A scene to be shown.

    Attributes:
        scene: Its number in the grid.
        group: The list it is shown in: best, worst, disagreement, other or contrary.
        also: Further lists it belongs to.
        methods: Numbers of the methods shown, best first.
        mapped: Those of them that get a map.
    """

    scene: int
    group: str
    also: tuple[str, ...]
    methods: tuple[int, ...]
    mapped: tuple[int, ...]


@dataclass(frozen=True)
class Shot:
    """A picture of a scene, or why there is none.

    Attributes:
        role: "ir", "vis", "fused" or "lost" (the fused image under its map).
        method: Name of the method; empty for sources.
        score: Of the fused image; NaN for sources.
        uri: data: address; empty if there is no picture.
        note: Why there is no picture.
        width: In pixels; 0 if there is no picture.
        height: In pixels.
    """

    role: str
    method: str
    score: float
    uri: str
    note: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Exhibit:
    """A chosen scene with its pictures.

    Attributes:
        choice: Which scene, and why.
        shots: ir, vis, then each method's fused image, followed by its map if it has one.
    """

    choice: Choice
    shots: tuple[Shot, ...]


def choose(
    grid: Grid,
    *,
    scenes: int,
    per_scene: int,
    others: bool = False,
    highlight: Sequence[str] = (),
) -> list[Choice]:
    """Choose scenes with the best and the worst mean, and those where the methods differ most.

    Scenes that every method has count, if there are such: the mean over some methods only would
    depend on which are missing. No scene is both best and worst; one that is in several lists is
    shown in the first.

    Args:
        grid: The scores.
        scenes: Length of each list, at most; 0 for no scene.
        per_scene: Methods of a scene, at most: the best and the worst of it.
        others: Whether all further scenes with a score are chosen too, in the grid's order.
        highlight: Methods that are shown, with a map, in every scene where they have a score.
    """
    always = {number for number, name in enumerate(grid.methods) if name in highlight}
    known = np.isfinite(grid.score)
    whole = known.all(1) if known.all(1).any() else known.any(1)
    by_mean = sorted(np.flatnonzero(whole).tolist(), key=lambda n: -grid.mean[n])
    best = by_mean[: min(scenes, (len(by_mean) + 1) // 2)]
    worst = by_mean[::-1][: min(scenes, len(by_mean) // 2)]
    differing = [n for n in by_mean if grid.spread[n] > 0]
    lists = {
        BEST: best,
        WORST: worst,
        SPREAD: sorted(differing, key=lambda n: -grid.spread[n])[:scenes],
    }
    chosen: dict[int, list[str]] = {}
    for name, members in lists.items():
        for scene in members:
            chosen.setdefault(scene, []).append(name)
    for scene in np.flatnonzero(known.any(1)).tolist() if others else ():
        chosen.setdefault(scene, [OTHER])
    made = []
    for scene, groups in chosen.items():
        shown = _ends(grid.score[scene], per_scene, always)
        mapped = tuple(n for n in shown if n in always | {shown[0], shown[-1]})
        made.append(Choice(scene, groups[0], tuple(groups[1:]), shown, mapped))
    return made


def _ends(scores: Numbers, count: int, always: Set[int]) -> tuple[int, ...]:
    """Numbers of the best and worst of a scene's methods (M,) and of others, best first."""
    order = [n for n in np.argsort(-scores, kind="stable").tolist() if np.isfinite(scores[n])]
    worst = count // 2
    ends = {*order[: count - worst], *order[max(0, len(order) - worst) :]}
    return tuple(n for n in order if n in ends | always)


def count_steps(choices: list[Choice], *, maps: bool) -> int:
    """How often `illustrate` will report progress for all of these scenes."""
    return sum(2 + len(c.methods) + (len(c.mapped) if maps else 0) for c in choices)


def illustrate(
    choice: Choice,
    grid: Grid,
    *,
    model: FuScore | None,
    aspect: str,
    thermal_range: ThermalRange | None = None,
    side: int = SIDE,
    progress: Progress = lambda done: None,
) -> Exhibit:
    """Read a scene's pictures, and map where fusions lost their score.

    Args:
        choice: Which scene.
        grid: Paths and scores.
        model: The model that gave the scores; None for no maps.
        aspect: Which score the maps are of.
        thermal_range: As the run had it.
        side: Longest side of the pictures, in pixels.
        progress: Takes what was done.
    """
    scene = grid.scenes[choice.scene]
    names = [grid.methods[number] for number in choice.methods]
    files = [grid.files[scene, name] for name in names]
    sources = [
        _read(files[0][place], role, thermal_range) for place, role in enumerate(("ir", "vis"))
    ]
    fused = [_read(paths[2], "fused") for paths in files]
    maps: dict[int, Map | str] = {}
    if model is not None:
        asked = {choice.methods.index(number): number for number in choice.mapped}
        maps = _maps(model, sources, {place: fused[place] for place in asked}, aspect)
        for place in maps:
            progress(f"map of {names[place]} on {scene}")
    shots = []
    for role, pixels in zip(("ir", "vis"), sources, strict=True):
        shots.append(_shot(role, "", float("nan"), pixels, side))
        progress(f"{role} of {scene}")
    for place, (name, pixels) in enumerate(zip(names, fused, strict=True)):
        score = float(grid.score[choice.scene, choice.methods[place]])
        shots.append(_shot("fused", name, score, pixels, side))
        if place in maps and not isinstance(pixels, str):
            found = maps[place]
            laid = found if isinstance(found, str) else painted(_bytes(pixels), found)
            shots.append(_shot("lost", name, score, laid, side))
        progress(f"{name} on {scene}")
    return Exhibit(choice, tuple(shots))


def _read(path: str, argument: str, thermal_range: ThermalRange | None = None) -> Tensor | str:
    """The pixels (3, H, W) in [0, 1] of a file, or why there are none."""
    from fuscore_metric.images.convert import as_images

    if not path:
        return "the table names no file"
    try:
        return as_images(path, argument, thermal_range=thermal_range)[0]
    except InputError as error:
        return str(error)


def _maps(
    model: FuScore, sources: Sequence[Tensor | str], fused: Mapping[int, Tensor | str], aspect: str
) -> dict[int, Map | str]:
    """Maps (H, W) of fusions of one scene, its sources encoded once; or why there are none."""
    from torch import stack

    found: dict[int, Map | str] = dict.fromkeys(fused, "an image is missing or has another size")
    ir, vis = sources
    if isinstance(ir, str) or isinstance(vis, str):
        return found
    fit = {n: x for n, x in fused.items() if not isinstance(x, str) and x.shape == ir.shape}
    if not fit:
        return found
    batches = (ir[None], vis[None], stack(list(fit.values())))
    one, two, three = (batch.to(model.device) for batch in batches)
    try:
        maps = model.attribution(one, two, three, aspect=aspect).cpu().numpy()
    except InputError as error:
        return dict.fromkeys(fused, str(error))
    return found | dict(zip(fit, maps, strict=True))


def _shot(role: str, method: str, score: float, pixels: Tensor | Pixels | str, side: int) -> Shot:
    if isinstance(pixels, str):
        return Shot(role, method, score, "", pixels)
    picture = PILImage.fromarray(pixels if isinstance(pixels, np.ndarray) else _bytes(pixels))
    picture.thumbnail((side, side), PILImage.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Shot(role, method, score, uri, "", *picture.size)


def _bytes(pixels: Tensor) -> Pixels:
    """(3, H, W) in [0, 1] -> (H, W, 3) 8 bits."""
    shown: Pixels = np.rint(pixels.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return shown
