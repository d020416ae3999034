"""Scenes -> what FuScore, its guard, its labels and classic measures say of each trick's outcome.

One row per picture: `scene, method, trick, variant` and the numbers. Rows with trick "" are the
untouched fusions, all of the scene's, which the tricked ones are ranked against.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from fuscore_training.fusions.classic import luma, to_bytes
from fuscore_training.labels.degradations import Sources
from fuscore_training.labels.proxy_ratings import Scene
from fuscore_training.labels.sub_scores import SourcePair
from PIL import Image as PILImage

from benchmarks.accuracy.triples import Loaded, Pixels, load, seeded
from benchmarks.gaming.adversary import as_batch, climb
from benchmarks.gaming.report import MEASURES
from benchmarks.gaming.tricks import TRICKS
from fuscore_metric import FuScore, TrustRegion, measure
from fuscore_metric.prompts import ASPECTS

Row = dict[str, Any]

FUSIONS, BATCH = 3, 8
GUARD = TrustRegion()
CLIMBS: dict[str, dict[str, Any]] = {
    "1/255": {"radius": 1},
    "2/255": {"radius": 2},
    "4/255": {"radius": 4},
    "4/255, climbs the guarded reward": {"radius": 4, "guard": GUARD},
    "4/255, climbs the reward with a reference": {
        "radius": 4,
        "guard": GUARD,
        "with_reference": True,
    },
}
RADII = (0.02, 0.01, 0.005, 0.0)
"""Free mean distances to the reference, tried on validation scenes; the first is the default."""
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Measuring:
    """A scene in memory, and everything that is said of one fusion of it."""

    def __init__(self, scene: Scene, model: FuScore) -> None:
        self.here: Loaded = load(scene)
        self.model = model
        self.lumas = Sources(luma(self.here.ir / 255.0), luma(self.here.vis / 255.0))
        self.sources = as_batch([self.here.ir]), as_batch([self.here.vis])
        self.pair = SourcePair(self.lumas.ir, self.lumas.vis)
        published = self.here.published or [m for m in self.here.fused if m.startswith("plain_")]
        drawn = seeded(scene, "gaming").choice(
            published, min(FUSIONS, len(published)), replace=False
        )
        self.methods = sorted(map(str, drawn))

    @torch.no_grad()
    def score(self, pictures: list[Pixels], reference: Pixels) -> list[Row]:
        """Scores of all aspects, std of the overall level, and the guard's charges."""
        rows: list[Row] = []
        pair = self.model.encode_sources(*self.sources)
        start = as_batch([reference])
        for first in range(0, len(pictures), BATCH):
            batch = as_batch(pictures[first : first + BATCH])
            said = self.model.score_fused(pair, batch, aspects=ASPECTS)
            alone = GUARD.penalty(*self.sources, batch)
            beside = GUARD.penalty(*self.sources, batch, reference=start)
            for number in range(len(batch)):
                row = dict(zip(ASPECTS, said.score[number].tolist(), strict=True))
                row["std"] = said.std[number, 0].item()
                row["charge"], row["charge_ref"] = alone[number].item(), beside[number].item()
                rows.append(row)
        return rows

    def measure(self, fused: Pixels) -> Row:
        """The proxy rating as if undamaged, and measures that FuScore was not trained on."""
        scores = self.pair.rate(luma(fused / 255.0))
        classic = measure(self.here.ir, self.here.vis, fused, names=MEASURES, device="cpu")
        return {
            "rating": scores.overall,
            **{f"rating_{name}": value for name, value in asdict(scores).items()},
            **{name: value.item() for name, value in classic.items()},
        }

    def tricked(self, method: str) -> dict[tuple[str, str], Pixels]:
        """All cheap tricks on one fusion."""
        image = self.here.fused[method] / 255.0
        found = {}
        for trick, variants in TRICKS.items():
            for variant, (function, strength) in variants.items():
                rng = seeded(self.here.scene, f"{method} {trick}")
                found[trick, variant] = to_bytes(function(image, strength, self.lumas, rng))
        return found


