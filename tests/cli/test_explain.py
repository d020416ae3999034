"""`fuscore explain`: the picture that it writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("explain")
    tiny_fuscore(folder).save_pretrained(folder / "weights")
    found = {"model": folder / "weights", "out": folder / "map.png"}
    for name, image in zip(("ir", "vis", "fused"), torch.rand(3, 3, 12, 16), strict=True):
        pixels = (image.repeat_interleave(8, -1).repeat_interleave(8, -2) * 255).byte()
        found[name] = folder / f"{name}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(found[name])
    return found


def arguments(files: dict[str, Path], **changed: object) -> list[object]:
    options = [part for name, value in (files | changed).items() for part in (f"--{name}", value)]
    return ["explain", *options]


def test_explain_writes_the_picture_and_says_what_spoke(run, files):
    status, out, err = run(*arguments(files, aspect="sharpness"))
    assert status == 0, err
    for words in ("sharpness", "map.png", "no ratings"):
        assert words in out
    fused, picture = Image.open(files["fused"]), Image.open(files["out"])
    assert picture.width >= 2 * fused.width
    assert picture.height > fused.height
    left = np.asarray(picture)[: fused.height, : fused.width]
    assert (left == np.asarray(fused)).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"out": "no_such_folder/map.png"}, ["`out`", "no_such_folder"]),
        ({"out": "map.gif"}, ["`out`", ".png", "map.gif"]),
        ({"out": "fused"}, ["`out`", "fused.png"]),
        ({"fused": "missing.png"}, ["`fused`", "missing.png"]),
        ({"aspect": "beauty"}, ["--aspect", "overall"]),
        ({"device": "abacus"}, ["--device", "abacus"]),
    ],
)
def test_explain_refuses_in_one_line_before_it_loads_weights(run, files, changed, words):
    changed = {name: files.get(value, value) for name, value in changed.items()}
    status, out, err = run(*arguments(files, **changed, model="nothing_here"))
    assert (status, out) == (2, "")
    for word in words:
        assert word in err
    if not changed.keys() & {"aspect", "device"}:  # typer frames its usage errors
        assert len(err.strip().splitlines()) == 1
