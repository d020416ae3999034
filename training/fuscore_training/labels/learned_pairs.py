"""Ratings that weights are trained on -> hashes of their source pairs, for `fuscore.json`.

Those of `fuscore-lite-5` were made after its training, by

    python -m fuscore_training.labels.learned_pairs --data ../shared/data
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fuscore_metric.checkpoints.learned import LearnedPairs, pair_hash
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.checkpoints.spec import EMBEDDED, read_spec
from fuscore_metric.images.convert import as_images
from fuscore_training.labels.panel import PANELS
from fuscore_training.labels.viewer_pictures import find_picture
from fuscore_training.split import read_split

SAME = 4
"""Bits by which the hashes of copies differ; of those one is enough. See `learned.NEAR`."""


def learned_pairs(frame: pd.DataFrame, *, known: Sequence[str] = ()) -> list[str]:
    """Hash the source pairs of training rows.

    Args:
        frame: Columns `ir` and `vis`, paths.
        known: Hashes that are there already.

    Returns:
        The further ones, in the order of the rows; of copies the first one's.
    """
    found = list(known)
    for ir, vis in frame[["ir", "vis"]].drop_duplicates().itertuples(index=False):
        pair = as_images(ir, "ir")[0], as_images(vis, "vis")[0]
        if not LearnedPairs(found).has(*pair, bits=SAME):
            found.append(pair_hash(*pair))
    return found[len(known) :]


def viewed_sources(ratings: Path, data: Path, split: Path) -> pd.DataFrame:
    """Find the source pairs of the training scenes of viewers' ratings.

    Args:
        ratings: Folder of the ratings.
        data: Folder of the pictures.
        split: Which scenes are not for training.

    Returns:
        Columns `scene`, `ir` and `vis`, a row per scene.
    """
    tables = [pd.read_csv(ratings / f"{name}.csv", dtype={"scene": str}) for name in PANELS]
    rows = pd.concat(tables)[["set", "scene"]].drop_duplicates().itertuples(index=False)
    parts, scenes = read_split(split), []
    for folder, stem in sorted(rows):
        scene = f"{folder}/{stem}"
        if scene not in {*parts.val, *parts.test}:
            files = {name: find_picture(data, folder, stem, name) for name in ("ir", "vis")}
            scenes.append({"scene": scene, **files})
    return pd.DataFrame(scenes)


def main() -> None:
    """Write the hashes into the embedded weights' `fuscore.json`."""
    training = Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    data = parser.parse_args().data
    frame = viewed_sources(training / "ratings", data, training / "recipes" / "split.yaml")
    directory = locate(EMBEDDED)
    replace(read_spec(directory), training_pairs=learned_pairs(frame)).save(directory)


if __name__ == "__main__":
    main()
