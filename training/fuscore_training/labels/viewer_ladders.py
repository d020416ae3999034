"""Fusions that viewers rated -> damaged versions, rated by visible change.

Of what its base had above 1, each damaged picture keeps the share that `change_curves` gives for
the kind and the visible change. So local and mixed damage count by how visible they are.
Fusions that were drawn are also drawn again from damaged sources, as in the study of people's
opinions (Moreno-Villamarin, Benitez-Restrepo and Bovik, IEEE TIP 2017).
"""

from __future__ import annotations

import itertools
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

from fuscore_training.fusions.classic import Image, luma, to_bytes
from fuscore_training.fusions.drawn import MAKERS
from fuscore_training.labels.change_curves import Curve, read_curves
from fuscore_training.labels.colour_damage import COLOUR_DAMAGE, TARGET_DAMAGE
from fuscore_training.labels.degradations import DEGRADATIONS, Degradation, Sources, draw_region
from fuscore_training.labels.proxy_ratings import SOURCE_KINDS, fitted, read_image
from fuscore_training.labels.visible_change import visible_change
from fuscore_training.ratings import SCORE_COLUMNS, RatingsTable

DAMAGE: dict[str, tuple[Degradation, float, float]] = {
    **DEGRADATIONS,
    **COLOUR_DAMAGE,
    **TARGET_DAMAGE,
}
LADDER = {"kind": "ladder", "viewers": 0}
FOREIGN = {
    "kind": "control",
    "overall": 1.1,
    "thermal_retention": 1.0,
    "texture_preservation": 1.0,
    "artifacts": 3.0,
    "sharpness": 3.0,
}
GROUPS = (tuple(DEGRADATIONS), tuple(COLOUR_DAMAGE), tuple(TARGET_DAMAGE))


