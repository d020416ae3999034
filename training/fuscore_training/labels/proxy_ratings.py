"""Proxy ratings: a ratings table made from source pairs, real fusions and controlled damage.

No human rating is reachable from the build machines. In its place stands what is *known* about
an image: how it was made, how strongly it was degraded, and classic measures of a pristine
fusion against its sources (`sub_scores`). The table's label kind is "proxy", and so is that of
every model trained on it.

Rows of one scene:
- every published method's output found beside the pair, and four plain fusions of ours, measured;
- degraded versions of those, whose scores are the base's times the retention of `severity`, hitting
  the sub-scores by `HITS`: ladders of one kind at three strengths, mixtures of two kinds in
  random order, and damage to a part of the image;
- fusions of degraded sources, rated against those sources, likewise;
- controls: copies of either source, and the fusion of another scene.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage

from fuscore_metric.images.convert import as_images
from fuscore_metric.runs.folders import is_image_name
from fuscore_training.fusions.classic import (
    CLASSIC_FUSIONS,
    Image,
    laplacian_pyramid,
    luma,
    recolour,
    to_bytes,
)
from fuscore_training.labels.degradations import Sources, degrade, draw_region, draw_strength
from fuscore_training.labels.severity import HITS, Severity, fit_severity
from fuscore_training.labels.sub_scores import SourcePair, SubScores
from fuscore_training.ratings import RatingsTable, write_ratings

log = logging.getLogger(__name__)

SETS = ("VIFB", "TNO", "RoadScene", "MSRS", "M3FD", "FMB")

LADDER_STEPS = 3
SOURCE_KINDS = ("noise", "stripes", "blur")
DESCRIPTION = (
    "Proxy ratings, not human ones: classic measures of pristine fusions and known strengths of "
    "controlled degradations, mapped to 1-5; noise, stripes and blur after mean human opinions."
)


@dataclass(frozen=True)
class ProxyConfig:
    """How many rows of each kind a scene gets.

    Attributes:
        ladders: Fused images degraded by one kind at `LADDER_STEPS` strengths each.
        mixed: Fused images degraded by two kinds.
        local: Fused images degraded in a part of the picture.
        source_degraded: Source pairs degraded before fusing, each fused in two ways.
        foreign: Fusions of other scenes put in this one's place.
        seed: Seed of every draw; a scene's rows depend on nothing else but which scenes there are.
        workers: Processes.
    """

    ladders: int = 5
    mixed: int = 6
    local: int = 5
    source_degraded: int = 1
    foreign: int = 2
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True)
class Scene:
    """Files of one scene: its name `set/stem`, both sources, and fused images by method."""

    name: str
    ir: Path
    vis: Path
    fused: dict[str, Path]


@dataclass(frozen=True)
class Rated:
    """A fused image of known quality, before it becomes a row.

    Attributes:
        base: The fusion method behind the pixels; empty for none.
        pixels: (H, W) or (H, W, 3) uint8.
        path: Where the file already is; None when it has to be written.
        overall: Overall rating; follows from `scores` for pristine images only.
        other_scene: Scene that the pixels show, if not the one they are rated in.
    """

    method: str
    base: str
    kind: str
    pixels: NDArray[np.uint8]
    scores: SubScores
    overall: float
    path: Path | None = None
    other_scene: str = ""


def find_scenes(data: Path) -> list[Scene]:
    """List the scenes of a folder laid out as `<set>/{ir,vis}/<scene>`, `<set>/fused/<method>/`."""
    scenes = []
    for name in SETS:
        files = {p.stem: p for p in _images(data / name / "vis")}
        methods = sorted(p for p in (data / name / "fused").glob("*") if p.is_dir())
        outputs = {m.name: {p.stem: p for p in _images(m)} for m in methods}
        for ir in _images(data / name / "ir"):
            if ir.stem not in files:
                raise ValueError(f"Expected a visible image beside {ir}, found none")
            fused = {m: found[ir.stem] for m, found in outputs.items() if ir.stem in found}
            scenes.append(Scene(f"{name}/{ir.stem}", ir, files[ir.stem], fused))
    if not scenes:
        raise ValueError(f"Expected source pairs as <set>/ir and <set>/vis in {data}, found none")
    return scenes


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if is_image_name(p.name))


def make_proxy_ratings(data: Path, out: Path, config: ProxyConfig | None = None) -> RatingsTable:
    """Write the degraded images and the table `ratings.parquet` into `out`.

    Args:
        data: Folder of real source pairs and fusions, with `human_severity.csv`.
        out: New images go to `out/images`; files that exist already are only referred to.
        config: Numbers of rows and seed.

    Returns:
        The table, label kind "proxy".
    """
    config = config or ProxyConfig()
    scenes = find_scenes(data)
    severity = fit_severity(data / "human_severity.csv")
    work = partial(_scene_rows, scenes=scenes, severity=severity, out=out, config=config)
    # With a thread per core in each, the processes would fight over the cores.
    with ProcessPoolExecutor(
        config.workers, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        rows = [row for found in pool.map(work, range(len(scenes))) for row in found]
    log.info("%d proxy ratings of %d scenes", len(rows), len(scenes))
    table = RatingsTable(pd.DataFrame(rows), "proxy", DESCRIPTION)
    write_ratings(table, out / "ratings.parquet")
    return table


def _scene_rows(
    index: int, *, scenes: list[Scene], severity: Severity, out: Path, config: ProxyConfig
) -> list[dict[str, object]]:
    scene = scenes[index]
    rng = np.random.default_rng([config.seed, zlib.crc32(scene.name.encode())])
    ir, vis = read_image(scene.ir, "ir"), read_image(scene.vis)
    pair = SourcePair(luma(ir), luma(vis))
    pristine = _pristine(scene, pair, vis, rng)
    folder = out / "images" / scene.name
    folder.mkdir(parents=True, exist_ok=True)
    sources = Sources(pair.ir, pair.vis)
    rated = [
        *pristine,
        *_numbered(_degraded(pristine, sources, severity, rng, config)),
        *_copies(scene, ir, vis, pair),
        *_foreign(scene, scenes, pair, rng, config.foreign),
    ]
    rows = [_row(item, scene.name, scene.name, scene.ir, scene.vis, folder) for item in rated]
    for number in range(config.source_degraded):
        rows += _degraded_sources(number, scene.name, vis, pair, pristine, severity, rng, folder)
    return rows


def read_image(path: Path, argument: str = "fused") -> Image:
    """(H, W, 3) float64 in [0, 1]; grey files stay (H, W).

    Args:
        path: The file.
        argument: "ir", "vis" or "fused": the rule for more than 8 bits.
    """
    with PILImage.open(path) as file:
        if file.mode.startswith(("I", "F")):
            return as_images(path, argument)[0][0].double().numpy()
        grey = file.mode in ("L", "1", "LA")
        return np.asarray(file.convert("L" if grey else "RGB"), dtype=np.float64) / 255.0


def _pristine(scene: Scene, pair: SourcePair, vis: Image, rng: np.random.Generator) -> list[Rated]:
    found = []
    for method, path in scene.fused.items():
        image = read_image(path)
        scores = pair.rate(luma(image))
        found.append(Rated(method, method, "method", to_bytes(image), scores, scores.overall, path))
    for name, fuse in CLASSIC_FUSIONS.items():
        image = fuse(pair.ir, pair.vis)
        scores = pair.rate(image)
        # Published outputs come grey as often as in colour; ours should not be recognisable by it.
        shown = recolour(image, vis) if vis.ndim == 3 and rng.random() < 0.5 else image
        name = f"plain_{name}"
        found.append(Rated(name, name, "plain", to_bytes(shown), scores, scores.overall))
    return found


def _hit(scores: SubScores, kind: str, kept: float) -> SubScores:
    names = [field.name for field in fields(SubScores)]
    return SubScores(
        *(
            1 + (getattr(scores, name) - 1) * kept**power
            for name, power in zip(names, HITS[kind], strict=True)
        )
    )


def _degraded(
    pristine: list[Rated],
    sources: Sources,
    severity: Severity,
    rng: np.random.Generator,
    config: ProxyConfig,
) -> Iterator[Rated]:
    def draw(kinds: int) -> tuple[Rated, list[str]]:
        base = pristine[rng.integers(len(pristine))]
        return base, list(map(str, rng.choice(list(HITS), size=kinds, replace=False)))

    def damage(base: Rated, kinds: list[str], where: Image | None = None) -> Rated:
        return _damage(base, kinds, sources, severity, rng, where)

    for _ in range(config.ladders):
        base, kinds = draw(1)
        yield from (damage(base, kinds) for _ in range(LADDER_STEPS))
    for _ in range(config.mixed):
        yield damage(*draw(2))
    for _ in range(config.local):
        yield damage(*draw(1), where=draw_region(sources.ir.shape, rng))


def _numbered(items: Iterable[Rated]) -> Iterator[Rated]:
    """Two draws may agree in every printed digit; a source pair's methods need distinct names."""
    for number, item in enumerate(items):
        yield replace(item, method=f"{item.method}#{number}")


