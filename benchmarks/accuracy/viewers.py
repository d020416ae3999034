r"""Agreement with viewers: pictures that viewers rated -> FuScore and classic measures -> tables.

    python benchmarks/accuracy/viewers.py --data ../shared/data --weights embedded \
        --out runs/viewers

Weights that learned from viewers have seen the ratings of training scenes. So only pictures of
validation scenes are measured, and VIFB's published fusions for its leaderboard; --all measures
every picture.

Pictures that have a seed are made in OUT/pictures. Values are kept in OUT/values, by scene, those
of FuScore by the weights' checksum: a run that was interrupted goes on, and other weights do not
measure the classic measures again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import measures
import pandas as pd
from fuscore_training.classic_fusions import to_bytes
from fuscore_training.proxy_ratings import read_image
from fuscore_training.split import read_split
from panel import read_panel
from protocol import SPLIT, digest, write
from viewer_results import fuscore_column
from viewer_tables import write_tables

from fuscore_metric import FuScore, predict
from fuscore_metric.locate import locate
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS

RATINGS = Path(__file__).parents[2] / "training" / "ratings"

Measure = Callable[[pd.DataFrame], pd.DataFrame]
"""Pictures of one scene -> a line of values for each, in their order."""


def fuscore(model: FuScore) -> Measure:
    """All aspects; the sources of a scene are read once."""

    def measure(pictures: pd.DataFrame) -> pd.DataFrame:
        files = (pictures[name].tolist() for name in ("ir", "vis", "fused"))
        scores = predict(*files, model=model, aspect=ALL_ASPECTS).score
        return pd.DataFrame(scores.tolist(), columns=[fuscore_column(name) for name in ASPECTS])

    return measure


def classic(pictures: pd.DataFrame) -> pd.DataFrame:
    """The ten classic measures."""
    lines = []
    for files in pictures[["ir", "vis", "fused"]].itertuples(index=False):
        lines.append(measures.classic(*(to_bytes(read_image(Path(file))) for file in files)))
    return pd.DataFrame(lines)


def measured(pictures: pd.DataFrame, measure: Measure, folder: Path) -> pd.DataFrame:
    """Values of all pictures, in their order; what is in `folder` already is only read."""
    frames, scenes = [], list(pictures.groupby(["table", "scene"], sort=False))
    for number, ((table, scene), rows) in enumerate(scenes, start=1):
        path = folder / str(table) / f"{str(scene).replace('/', '__')}.parquet"
        values = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"picture": []})
        if values["picture"].tolist() != rows["picture"].tolist():
            values = measure(rows)
            values.insert(0, "picture", rows["picture"].tolist())
            write(values, path)
            end = "\n" if number == len(scenes) else ""
            print(f"\r{folder.name} {number}/{len(scenes)} {table} {scene:30}", end=end, flush=True)
        frames.append(values.drop(columns="picture").set_index(rows.index))
    return pd.concat(frames).loc[pictures.index]


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not there yet, and write results.md and results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of real source pairs, fusions and panel")
    add("--ratings", type=Path, default=RATINGS, help="default: training/ratings")
    add("--weights", default="embedded", help="embedded, a directory or a hub id")
    add("--split", type=Path, default=SPLIT, help="default: training/recipes/split.yaml")
    add("--all", action="store_true", help="measure the pictures of training scenes too")
    add("--out", type=Path, required=True, help="folder of pictures, values and results")
    options = parser.parse_args(arguments)
    split, made = read_split(options.split), options.out / "pictures"
    pictures = read_panel(options.ratings, options.data, made, split, everything=options.all)
    weights = locate(options.weights)
    checksum = digest(weights / "model.safetensors")
    model = FuScore.from_pretrained(weights)
    values = options.out / "values"
    both = (
        measured(pictures, fuscore(model), values / checksum[:12]),
        measured(pictures, classic, values / "classic"),
    )
    note = f"{model.spec.name}, {model.spec.label_statement()}, sha256 {checksum}"
    frame = pd.concat([pictures, *both], axis=1)
    print(write_tables(frame, options.data, options.out, note, everything=options.all))


if __name__ == "__main__":
    main()
