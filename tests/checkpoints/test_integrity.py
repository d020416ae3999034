"""What of a checkpoint directory is missing or cut is found before it is loaded."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from fuscore_metric import CheckpointError
from fuscore_metric.checkpoints.integrity import verify, verify_content
from fuscore_metric.checkpoints.locate import locate

WEIGHTS = "model.safetensors"


def sharded():
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    return {
        "fuscore.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        names[0]: save({"a": np.ones(3)}),
        names[1]: save({"b": np.ones(4)}),
    }


def one(data):
    return {"fuscore.json": b"{}", WEIGHTS: data}


GOOD = save({"a": np.ones((5, 2), np.float32), "b": np.zeros(1, np.int64)})
ADAPTER = {
    "fuscore.json": b"{}",
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": GOOD,
}
TAMPERED = {
    "cut": (one(GOOD[:-1]), f"model.safetensors is {len(GOOD) - 1} of {len(GOOD)} bytes"),
    "extended": (one(GOOD + b"0"), f"is {len(GOOD) + 1} of {len(GOOD)} bytes"),
    "cut in the header": (one(GOOD[:50]), "has no readable header, it is cut or damaged"),
    "cut in the length": (one(GOOD[:5]), "has no readable header"),
    "empty": (one(b""), "has no readable header"),
    "zeros": (one(bytes(len(GOOD))), "has no readable header"),
    "zeros in the header": (one(GOOD[:8] + bytes(len(GOOD) - 8)), "has no readable header"),
    "a page that says 404": (one(b"<html>not found</html>"), "has no readable header"),
    "a shape that does not fit": (one(GOOD.replace(b"[5,2]", b"[5,3]")), "is damaged ("),
    "a shard cut": (
        sharded() | {"model-00002-of-00002.safetensors": GOOD[:-3]},
        "model-00002-of-00002.safetensors is ",
    ),
    "another file cut": (one(GOOD) | {"other.safetensors": GOOD[:-1]}, "other.safetensors is "),
    "JSON cut": (one(GOOD) | {"tokenizer.json": b'{"a": '}, "tokenizer.json is cut or damaged"),
    "JSON zeros": (one(GOOD) | {"config.json": bytes(9)}, "config.json is cut or damaged"),
    "no spec": ({WEIGHTS: GOOD}, "Expected a checkpoint with fuscore.json, none in"),
    "no weights": ({"fuscore.json": b"{}"}, "Expected model.safetensors, "),
    "a pickle": (
        {"fuscore.json": b"{}", "pytorch_model.bin": b"", "a.ckpt": b""},
        "got a.ckpt, pytorch_model.bin: pickles can run code and are never loaded",
    ),
    "an index of nothing": (
        {"fuscore.json": b"{}", "model.safetensors.index.json": b"{}"},
        "Expected `weight_map`",
    ),
    "an index that leads out": (
        sharded() | {"model.safetensors.index.json": b'{"weight_map": {"a": "../../secret"}}'},
        "Expected `weight_map`",
    ),
    "an adapter without configuration": (
        {"fuscore.json": b"{}", "adapter_model.safetensors": GOOD},
        "lacks adapter_config.json",
    ),
    "an adapter without weights": (
        {"fuscore.json": b"{}", "adapter_config.json": b"{}"},
        "lacks adapter_model.safetensors",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_directory_that_is_not_whole_is_refused(tmp_path, case):
    files, message = TAMPERED[case]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        verify(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", [one(GOOD), sharded(), ADAPTER], ids=["one", "shards", "adapter"])
def test_a_whole_directory_passes(tmp_path, files):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    verify(tmp_path)
    assert verify_content(tmp_path) == []  # no hashes are known


def test_the_embedded_checkpoint_is_whole():
    verify(locate("embedded"))


def test_every_cut_of_the_weights_is_refused(tmp_path):
    (tmp_path / "fuscore.json").write_text("{}")
    for size in range(len(GOOD)):
        (tmp_path / WEIGHTS).write_bytes(GOOD[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            verify(tmp_path)
