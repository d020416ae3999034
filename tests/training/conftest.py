"""What all tests of training share."""

from functools import partial

import pandas as pd
import pytest
from fuscore_training.ratings import SCORE_COLUMNS, RatingsTable
from PIL import Image

from fuscore_metric.prompts import IMAGE_ORDER


@pytest.fixture(scope="module")
def few_resamples():
    """Intervals from 20 resamples, not 1000: most of the time of a run this small."""
    from fuscore_training import evaluate
    from fuscore_training.embedded import run
    from fuscore_training.large import fine_tune

    few = partial(evaluate.evaluate, n_boot=20)
    with pytest.MonkeyPatch.context() as patch:
        for module in (run, evaluate, fine_tune):
            patch.setattr(module, "evaluate", few)
        yield


def row(scene, method, **changes):
    paths = {"ir": f"ir/{scene}.png", "vis": f"vis/{scene}.png", "fused": f"{method}/{scene}.png"}
    return {
        "scene": scene,
        "method": method,
        **paths,
        **dict.fromkeys(SCORE_COLUMNS, 3.5),
    } | changes


def table_of(rows):
    return RatingsTable(pd.DataFrame(rows), "human", "tests")


def grid(scenes, methods=("a", "b")):
    return [row(scene, method) for scene in scenes for method in methods]


def make_images(folder, rows):
    """Write a PNG for each path named, no two alike."""
    paths = sorted({one[column] for one in rows for column in IMAGE_ORDER})
    for value, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), value).save(folder / path)


def write_raw(folder, rows, suffix=".csv", columns=None):
    """Write a table past the checks of `write_ratings`, with a sidecar and its images."""
    path = folder / f"ratings{suffix}"
    frame = pd.DataFrame(rows, columns=columns)
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
    sidecar = folder / "ratings.meta.json"
    sidecar.write_text('{"label_kind": "human", "description": "tests"}')
    return path
