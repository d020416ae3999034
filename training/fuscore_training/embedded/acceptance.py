"""What any fusion metric must get right on scenes held out from it, measured with real fusions.

- A fused image scores above its own noisy, blurred and compressed versions.
- Putting another scene's sources beside a fused image lowers its score: the sources are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from fuscore_metric.model import FuScore
from fuscore_metric.scoring import predict
from fuscore_training.fusions.classic import CLASSIC_FUSIONS, luma, recolour, to_bytes
from fuscore_training.labels.degradations import Sources, degrade
from fuscore_training.labels.proxy_ratings import Scene, read_image

LADDERS: dict[str, tuple[float, ...]] = {
    "noise": (0.02, 0.05, 0.1),
    "blur": (1.0, 2.0, 3.0),
    "jpeg": (70.0, 85.0, 93.0),
}
"""Kind -> strengths, as in `degradations`: from plainly visible to gross."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Acceptance:
    """Shares of right answers, each in [0, 1].

    Attributes:
        pristine_above: By kind of degradation, the share of (pristine, degraded) pairs in which the
            pristine image scores higher.
        pristine_above_all: The same over all kinds.
        reads_sources: The share of triples whose score falls with another scene's sources.
        pairs: Number of pristine-degraded pairs.
        triples: Number of triples.
    """

    pristine_above: dict[str, float]
    pristine_above_all: float
    reads_sources: float
    pairs: int
    triples: int


def check_acceptance(
    model: FuScore, scenes: Sequence[Scene], *, fused_per_scene: int = 3
) -> Acceptance:
    """Measure both properties on some scenes.

    Args:
        model: The metric.
        scenes: At least two scenes; for a fair number, ones that are held out from the model.
        fused_per_scene: Fused images of each: published outputs if any, else plain fusions.
    """
    if len(scenes) < 2:
        raise ValueError(f"Expected `scenes` with at least 2 scenes, got {len(scenes)}")
    rng = np.random.default_rng(0)  # of the choice, the noise and the foreign sources
    right: dict[str, list[bool]] = defaultdict(list)
    reads: list[bool] = []
    for number, scene in enumerate(scenes):
        other = scenes[(number + int(rng.integers(1, len(scenes)))) % len(scenes)]
        for fused in _fused_images(scene, fused_per_scene, rng):
            won, read = _check_triple(model, scene, other, fused, rng)
            reads.append(read)
            for kind, outcomes in won.items():
                right[kind] += outcomes
    outcomes = [one for found in right.values() for one in found]
    return Acceptance(
        pristine_above={kind: float(np.mean(found)) for kind, found in right.items()},
        pristine_above_all=float(np.mean(outcomes)),
        reads_sources=float(np.mean(reads)),
        pairs=len(outcomes),
        triples=len(reads),
    )


def _check_triple(
    model: FuScore, scene: Scene, other: Scene, fused: Pixels, rng: np.random.Generator
) -> tuple[dict[str, list[bool]], bool]:
    ir, vis = to_bytes(read_image(scene.ir, "ir")), to_bytes(read_image(scene.vis))
    sources = Sources(luma(ir / 255.0), luma(vis / 255.0))
    ladder = [(kind, strength) for kind, strengths in LADDERS.items() for strength in strengths]
    worse = [degrade(fused / 255.0, kind, strength, sources, rng) for kind, strength in ladder]
    irs: list[Pixels] = [ir] * (1 + len(worse))
    vises: list[Pixels] = [vis] * (1 + len(worse))
    foreign = [_resized(path, ir.shape) for path in (other.ir, other.vis)]
    scores = predict(
        [*irs, foreign[0]], [*vises, foreign[1]], [fused, *worse, fused], model=model
    ).score.tolist()
    won: dict[str, list[bool]] = defaultdict(list)
    for (kind, _), score in zip(ladder, scores[1:-1], strict=True):
        won[kind].append(scores[0] > score)
    return won, scores[0] > scores[-1]


def _fused_images(scene: Scene, count: int, rng: np.random.Generator) -> Iterator[Pixels]:
    if scene.fused:
        paths = list(scene.fused.values())
        chosen = rng.choice(len(paths), min(count, len(paths)), replace=False)
        yield from (to_bytes(read_image(paths[index])) for index in chosen)
        return
    ir, vis = luma(read_image(scene.ir, "ir")), read_image(scene.vis)
    names: Iterable[str] = ("laplacian_pyramid", "two_scale", "average")[:count]
    for name in names:
        fused = CLASSIC_FUSIONS[name](ir, luma(vis))
        yield to_bytes(recolour(fused, vis) if vis.ndim == 3 else fused)


def _resized(path: Path, shape: tuple[int, ...]) -> Pixels:
    with PILImage.open(path) as file:
        return np.asarray(
            file.convert("RGB").resize((shape[1], shape[0]), PILImage.Resampling.BICUBIC)
        )