def untouched(work: Measuring) -> list[Row]:
    """Every undamaged fusion of the scene."""
    rows = []
    for method, fused in work.here.fused.items():
        (said,) = work.score([fused], fused)
        rows.append({"method": method, "trick": "", "variant": ""} | said)
    return rows


def cheap_tricks(scene: Scene, model: FuScore) -> list[Row]:
    """Score some fusions of a scene before and after every trick."""
    work = Measuring(scene, model)
    rows = untouched(work)
    for method in work.methods:
        found = work.tricked(method)
        said = work.score(list(found.values()), work.here.fused[method])
        for (trick, variant), row in zip(found, said, strict=True):
            rows.append({"method": method, "trick": trick, "variant": variant} | row)
    return [{"scene": scene.name} | row for row in rows]


def label_changes(scene: Scene, model: FuScore) -> list[Row]:
    """Measure one fusion of a scene before and after every trick, without FuScore."""
    work = Measuring(scene, model)
    method = work.methods[0]
    found = {("", ""): work.here.fused[method]} | work.tricked(method)
    return [
        {"scene": scene.name, "method": method, "trick": trick, "variant": variant}
        | work.measure(fused)
        for (trick, variant), fused in found.items()
    ]


def adversarial(scene: Scene, model: FuScore) -> list[Row]:
    """Attack one fusion of a scene by gradient; look at what is left after JPEG and a shift."""
    work = Measuring(scene, model)
    method = work.methods[0]
    fused = work.here.fused[method]
    found = {"": fused}
    for variant, options in CLIMBS.items():
        found[variant] = climb(model, work.here.ir, work.here.vis, fused, **options)
    rows: list[Row] = []
    said = work.score(list(found.values()), fused)
    for (variant, picture), row in zip(found.items(), said, strict=True):
        names = {"scene": scene.name, "method": method, "variant": variant}
        names["trick"] = "adversarial" * bool(variant)
        moved = {"moved": np.abs(picture.astype(int) - fused).mean()}
        rows.append(names | row | work.measure(picture) | transfer(work, picture) | moved)
    return rows


def guarded(scene: Scene, model: FuScore) -> list[Row]:
    """Attack one fusion of a scene under guards that hold it nearer and nearer to itself."""
    work = Measuring(scene, model)
    method = work.methods[0]
    fused = work.here.fused[method]
    start = as_batch([fused])
    rows: list[Row] = []
    for reference_radius in RADII:
        guard = TrustRegion(reference_radius=reference_radius)
        for radius in (1, 4):
            picture = climb(
                *(model, work.here.ir, work.here.vis, fused, radius),
                guard=guard,
                with_reference=True,
            )
            before, after = work.score([fused, picture], fused)
            with torch.no_grad():
                pictures = as_batch([fused, picture])
                free, paid = guard.penalty(*work.sources, pictures, reference=start).tolist()
            rise = after["overall"] - before["overall"]
            rows.append(
                {
                    "scene": scene.name,
                    "method": method,
                    "reference_radius": reference_radius,
                    "ball": f"{radius}/255",
                    "score": rise,
                    "left": rise - max(0.0, paid - free),
                }
            )
    return rows


@torch.no_grad()
def transfer(work: Measuring, fused: Pixels) -> Row:
    """Scores after changes that the attacker did not foresee."""
    model, (ir, vis) = work.model, work.sources
    (saved,) = work.score([jpeg(fused)], fused)
    shifted = []
    for down, right in SHIFTS:
        cut = (slice(None), slice(None), slice(down, None), slice(right, None))
        shifted.append(model(ir[cut], vis[cut], as_batch([fused])[cut]).score.item())
    return {
        "after JPEG": saved["overall"],
        "after a shift": shifted[-1],
        "mean of shifts": float(np.mean(shifted)),
    }


def jpeg(image: Pixels) -> Pixels:
    """As saved at quality 90 and read again."""
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "JPEG", quality=90)
    return np.asarray(PILImage.open(buffer))
