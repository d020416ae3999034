"""Does `FuScore.attribution` point at damage? One quadrant is ruined; how much of the map is there?

    python -m benchmarks.accuracy.locality --data ../shared/data --out locality.json

Chance is 0.25: the quadrant's area. The same quadrants of the undamaged fusions are measured too:
a real fusion has weak spots of its own, and the map is right to show them. How much of a picture is
coloured says whether the map shouts where nothing is, and, of damage all over, whether it shows.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fuscore_training.fusions.classic import CLASSIC_FUSIONS, Image, luma, recolour, to_bytes
from fuscore_training.labels.degradations import Sources
from fuscore_training.labels.proxy_ratings import Scene, find_scenes, read_image
from fuscore_training.labels.viewer_ladders import damage
from fuscore_training.split import read_split
from torch import Tensor

from benchmarks.accuracy.results import over_scenes
from benchmarks.accuracy.triples import evenly
from fuscore_metric import FuScore
from fuscore_metric.attribution import DEFAULT_STEPS
from fuscore_metric.drawing.overlay import FULL_SCALE
from fuscore_metric.images.convert import ImageLike, as_images

DAMAGE: dict[str, float] = {
    "noise": 0.08,
    "blur": 2.5,
    "jpeg": 90.0,
    "contrast": 0.6,
    "exposure": 0.6,
    "stripes": 0.08,
    "colour_blotches": 30.0,
    "green_cast": 40.0,
}
"""Kind -> strength, as in `fuscore_training`: plainly visible, not gross."""
EVERYWHERE = ("noise", "colour_blotches", "green_cast")
"""Kinds that are also put all over the picture."""
UNDAMAGED = "undamaged"
ALL_OVER = "{} all over"
VISIBLE = 0.25
"""Share of the last colour's strength from which a place counts as coloured."""

Report = Callable[[str], object]


@dataclass(frozen=True)
class Share:
    """What the maps of one kind of damage hold.

    Attributes:
        localised: Share of cases with at least half of the map's mass in the ruined quadrant.
        mean_mass: Mean share of the mass there; 0.25 by chance.
        coloured_inside: Mean share of the quadrant that is visibly coloured.
        coloured_outside: Mean share of the other three.
        mean_drop: Mean points of score that the damage cost; empty maps are no wonder where it
            cost nothing.
        cases: Number of triples.
    """

    localised: float
    mean_mass: float
    coloured_inside: float
    coloured_outside: float
    mean_drop: float
    cases: int


@dataclass(frozen=True)
class Locality:
    """Result over all kinds.

    Attributes:
        localised: Share of all damaged cases with at least half of the mass in the quadrant.
        interval: 95 % bootstrap interval of it, scenes drawn with replacement.
        mean_mass: Mean share of the mass there.
        scenes: Number of scenes.
        by_kind: The same by kind of damage, for the same quadrants undamaged, and for damage all
            over.
    """

    localised: float
    interval: tuple[float, float]
    mean_mass: float
    scenes: int
    by_kind: dict[str, Share]


@dataclass(frozen=True)
class _Case:
    scene: str
    kind: str
    mass: float
    inside: float
    outside: float
    drop: float


def locality(
    model: FuScore,
    scenes: Sequence[Scene],
    *,
    fused_per_scene: int = 2,
    steps: int = DEFAULT_STEPS,
    report: Report = lambda line: None,
) -> Locality:
    """Ruin a random quadrant of real fusions in every way and see where the map's mass lies.

    Args:
        model: The metric.
        scenes: Scenes that it was not trained on.
        fused_per_scene: Fused images of each: published ones, else plain fusions.
        steps: Of the attribution.
        report: Told the name of each scene when it is done.
    """
    cases = []
    for scene in scenes:
        rng = np.random.default_rng([0, zlib.crc32(scene.name.encode())])  # for this scene alone
        cases += list(_scene_cases(model, scene, fused_per_scene, steps, rng))
        report(scene.name)
    damaged = [case for case in cases if case.kind in DAMAGE]
    total = _share(damaged)
    return Locality(
        localised=total.localised,
        interval=_interval(damaged),
        mean_mass=total.mean_mass,
        scenes=len(scenes),
        by_kind={
            kind: _share([case for case in cases if case.kind == kind])
            for kind in (*DAMAGE, UNDAMAGED, *map(ALL_OVER.format, EVERYWHERE))
        },
    )


