"""The scripts behind the model card, an evaluation for it, and the Space's app."""

import importlib

import numpy as np
import pytest
from PIL import Image

from fuscore_metric import FuScore
from tests.helpers import EXAMPLE, ROOT

HUB_CARD = ROOT / "hub_card"
EMBEDDED = ROOT / "fuscore_metric" / "assets" / "embedded"
ID = "someone/fuscore-lite-5"


@pytest.fixture(scope="module")
def modules():
    """`card` and `upload` as `python hub_card/upload.py` finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HUB_CARD))
        yield {name: importlib.import_module(name) for name in ("card", "evaluations", "upload")}


@pytest.fixture(scope="module")
def make_card(modules):
    return modules["card"].make_card


def statistic(value, low=None, high=None):
    reason = "" if value is not None else "constant predictions"
    ends = {"value": value, "low": low, "high": high}
    return ends | {"count": 30, "unit": "rows", "reason": reason}


def evaluation(srcc=0.61234):
    """What `Evaluation.to_json` writes."""
    names = ("srcc", "plcc", "krcc", "within_srcc", "within_krcc", "pairwise_accuracy")
    content = {name: statistic(srcc + n / 100, 0.5, 0.75) for n, name in enumerate(names)}
    content["method_srcc"] = statistic(None)
    content["counts"] = {"rows": 30, "scenes": 5, "methods": 6}
    content["settings"] = {"n_boot": 200, "confidence": 0.9, "min_gap": 0.0, "seed": 0}
    return content


@pytest.fixture(scope="module")
def space():
    """The app's modules, found as in a Space: beside each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HUB_CARD / "space"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield {name: importlib.import_module(name) for name in ("scoring", "views", "app")}


@pytest.fixture(scope="module")
def model():
    return FuScore.from_pretrained()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The example, and files that an app may spoil or must refuse."""
    folder = tmp_path_factory.mktemp("files")
    found = {path.stem: path for path in EXAMPLE.glob("*.png")}
    counts = np.asarray(Image.open(EXAMPLE / "ir.png").convert("L")).astype(np.uint16)
    # Thermal counts of 14 bits, in whose high byte next to nothing would be left.
    counts = 7000 + 3 * counts + np.arange(640, dtype=np.uint16) % 3
    for name in ("thermal.png", "thermal.tiff"):
        found[name] = folder / name
        Image.fromarray(counts).save(found[name])
    found["jpeg"] = folder / "fused.jpg"
    Image.open(EXAMPLE / "fused_good.png").convert("RGB").save(found["jpeg"], quality=60)
    found["small"] = folder / "small.png"
    Image.new("RGB", (320, 240)).save(found["small"])
    found["text"] = folder / "text.png"
    found["text"].write_text("no image")
    return found
