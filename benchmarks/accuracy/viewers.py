r"""Agreement with viewers: pictures that viewers rated -> FuScore and classic measures -> tables.

    python -m benchmarks.accuracy.viewers --data ../shared/data --model embedded \
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

import pandas as pd
from fuscore_training.split import read_split

from benchmarks import REPOSITORY
from benchmarks.accuracy.panel import TABLES, read_panel
from benchmarks.accuracy.protocol import SPLIT, digest, write
from benchmarks.accuracy.viewer_results import fuscore_column
from benchmarks.accuracy.viewer_tables import write_tables
from fuscore_metric import FuScore, measure, predict
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.prompts import ASPECTS

RATINGS = REPOSITORY / "training" / "ratings"

Compute = Callable[[pd.DataFrame], pd.DataFrame]
"""Pictures of one scene -> a line of values for each, in their order."""


def fuscore(model: FuScore) -> Compute:
    """All aspects; the sources of a scene are read once."""

    def scores(pictures: pd.DataFrame) -> pd.DataFrame:
        files = (pictures[name].tolist() for name in ("ir", "vis", "fused"))
        found = predict(*files, model=model, aspects=ASPECTS).score
        return pd.DataFrame(found.tolist(), columns=[fuscore_column(name) for name in ASPECTS])

    return scores


def classic(pictures: pd.DataFrame) -> pd.DataFrame:
    """All classic measures; what they need of a scene's sources is computed once."""
    files = (pictures[name].tolist() for name in ("ir", "vis", "fused"))
    return pd.DataFrame({n: values.numpy() for n, values in measure(*files, names="all").items()})


def measured(pictures: pd.DataFrame, compute: Compute, folder: Path) -> pd.DataFrame:
    """Values of all pictures, in their order; what is in `folder` already is only read."""
    frames, scenes = [], list(pictures.groupby(["table", "scene"], sort=False))
    for number, ((table, scene), rows) in enumerate(scenes, start=1):
        path = folder / str(table) / f"{str(scene).replace('/', '__')}.parquet"
        values = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"picture": []})
        if values["picture"].tolist() != rows["picture"].tolist():
            values = compute(rows)
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
    add("--model", default="embedded", help="embedded, a directory or a hub id")
    add("--split", type=Path, default=SPLIT, help="default: training/recipes/split.yaml")
    add("--all", action="store_true", help="measure the pictures of training scenes too")
    add("--out", type=Path, required=True, help="folder of pictures, values and results")
    options = parser.parse_args(arguments)
    split, made = read_split(options.split), options.out / "pictures"
    whole = TABLES if options.all else ()
    pictures = read_panel(options.ratings, options.data, made, split, whole=whole)
    weights = locate(options.model)
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
