"""Where it is computed if nobody says: on CUDA where it is, unless tensors are elsewhere."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

import fuscore_metric.model
from fuscore_metric import FuScore, InputError, rank, score, scoring
from fuscore_metric.prompts import ASPECTS
from tests.tiny_model import tiny_fuscore

META = torch.device("meta")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


@pytest.fixture
def loaded_on(model, monkeypatch) -> list[str]:
    """A machine with a GPU, on which the default model is only said to be."""
    devices = []
    monkeypatch.setattr(scoring, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(scoring, "default_model", lambda place: devices.append(str(place)) or model)
    return devices


def test_only_tensors_keep_the_default_model_off_the_gpu(loaded_on, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    path = tmp_path / "one.png"
    Image.fromarray(array).save(path)
    tensor = torch.from_numpy(array).movedim(-1, 0)
    given = {
        "cuda": [path, str(path), Image.fromarray(array), array, [path], (array,)],
        "cpu": [tensor, tensor[None], [tensor], (tensor,)],
    }
    for device, kinds in given.items():
        for fused in kinds:
            score(array, array, fused)
            assert loaded_on.pop() == device, type(fused)
    rank(array, array, {"ours": tensor, "theirs": tensor})
    score(path, path, path, device="cpu")
    assert loaded_on == ["cpu", "cpu"]


def test_weights_are_loaded_where_the_default_is(monkeypatch):
    monkeypatch.setattr(fuscore_metric.model, "default_device", lambda: META)
    model = FuScore.from_pretrained()
    assert model.device == META
    assert FuScore.from_pretrained(device="cpu").device.type == "cpu"
    images = torch.rand(1, 3, 64, 80)
    with pytest.raises(InputError, match="`ir` on the model's device meta, got cpu"):
        model(images, images, images)


def test_the_commands_say_auto(monkeypatch):
    options = importlib.import_module("fuscore_metric.cli._options")
    monkeypatch.setattr(options, "default_device", lambda: META)
    given = {"auto": "meta", "cpu": "cpu"}
    for name, device in given.items():
        assert options.check_options("overall", name, None, aspects=ASPECTS) == device
