"""Fusions that viewers rated -> damaged versions, rated by visible change.

Each damaged picture keeps, of what its base had above 1, what `change_curves` says of the kind and
of how far it looks from its base. So local and mixed damage count by what can be seen of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as PILImage

from fuscore_training.change_curves import Curve, read_curves
from fuscore_training.classic_fusions import Image, luma, to_bytes
from fuscore_training.colour_damage import COLOUR_DAMAGE, TARGET_DAMAGE
from fuscore_training.degradations import DEGRADATIONS, Degradation, Sources, draw_region
from fuscore_training.proxy_ratings import read_image
from fuscore_training.ratings import SUB_SCORE_COLUMNS, RatingsTable
from fuscore_training.visible_change import visible_change

DAMAGE: dict[str, tuple[Degradation, float, float]] = {
    **DEGRADATIONS,
    **COLOUR_DAMAGE,
    **TARGET_DAMAGE,
}
GROUPS = (tuple(DEGRADATIONS), tuple(COLOUR_DAMAGE), tuple(TARGET_DAMAGE))


@dataclass(frozen=True)
class LadderOptions:
    """How many damaged pictures are made.

    Attributes:
        each: Damaged versions of each undamaged picture that viewers rated.
        groups: Chances of damage as `degradations` has it, of colour, of lost targets.
        mixed: Share of damaged pictures with a second kind, of `degradations`.
        local: Share of damaged pictures whose damage is in a part of the picture.
        seed: Seed of every draw.
        workers: Processes.
    """

    each: int = 3
    groups: tuple[float, float, float] = (0.55, 0.25, 0.2)
    mixed: float = 0.15
    local: float = 0.2
    seed: int = 0
    workers: int = 2


def make_ladders(
    panel: RatingsTable, ratings: Path, out: Path, options: LadderOptions
) -> RatingsTable:
    """Write damaged versions of the undamaged pictures of a panel into `out`, and rate them.

    Args:
        panel: As `read_panel` returns it.
        ratings: Folder with the curves.
        out: Folder of the new pictures.
        options: How many.

    Returns:
        Rows as in the panel; `kind` says "ladder", `change` how far each looks from its base.
    """
    frame = panel.frame
    bases = frame[(frame["kind"] == "method") & frame["panel"].isin(["fusions", "modern", "own"])]
    work = partial(_damaged, curves=read_curves(ratings), out=out, options=options)
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers) as pool:
        rows = [row for found in pool.map(work, bases.to_dict("records")) for row in found]
    return RatingsTable(pd.DataFrame(rows), panel.label_kind, panel.description)


def _damaged(
    base: dict[Any, Any], *, curves: dict[str, Curve], out: Path, options: LadderOptions
) -> list[dict[str, Any]]:
    name = f"{base['source_pair']} {base['method']}"
    rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
    sources = Sources(luma(read_image(Path(base["ir"]))), luma(read_image(Path(base["vis"]))))
    picture = read_image(Path(base["fused"]))
    rows = []
    for number in range(options.each):
        damaged, scores, words = picture, {}, []
        for score in ("overall", *SUB_SCORE_COLUMNS):
            scores[score] = base[score]
        local = rng.random() < options.local
        where = draw_region(sources.ir.shape, rng) if local else None
        change = 0.0
        for kind in _kinds(rng, options):
            before, strength = damaged, _strength(kind, rng)
            damaged = damage(before, kind, strength, sources, rng, where)
            change = visible_change(damaged, before)
            curve = curves[kind]
            kept, powers = float(curve.kept(change)), (1.0, *curve.hits)
            for score, power in zip(("overall", *SUB_SCORE_COLUMNS), powers, strict=True):
                scores[score] = 1 + (scores[score] - 1) * kept**power
            words.append(f"{kind}={strength:.4g}")
        if visible_change(damaged, picture) < 1e-4:
            continue  # a grey picture's hue, or no target to lose
        file = out / f"{zlib.crc32(name.encode()):08x}_{number}.png"
        PILImage.fromarray(to_bytes(damaged)).save(file, compress_level=1)
        method = f"{base['method']}+{'+'.join(words)}{' in a part' if local else ''}#{number}"
        made = {"method": method, "fused": str(file.resolve()), "kind": "ladder", "viewers": 0}
        rows.append({**base, **made, **scores, "change": change, "damage": "+".join(words)})
    return rows


def _kinds(rng: np.random.Generator, options: LadderOptions) -> Iterator[str]:
    group = rng.choice(len(GROUPS), p=np.asarray(options.groups))
    first = str(rng.choice(GROUPS[group]))
    yield first
    if rng.random() < options.mixed:
        yield str(rng.choice([kind for kind in DEGRADATIONS if kind != first]))


def _strength(kind: str, rng: np.random.Generator) -> float:
    _, low, high = DAMAGE[kind]
    if kind == "jpeg":
        return float(rng.uniform(low, high))
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def damage(
    image: Image,
    kind: str,
    strength: float,
    sources: Sources,
    rng: np.random.Generator,
    where: Image | None,
) -> Image:
    """Damage a picture as `degradations.degrade` does, but by any kind of `DAMAGE`.

    Returns:
        The picture in [0, 1], rounded to 8 bits as a saved file would be.
    """
    if kind in COLOUR_DAMAGE and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    damaged = DAMAGE[kind][0](image, strength, sources, rng)
    if where is not None and kind not in TARGET_DAMAGE:
        weight = where[..., None] if image.ndim == 3 else where
        damaged = image + weight * (damaged - image)
    return np.asarray(to_bytes(damaged) / 255.0)