def _damage(
    base: Rated,
    kinds: list[str],
    sources: Sources,
    severity: Severity,
    rng: np.random.Generator,
    where: Image | None,
) -> Rated:
    # A part that is ruined counts for more than its area: its share enters by the square root.
    weight = 1.0 if where is None else float(np.sqrt(where.mean()))
    pixels, scores, overall, names = base.pixels, base.scores, base.overall, []
    for kind in kinds:
        strength = draw_strength(kind, rng)
        kept = 1 - weight * (1 - severity.retention(kind, strength))
        pixels = degrade(pixels / 255.0, kind, strength, sources, rng, where=where)
        scores, overall = _hit(scores, kind, kept), 1 + (overall - 1) * kept
        names.append(f"{kind}={strength:.4g}")
    place = "" if where is None else f" on {where.mean():.4f}"
    method = f"{base.method}+{'+'.join(names)}{place}"
    return Rated(method, base.method, "degraded", pixels, scores, overall)


def _copies(scene: Scene, ir: Image, vis: Image, pair: SourcePair) -> Iterator[Rated]:
    """A copy of one source keeps nothing of the other: that sub-score is 1 by construction."""
    for name, image, path, lost in (
        ("ir", ir, scene.ir, "texture_preservation"),
        ("vis", vis, scene.vis, "thermal_retention"),
    ):
        scores = replace(pair.rate(luma(image)), **{lost: 1.0})
        yield Rated(f"copy_of_{name}", "", "control", to_bytes(image), scores, scores.overall, path)