def _scene_cases(
    model: FuScore, scene: Scene, count: int, steps: int, rng: np.random.Generator
) -> Iterator[_Case]:
    ir, vis = read_image(scene.ir), read_image(scene.vis)
    sources = Sources(luma(ir), luma(vis))
    pair = _tensor(scene.ir, "ir", model), _tensor(scene.vis, "vis", model)
    for fused in _fusions(scene, sources, vis, count, rng):
        quadrant = _quadrant(sources.ir.shape, rng)
        images = {UNDAMAGED: fused} | {
            kind: damage(fused, kind, strength, sources, rng, quadrant)
            for kind, strength in DAMAGE.items()
        }
        for kind in EVERYWHERE:
            images[ALL_OVER.format(kind)] = damage(fused, kind, DAMAGE[kind], sources, rng, None)
        whole = None
        for kind, pixels in images.items():
            shown = _tensor(to_bytes(pixels), "fused", model)
            with torch.inference_mode():
                score = model(*pair, shown).score.item()
            whole = score if whole is None else whole
            found = model.attribution(*pair, shown, steps=steps)[0].cpu().numpy()
            mass = float((found * quadrant).sum() / max(found.sum(), 1e-12))
            coloured = found * (found.size / 100) >= VISIBLE * FULL_SCALE
            inside, outside = (coloured[quadrant == part].mean() for part in (1, 0))
            yield _Case(scene.name, kind, mass, float(inside), float(outside), whole - score)


def _fusions(
    scene: Scene, sources: Sources, vis: Image, count: int, rng: np.random.Generator
) -> list[Image]:
    """Published outputs at random, filled up with plain fusions of ours."""
    published = sorted(scene.fused)
    chosen = rng.permutation(len(published))[:count]
    fused = [read_image(scene.fused[published[i]]) for i in chosen]
    names = list(CLASSIC_FUSIONS)
    for i in rng.permutation(len(names))[: count - len(fused)]:
        image = CLASSIC_FUSIONS[names[i]](sources.ir, sources.vis)
        fused.append(recolour(image, vis) if vis.ndim == 3 else image)
    return fused


def _quadrant(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """(H, W) mask of a random quarter of the picture."""
    mask = np.zeros(shape)
    top, left = (int(rng.integers(2)) * (side // 2) for side in shape)
    mask[top : top + shape[0] // 2, left : left + shape[1] // 2] = 1
    return mask


def _tensor(image: ImageLike, argument: str, model: FuScore) -> Tensor:
    return torch.stack(as_images(image, argument)).to(model.device)  # (1, 3, H, W)


def _share(cases: Sequence[_Case]) -> Share:
    numbers = np.array([[c.mass >= 0.5, c.mass, c.inside, c.outside, c.drop] for c in cases])
    localised, mass, inside, outside, drop = numbers.astype(float).mean(0).tolist()
    return Share(localised, mass, inside, outside, drop, len(cases))


def _interval(cases: Sequence[_Case]) -> tuple[float, float]:
    """Cases of one scene resemble each other: whole scenes are drawn."""
    frame = pd.DataFrame({"scene": [c.scene for c in cases], "hit": [c.mass >= 0.5 for c in cases]})
    scenes = frame.groupby("scene")["hit"]
    found = over_scenes(np.asarray(scenes.sum(), float), np.asarray(scenes.size(), float))
    return found.low, found.high


def spread(scenes: Sequence[Scene], count: int | None) -> list[Scene]:
    """Take `count` scenes: as many of each set as there are, evenly spread within a set."""
    sets: dict[str, list[Scene]] = {}
    for scene in scenes:
        sets.setdefault(scene.name.split("/")[0], []).append(scene)
    if count is None or count >= len(scenes):
        return list(scenes)
    taken: dict[str, int] = dict.fromkeys(sets, 0)
    while sum(taken.values()) < count:
        name = min((n for n in sets if taken[n] < len(sets[n])), key=lambda n: taken[n])
        taken[name] += 1
    return [scene for name, n in taken.items() for scene in evenly(sets[name], n)]


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--split", type=Path, default=Path("training/recipes/split.yaml"))
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=None, help="This many, from all sets.")
    parser.add_argument("--fused-per-scene", type=int, default=2)
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = FuScore.from_pretrained(options.model, device=options.device)
    names = set(getattr(read_split(options.split), options.part))
    scenes = [scene for scene in find_scenes(options.data) if scene.name in names]
    found = locality(
        model,
        spread(scenes, options.scenes),
        fused_per_scene=options.fused_per_scene,
        steps=options.steps,
        report=lambda name: print(name, flush=True),
    )
    facts = {"weights": model.spec.name, "part": options.part, "steps": options.steps}
    options.out.write_text(json.dumps({**facts, **asdict(found)}, indent=2) + "\n")
    print(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    main()
