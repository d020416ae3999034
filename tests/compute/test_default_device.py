"""Where it is computed if nobody says: on CUDA where it is, unless tensors are elsewhere."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

import fuscore_metric.checkpoints.weights
from fuscore_metric import FuScore, InputError, predict, rank, score, scoring
from fuscore_metric.checkpoints.locate import find_checkpoint
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.report.scorer import load_scorer
from fuscore_metric.results.settings import weights_hash
from tests.helpers.tiny_model import tiny_fuscore

META = torch.device("meta")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


@pytest.fixture
def loaded_on(model, monkeypatch) -> list[str]:
    """A machine with a GPU, on which the default model is only said to be."""
    devices = []
    monkeypatch.setattr(scoring, "default_device", lambda: torch.device("cuda"))

    def shared_model(name, place):
        devices.append(str(place))
        return model

    monkeypatch.setattr(scoring, "shared_model", shared_model)
    return devices


def test_a_device_beside_a_model_that_is_elsewhere_is_refused(model):
    image = np.full((64, 80, 3), 100, dtype=np.uint8)
    for door in (score, predict, rank):
        door(image, image, image, model=model, device="cpu")
        with pytest.raises(ValueError, match="as that of `model`, cpu, got 'meta'"):
            door(image, image, image, model=model, device="meta")


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
    score(array, array, (image for image in [tensor]))
    score(path, path, path, device="cpu")
    assert loaded_on == ["cpu", "cpu", "cpu"]


def test_zero_is_the_first_gpu(loaded_on):
    image = np.zeros((64, 80, 3), np.uint8)
    score(image, image, image, device=0)
    rank(image, image, [image], device=0)
    assert loaded_on == ["0", "0"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", [0, 1, "", [], 0.5])
def test_a_device_that_is_not_there_is_refused_at_every_door(device):
    image = np.zeros((64, 80, 3), np.uint8)
    settings = {"source": "embedded", "weights_hash": weights_hash(find_checkpoint("embedded"))}
    doors = [
        lambda: score(image, image, image, device=device),
        lambda: predict(image, image, image, device=device),
        lambda: rank(image, image, [image], device=device),
        lambda: FuScore.from_pretrained(device=device),
        lambda: load_scorer(settings, device),
    ]
    for door in doors:
        with pytest.raises(ValueError, match="`device` that works here"):
            door()


def test_weights_are_loaded_where_the_default_is(monkeypatch):
    monkeypatch.setattr(fuscore_metric.checkpoints.weights, "default_device", lambda: META)
    model = FuScore.from_pretrained()
    assert model.device == META
    assert FuScore.from_pretrained(device="cpu").device.type == "cpu"
    images = torch.rand(1, 3, 64, 80)
    with pytest.raises(InputError, match="`ir` on the model's device meta, got cpu"):
        model(images, images, images)


def test_the_commands_say_auto(monkeypatch):
    options = importlib.import_module("fuscore_metric.cli.shared.options")
    monkeypatch.setattr(options, "default_device", lambda: META)
    given = {"auto": "meta", "cpu": "cpu"}
    for name, device in given.items():
        assert options.check_options("overall", name, None, aspects=ASPECTS) == device
