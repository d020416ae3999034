"""What tests of several importers share: rows as EVAFusion has them, and a study of two scenes."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
from fuscore_training.importers.import_report import read_report
from fuscore_training.ratings import RatingsTable, split_by_scene
from PIL import Image
from scipy.special import ndtr

from tests.helpers.scenes import synthetic_pair

SCORE_NAMES = [
    "Thermal Retention",
    "Texture Preservation",
    "Artifacts",
    "Sharpness",
    "Overall Score",
]
EVA_SCORES = dict(zip(SCORE_NAMES, [4.0, 3.0, 2.0, 5.0, 3.5], strict=True))
EVA_METHODS = 3
EVA_SCENES = 6


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def eva_row(scene, method, **changes):
    """A row of the schema: sources by scene, a fusion by scene and method."""
    ir, vis = synthetic_pair(scene, 64, 80)
    share = (method + 1) / (EVA_METHODS + 1)
    images = {
        "fused": encode(share * ir + (1 - share) * vis),
        "infrared": encode(ir),
        "visible": encode(vis),
        "artifact_heatmap": encode(ir * 0),
    }
    files = {name: {"bytes": data, "path": f"{scene}.png"} for name, data in images.items()}
    return {**files, "scores": EVA_SCORES} | changes


def eva_rows():
    return [eva_row(scene, method) for scene in range(EVA_SCENES) for method in range(EVA_METHODS)]


def eva_features(**more):
    image, number = datasets.Image(), datasets.Value("float32")
    images = dict.fromkeys(("fused", "infrared", "visible", "artifact_heatmap"), image)
    return datasets.Features(images | {"scores": dict.fromkeys(SCORE_NAMES, number)} | more)


def eva_dataset(rows, **more):
    return datasets.Dataset.from_list(rows, features=eva_features(**more))


def report_of(work):
    return read_report(work / "import_report.json")


def assert_no_leak(frame):
    for column in ("scene", "source_pair", "ir", "vis"):
        assert frame.groupby(column)["split"].nunique().eq(1).all()
    split_by_scene(RatingsTable(frame, "model"))  # obeys `split`, and raises if sources are shared


def real_scenes(folder, name):
    for ir in sorted((folder / name / "ir").iterdir()):
        yield ir, next((folder / name / "vis").glob(f"{ir.stem}.*"))


METHODS = ("A", "B", "C", "D")
SCENES = ("s", "t")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with the images of two scenes by four methods."""
    folder = tmp_path_factory.mktemp("study")
    for number, scene in enumerate(SCENES):
        ir, vis = synthetic_pair(number, 40, 48)
        fused = {method: (ir * n + vis * (4 - n)) / 4 for n, method in enumerate(METHODS)}
        for name, image in {"ir": ir, "vis": vis, **fused}.items():
            eight = np.rint(image * 255).astype(np.uint8)
            Image.fromarray(eight).save(folder / f"{scene}_{name}.png")
    (folder / "broken.png").write_bytes(b"no image")
    Image.new("L", (64, 64)).save(folder / "other_size.png")
    return folder


def triple(scene, method, **changes):
    paths = {"ir": f"{scene}_ir.png", "vis": f"{scene}_vis.png", "fused": f"{scene}_{method}.png"}
    return {"scene": scene, "method": method, **paths} | changes


def write(study, rows, name="study.csv"):
    pd.DataFrame(rows).to_csv(study / name, index=False)
    return study / name


def without(column):
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def each(**changes):
    return lambda rows: [row | changes for row in rows]


def as_they_are(rows):
    return rows


TRUTH = np.array([-1.2, -0.3, 0.4, 1.1])  # of METHODS, mean 0


def votes(truth, each, seed=0):
    """(M, 2) winners and losers: `each` votes on every pair, drawn by Thurstone's case V."""
    rng, pairs = np.random.default_rng(seed), []
    for a in range(len(truth)):
        for b in range(a + 1, len(truth)):
            wins = rng.random(each) < ndtr(truth[a] - truth[b])
            pairs += [(a, b) if won else (b, a) for won in wins]
    return np.array(pairs)