def fitted(picture: PILImage.Image, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resize another scene's picture to (height, width, ...): (H, W, 3) in 8 bits."""
    height, width = shape[:2]
    return np.asarray(picture.resize((width, height), PILImage.Resampling.BICUBIC))


def _foreign(
    scene: Scene, scenes: list[Scene], pair: SourcePair, rng: np.random.Generator, count: int
) -> Iterator[Rated]:
    """Another scene's fusion may be sharp and clean, but shows nothing of these sources."""
    others = [s for s in scenes if s.name != scene.name]
    for number in range(count):
        other = others[rng.integers(len(others))]
        if other.fused and rng.random() < 0.5:
            method = list(other.fused)[rng.integers(len(other.fused))]
            image = read_image(other.fused[method])
        else:
            method, vis = "plain_laplacian_pyramid", read_image(other.vis)
            image = laplacian_pyramid(luma(read_image(other.ir, "ir")), luma(vis))
            image = recolour(image, vis) if vis.ndim == 3 else image
        scores = SubScores(1.0, 1.0, 3.0, 3.0)
        yield Rated(
            f"foreign_{number}",
            method,
            "control",
            fitted(PILImage.fromarray(to_bytes(image)), pair.ir.shape),
            scores,
            overall=1.1,
            other_scene=other.name,
        )


def _degraded_sources(
    number: int,
    scene: str,
    vis: Image,
    pair: SourcePair,
    pristine: list[Rated],
    severity: Severity,
    rng: np.random.Generator,
    folder: Path,
) -> list[dict[str, object]]:
    """Both sources degraded alike before fusing, as in the human study; rated against those."""
    kind = str(rng.choice(SOURCE_KINDS))
    strength = draw_strength(kind, rng)
    clean = Sources(pair.ir, pair.vis)
    paths = {}
    degraded: dict[str, NDArray[np.uint8]] = {}
    for name, image in (("ir", pair.ir), ("vis", vis)):
        degraded[name] = degrade(image, kind, strength, clean, rng)
        paths[name] = folder / f"source_{number}_{name}.png"
        _write(degraded[name], paths[name])
    rows = []
    clean_fusions = {item.method: item for item in pristine}
    for fusion in ("average", "laplacian_pyramid"):
        fuse, base = CLASSIC_FUSIONS[fusion], clean_fusions[f"plain_{fusion}"]
        gain = 1 / np.sqrt(2) if fusion == "average" and kind != "blur" else 1.0
        kept = severity.retention(kind, strength * gain)
        shown = to_bytes(fuse(degraded["ir"] / 255.0, luma(degraded["vis"] / 255.0)))
        overall = 1 + (base.overall - 1) * kept
        method = f"plain_{fusion} of sources+{kind}={strength:.3g}#{number}"
        scores = _hit(base.scores, kind, kept)
        item = Rated(method, base.method, "degraded_sources", shown, scores, overall)
        rows.append(_row(item, scene, f"{scene}#{number}", paths["ir"], paths["vis"], folder))
    return rows


def _row(
    item: Rated, scene: str, source_pair: str, ir: Path, vis: Path, folder: Path
) -> dict[str, object]:
    path = item.path
    if path is None:
        name = f"{zlib.crc32(item.method.encode()):08x}.png"
        path = folder / name
        _write(item.pixels, path)
    scores = {field.name: getattr(item.scores, field.name) for field in fields(SubScores)}
    return {
        "scene": scene,
        "method": item.method,
        "base": item.base,
        "other_scene": item.other_scene,
        "ir": str(ir.resolve()),
        "vis": str(vis.resolve()),
        "fused": str(path.resolve()),
        "overall": item.overall,
        **scores,
        "source_pair": source_pair,
        "kind": item.kind,
    }


def _write(pixels: NDArray[np.uint8], path: Path) -> None:
    PILImage.fromarray(pixels).save(path, compress_level=1)
