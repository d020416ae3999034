r"""The fixed accuracy protocol: test scenes -> values of every measure on disk -> one table.

    python -m benchmarks.accuracy.protocol --data ../shared/data \
        --ratings runs/proxy/ratings.parquet --model embedded \
        --measures fuscore,classic --out runs/accuracy
    python -m benchmarks.accuracy.protocol --out runs/accuracy --table-only

Each finished (measures, part, scene) is a Parquet file in OUT/values, and is not computed again: an
interrupted run resumes, and a run in another environment adds its measures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from fuscore_training.labels.proxy_ratings import Scene, find_scenes
from fuscore_training.ratings import read_ratings
from fuscore_training.split import Split, read_split

from benchmarks import REPOSITORY
from benchmarks.accuracy.results import PARTS
from benchmarks.accuracy.tables import write_results
from benchmarks.accuracy.triples import (
    Item,
    Pixels,
    agreement,
    controls,
    evenly,
    ladder_scenes,
    ladders,
    load,
    rated_rows,
    stability,
)

FAMILIES = ("fuscore", "classic", "no_reference")
BATCH = 8
SPLIT = REPOSITORY / "training" / "recipes" / "split.yaml"

Measure = Callable[[list[Item]], list[dict[str, float]]]
"""Triples -> the values of one family of measures for each."""


@dataclass(frozen=True)
class PreparedData:
    """What is measured.

    Attributes:
        tests: All test scenes of the split that the data holds, in its order.
        scenes: Those to measure, by part.
        ratings: Rated rows to measure; empty without a ratings file.
    """

    split: Split
    tests: list[Scene]
    scenes: dict[str, list[Scene]]
    ratings: pd.DataFrame

    def items(self, part: str, scene: Scene) -> Iterator[Item]:
        """Triples of a scene in a part, one by one."""
        if part == "agreement":
            return agreement(self.ratings[self.ratings["scene"] == scene.name])
        if part == "ladders":
            return ladders(load(scene), self.split)
        if part == "stability":
            return stability(load(scene))
        # Half the list away: neighbours in the list may be neighbours in a video.
        place = [test.name for test in self.tests].index(scene.name)
        return controls(load(scene), self.tests[(place + len(self.tests) // 2) % len(self.tests)])


def read_prepared(options: argparse.Namespace) -> PreparedData:
    """Find the test scenes and the rated rows of the command line's options."""
    split = read_split(options.split)
    found = {scene.name: scene for scene in find_scenes(options.data)}
    if missing := [name for name in split.test if name not in found]:
        raise SystemExit(f"Expected the split's test scenes in {options.data}, missing: {missing}")
    tests = [found[name] for name in split.test]
    scenes = dict.fromkeys(PARTS, evenly(tests, options.scenes))
    scenes["ladders"] = ladder_scenes(scenes["ladders"], options.ladder_scenes)
    ratings = pd.DataFrame()
    if "agreement" in options.parts:
        if options.ratings is None:
            raise SystemExit("Expected --ratings FILE for the part agreement")
        pin(options.out / "ratings.json", {"sha256": digest(options.ratings)})
        frame = read_ratings(options.ratings).frame
        ratings = rated_rows(frame[frame["scene"].isin(split.test)])
    return PreparedData(split, tests, scenes, ratings)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def pin(path: Path, content: dict[str, Any]) -> None:
    """Write what the values in a folder stand on, or refuse to mix them with others."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    elif (there := json.loads(path.read_text()))["sha256"] != content["sha256"]:
        raise SystemExit(
            f"Expected sha256 {there['sha256']} as in {path}, got {content['sha256']}: "
            "take another --out for other weights or ratings"
        )


def fuscore(options: argparse.Namespace) -> Measure:
    """FuScore with the weights asked for; OUT/weights.json says which."""
    from fuscore_metric.checkpoints.locate import locate
    from fuscore_metric.model import FuScore
    from fuscore_metric.scoring import predict

    folder = locate(options.model)
    model = FuScore.from_pretrained(folder)
    unseen = {
        key: model.spec.metrics.get(key, []) for key in ("held_out_scenes", "held_out_methods")
    }
    content = {
        "sha256": digest(folder / "model.safetensors"),
        "weights": options.model,
        "name": model.spec.name,
        "labels": model.spec.label_statement(),
        **unseen,
    }
    pin(options.out / "weights.json", content)

    def measure(items: list[Item]) -> list[dict[str, float]]:
        images = ([getattr(item, name) for item in items] for name in ("ir", "vis", "fused"))
        return [
            {"FuScore": s} for s in predict(*images, model=model, batch_size=BATCH).score.tolist()
        ]

    return measure


def classic(_: argparse.Namespace) -> Measure:
    """The ten classic measures of papers."""
    import fuscore_metric

    def measure(ir: Pixels, vis: Pixels, fused: Pixels) -> dict[str, float]:
        found = fuscore_metric.measure(ir, vis, fused, device="cpu")
        return {name: value.item() for name, value in found.items()}

    return one_by_one(measure)


def no_reference(_: argparse.Namespace) -> Measure:
    """The no-reference measures of pyiqa."""
    from benchmarks.accuracy.no_reference import NoReference

    return one_by_one(NoReference())


def one_by_one(measure: Callable[..., dict[str, float]]) -> Measure:
    """Make a measure of one triple one of many."""
    return lambda items: [measure(item.ir, item.vis, item.fused) for item in items]


MAKERS: dict[str, Callable[[argparse.Namespace], Measure]] = {
    "fuscore": fuscore,
    "classic": classic,
    "no_reference": no_reference,
}


def run(options: argparse.Namespace) -> None:
    """Measure what is not on disk yet, part by part and scene by scene."""
    prepared = read_prepared(options)
    for family in options.measures:
        measure = MAKERS[family](options)
        for part in options.parts:
            scenes = prepared.scenes[part]
            if part == "ladders" and family != "fuscore":
                scenes = evenly(scenes, options.classic_scenes)
            for number, scene in enumerate(scenes, start=1):
                path = (
                    options.out
                    / "values"
                    / family
                    / part
                    / f"{scene.name.replace('/', '__')}.parquet"
                )
                if path.is_file():
                    continue
                start = time.perf_counter()
                frame = measured(scene, prepared.items(part, scene), measure)
                write(frame, path)
                seconds = time.perf_counter() - start
                place = f"{family} {part} {number}/{len(scenes)} {scene.name}"
                print(f"{place}: {len(frame)} images in {seconds:.1f} s", flush=True)


def measured(scene: Scene, items: Iterable[Item], measure: Measure) -> pd.DataFrame:
    """One line per item: what it is, and its values. Holds a batch of images at a time."""
    lines: list[dict[str, Any]] = []
    for batch in batches(items):
        for item, values in zip(batch, measure(batch), strict=True):
            line = {"scene": scene.name, "group": item.group, "name": item.name}
            lines.append(line | {"level": item.level, "target": item.target} | values)
    return pd.DataFrame(lines)


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of at most `BATCH` items."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, BATCH)), [])


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    frame.to_parquet(part, index=False)
    part.replace(path)


def listed(text: str, *, known: tuple[str, ...]) -> list[str]:
    """Names of a comma list, each of them known."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(known)):
        raise argparse.ArgumentTypeError(f"expected {', '.join(known)}, got {', '.join(unknown)}")
    return names


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of values and results")
    add("--data", type=Path, help="folder of real source pairs and fusions")
    add("--ratings", type=Path, help="held-out ratings, for the part agreement")
    add("--split", type=Path, default=SPLIT, help="default: training/recipes/split.yaml")
    add("--model", default="embedded", help="embedded, a directory or a hub id")
    families = partial(listed, known=FAMILIES)
    add("--measures", type=families, action="extend", help=f"some of {','.join(FAMILIES)}")
    add("--parts", type=partial(listed, known=PARTS), default=list(PARTS), help="default: all")
    add("--scenes", type=int, help="at most so many test scenes, for a trial")
    add("--ladder-scenes", type=int, help="at most so many scenes climb ladders")
    add("--classic-scenes", type=int, help="so many of them for all measures but FuScore")
    add("--table-only", action="store_true", help="make the table from what is there")
    options = parser.parse_args(arguments)
    if not options.table_only and (options.data is None or not options.measures):
        parser.error("expected --data and --measures, or --table-only")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, unless asked not to, and write results.md and results.json."""
    options = parse(arguments)
    if not options.table_only:
        run(options)
    print(write_results(options.out, read_split(options.split)))


if __name__ == "__main__":
    main()
