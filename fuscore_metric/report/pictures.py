"""Scores by scene -> the scenes worth looking at, with thumbnails and maps of where score was lost.

Pictures are read as for scoring (`images.as_images`), so that the page shows what was judged.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fuscore_metric.report.data import Grid, Numbers

if TYPE_CHECKING:
    from torch import Tensor

    from fuscore_metric.model import FuScore
    from fuscore_metric.thermal_range import ThermalRange

BEST, WORST, SPREAD = "best", "worst", "disagreement"
THUMBNAIL = 320
_QUALITY = 82
_OVERLAYS_PER_SCENE = 2

Map: TypeAlias = NDArray[np.float32]
"""(H, W) points of score lost per 1 % of the area."""
Pixels: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) as shown."""
Progress: TypeAlias = Callable[[str], None]
"""Told what was just done, once for each picture and each map."""


@dataclass(frozen=True)
class Choice:
    """A scene to be shown.

    Attributes:
        scene: Its number in the grid.
        group: The list it is shown in: best, worst or disagreement.
        also: Further lists it belongs to.
        methods: Numbers of the methods shown, best first.
    """

    scene: int
    group: str
    also: tuple[str, ...]
    methods: tuple[int, ...]


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
        full_scale: Points per 1 % of the area that get the maps' last colour; 0 without maps.
    """

    choice: Choice
    shots: tuple[Shot, ...]
    full_scale: float


def choose(grid: Grid, *, scenes: int, per_scene: int) -> list[Choice]:
    """Choose scenes with the best and the worst mean, and those where the methods differ most.

    A scene counts that every method has, if there are such; the mean over some methods only would
    say which are missing. No scene is both best and worst; one that is in several lists is shown in
    the first.

    Args:
        grid: The scores.
        scenes: Length of each list, at most; 0 for no scene.
        per_scene: Methods of a scene, at most: the best and the worst of it.
    """
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
    return [
        Choice(scene, groups[0], tuple(groups[1:]), _ends(grid.score[scene], per_scene))
        for scene, groups in chosen.items()
    ]


def _ends(scores: Numbers, count: int) -> tuple[int, ...]:
    """Numbers of the best and worst of a scene's methods (M,), best first."""
    order = [n for n in np.argsort(-scores, kind="stable").tolist() if np.isfinite(scores[n])]
    if len(order) <= count:
        return tuple(order)
    worst = count // 2
    return tuple(order[: count - worst] + (order[-worst:] if worst else []))


def count_steps(choices: list[Choice], *, maps: bool) -> int:
    """How often `illustrate` will report progress for all of these scenes."""
    return sum(2 + len(c.methods) + (len(_mapped(c)) if maps else 0) for c in choices)


def _mapped(choice: Choice) -> tuple[int, ...]:
    """The methods of a scene that get a map: its worst and its best."""
    return tuple(dict.fromkeys((*choice.methods[-1:], *choice.methods[:1])))[:_OVERLAYS_PER_SCENE]


def illustrate(
    choice: Choice,
    grid: Grid,
    *,
    judge: FuScore | None,
    aspect: str,
    thermal_range: ThermalRange | None = None,
    side: int = THUMBNAIL,
    progress: Progress = lambda done: None,
) -> Exhibit:
    """Read a scene's pictures, and map where its best and worst fusion lost their score.

    Args:
        choice: Which scene.
        grid: Paths and scores.
        judge: The model that gave the scores; None for no maps.
        aspect: Which score the maps are of.
        thermal_range: As the run had it.
        side: Longest side of the pictures, in pixels.
        progress: Told what was done.
    """
    scene = grid.scenes[choice.scene]
    names = [grid.methods[number] for number in choice.methods]
    files = [grid.files[scene, name] for name in names]
    sources = [
        _read(files[0][place], role, thermal_range) for place, role in enumerate(("ir", "vis"))
    ]
    fused = [_read(paths[2], "fused") for paths in files]
    maps = {}
    if judge is not None:
        for number in _mapped(choice):
            place = choice.methods.index(number)
            maps[place] = _map(judge, sources[0], sources[1], fused[place], aspect)
            progress(f"map of {names[place]} on {scene}")
    full_scale = _full_scale([one for one in maps.values() if isinstance(one, np.ndarray)])
    shots = []
    for role, pixels in zip(("ir", "vis"), sources, strict=True):
        shots.append(_shot(role, "", float("nan"), pixels, side))
        progress(f"{role} of {scene}")
    for place, (name, pixels) in enumerate(zip(names, fused, strict=True)):
        score = float(grid.score[choice.scene, choice.methods[place]])
        shots.append(_shot("fused", name, score, pixels, side))
        if place in maps and not isinstance(pixels, str):
            laid = _laid_over(pixels, maps[place], full_scale)
            shots.append(_shot("lost", name, score, laid, side))
        progress(f"{name} on {scene}")
    return Exhibit(choice, tuple(shots), full_scale)


def _read(path: str, argument: str, thermal_range: ThermalRange | None = None) -> Tensor | str:
    """The pixels (3, H, W) in [0, 1] of a file, or why there are none."""
    from fuscore_metric.images import InputError, as_images

    if not path:
        return "the table names no file"
    try:
        return as_images(path, argument, thermal_range=thermal_range)[0]
    except InputError as error:
        return str(error)


def _map(
    judge: FuScore, ir: Tensor | str, vis: Tensor | str, fused: Tensor | str, aspect: str
) -> Map | str:
    """Points of score lost per 1 % of the area (H, W), or why that is not known."""
    from torch import Tensor

    from fuscore_metric.images import InputError

    if not (isinstance(ir, Tensor) and isinstance(vis, Tensor) and isinstance(fused, Tensor)):
        return "an image of the three is missing"
    batches = [one.unsqueeze(0).to(judge.device) for one in (ir, vis, fused)]  # (1, 3, H, W)
    try:
        found: Map = judge.attribution(batches[0], batches[1], batches[2], aspect)[0].cpu().numpy()
    except InputError as error:
        return str(error)
    return found * (found.size / 100)


def _full_scale(maps: list[Map]) -> float:
    """One scale for the maps of a scene, so that they can be compared; 0 without maps."""
    from fuscore_metric.overlay import LEAST_FULL_SCALE

    return max([LEAST_FULL_SCALE, *(float(one.max()) for one in maps)]) if maps else 0.0


def _laid_over(pixels: Tensor, found: Map | str, full_scale: float) -> Pixels | str:
    from fuscore_metric.overlay import overlay

    return found if isinstance(found, str) else overlay(_bytes(pixels), found / full_scale)


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