@dataclass(frozen=True)
class LadderOptions:
    """How many damaged pictures are made.

    Attributes:
        share: Share of the undamaged pictures that viewers rated which get a damaged version.
        groups: Chances of damage as `degradations` has it, of colour, of lost targets.
        mixed: Share of damaged pictures with a second kind, of `degradations`.
        local: Share of damaged pictures whose damage is in a part of the picture.
        sources: Share of the scenes with drawn fusions that are fused again from damaged sources.
        foreign: How many pictures are shown beside sources of another scene.
        seed: Seed of every draw.
        workers: Processes.
    """

    share: float = 0.5
    groups: tuple[float, float, float] = (0.5, 0.25, 0.25)
    mixed: float = 0.15
    local: float = 0.2
    sources: float = 0.5
    foreign: int = 150
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
        Rows as in the panel; `kind` says "ladder", or "control" of a picture of another scene;
        `change` is the visible change from its base.
    """
    bases = panel.frame[panel.frame["kind"] == "method"]
    drawn = bases[bases["base"].isin(MAKERS)].groupby("source_pair", sort=False)
    scenes = [scene.to_dict("records") for _, scene in drawn]
    curves = read_curves(ratings)
    damage_one = partial(_damaged, curves=curves, out=out, options=options)
    draw_again = partial(_of_damaged_sources, curves=curves, out=out, options=options)
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers) as pool:
        damaged = pool.map(damage_one, bases.to_dict("records"), chunksize=8)
        again = pool.map(draw_again, scenes)
        rows = [*filter(None, damaged), *itertools.chain.from_iterable(again)]
    rows += _foreign(bases, out, options)
    return RatingsTable(pd.DataFrame(rows), panel.label_kind, panel.description)


def _damaged(
    base: dict[Any, Any], curves: dict[str, Curve], out: Path, options: LadderOptions
) -> dict[str, Any] | None:
    """One damaged version; None if there should be none, or if it changes nothing."""
    name = f"{base['source_pair']} {base['method']}"
    rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
    if rng.random() >= options.share:
        return None
    sources = Sources(luma(read_image(Path(base["ir"]), "ir")), luma(read_image(Path(base["vis"]))))
    damaged = picture = read_image(Path(base["fused"]))
    scores, change, words = {name: float(base[name]) for name in SCORE_COLUMNS}, 0.0, []
    local = rng.random() < options.local
    where = draw_region(sources.ir.shape, rng) if local else None
    for kind in _kinds(rng, options):
        before, strength = damaged, _strength(kind, rng)
        damaged = damage(before, kind, strength, sources, rng, where)
        change = visible_change(damaged, before)
        scores = _lowered(scores, curves[kind], change)
        words.append(f"{kind}={strength:.4g}")
    if visible_change(damaged, picture) < 1e-4:
        return None  # a grey picture's hue, or no target to lose
    method = f"{base['method']}+{'+'.join(words)}{' in a part' if local else ''}"
    file = _written(damaged, out / f"{zlib.crc32(name.encode()):08x}.png")
    return {**base, **LADDER, **scores, "method": method, "fused": file, "change": change}


def _lowered(scores: dict[str, float], curve: Curve, change: float) -> dict[str, float]:
    """The scores that damage of some visible change leaves."""
    kept, powers = float(curve.kept(change)), (1.0, *curve.hits)
    return {
        score: 1 + (scores[score] - 1) * kept**power
        for score, power in zip(SCORE_COLUMNS, powers, strict=True)
    }


def _of_damaged_sources(
    bases: list[dict[Any, Any]], curves: dict[str, Curve], out: Path, options: LadderOptions
) -> list[dict[str, Any]]:
    """Fuse one scene's damaged sources as each of its drawn fusions was made.

    The model is shown the damaged sources beside them half of the time, else the clean ones.
    """
    pair = str(bases[0]["source_pair"])
    rng = np.random.default_rng([options.seed, zlib.crc32(pair.encode())])
    if rng.random() >= options.sources:
        return []
    kind = str(rng.choice(SOURCE_KINDS))
    strength, shown_damaged = _strength(kind, rng), bool(rng.random() < 0.5)
    clean = {name: read_image(Path(bases[0][name]), name) for name in ("ir", "vis")}
    sources = Sources(luma(clean["ir"]), luma(clean["vis"]))
    damaged = {
        name: damage(image, kind, strength, sources, rng, None) for name, image in clean.items()
    }
    words, stem = f"{kind}={strength:.4g}", f"{zlib.crc32(pair.encode()):08x}_sources"
    shown: dict[str, str] = {}
    if shown_damaged:
        shown = {
            name: _written(image, out / f"{stem}_{name}.png") for name, image in damaged.items()
        }
        shown["source_pair"] = f"{pair}, sources {words}"
    rows = []
    for base in bases:
        seed = int(base["seed"])
        make, draws = MAKERS[str(base["base"])], np.random.default_rng(seed)
        fused = make(damaged["ir"], damaged["vis"], draws)
        fused = np.asarray(to_bytes(fused) / 255.0)
        change = visible_change(fused, read_image(Path(base["fused"])))
        scores = _lowered(
            {score: float(base[score]) for score in SCORE_COLUMNS}, curves[kind], change
        )
        method = f"{base['method']} of sources+{words}"
        file = _written(fused, out / f"{stem}_{seed}.png")
        found = {"method": method, "fused": file, "change": change}
        rows.append({**base, **LADDER, **shown, **scores, **found})
    return rows


def _foreign(bases: pd.DataFrame, out: Path, options: LadderOptions) -> Iterator[dict[Any, Any]]:
    """Fusions of one scene beside the sources of another: by construction as bad as can be."""
    rng = np.random.default_rng(options.seed)
    chosen = bases.iloc[rng.permutation(len(bases))[: options.foreign]]
    others = bases.iloc[rng.choice(len(bases), len(chosen))]
    pairs = zip(chosen.to_dict("records"), others.to_dict("records"), strict=True)
    for number, (base, other) in enumerate(pairs):
        if base["scene"] == other["scene"]:
            continue
        with PILImage.open(other["fused"]) as file:
            resized = fitted(file.convert("RGB"), read_image(Path(base["ir"]), "ir").shape)
        file_name = _written(resized / 255.0, out / f"foreign_{number}.png")
        made = {"method": f"foreign_{number}", "fused": file_name, "other_scene": other["scene"]}
        yield dict(base) | LADDER | FOREIGN | made


def _written(image: Image, file: Path) -> str:
    PILImage.fromarray(to_bytes(image)).save(file, compress_level=1)
    return str(file.resolve())


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
