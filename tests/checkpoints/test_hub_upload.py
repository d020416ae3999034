"""Checkpoints to a hub, and back."""

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from safetensors.numpy import save

from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.checkpoints.hub import download, upload
from tests.helpers.hub_server import checkpoint_fixture, contents, hub_fixture  # noqa: F401

ID = "owner/tiny"
WEIGHTS = "model.safetensors"
GOOD = save({"a": np.ones((5, 2), np.float32)})


@pytest.fixture(autouse=True)
def _no_bars():
    """Some are written after the test, past pytest's capture."""
    disable_progress_bars()
    yield
    enable_progress_bars()


def one(data):
    return {"fuscore.json": b"{}", WEIGHTS: data}


@pytest.fixture
def adapter(tmp_path):
    """An adapter's checkpoint; nothing here looks into its weights."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "fuscore.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(save({"lora_A": np.ones((2, 3))}))
    return folder


@pytest.mark.parametrize("revision", [None, "main", "dev"])
def test_what_was_uploaded_comes_back(hub, checkpoint, revision):
    commit = upload(checkpoint, ID, revision=revision)
    assert hub.repos[ID].refs[revision or "main"] == commit
    assert contents(download(ID, revision=commit)) == contents(checkpoint)
    assert upload(checkpoint, ID, revision=revision) == commit  # nothing new, no new commit


def test_a_pushed_model_comes_back_with_the_same_weights(hub, checkpoint):
    model = FuScore.from_pretrained(checkpoint)
    commit = model.push_to_hub(ID)
    again = FuScore.from_pretrained(ID, revision=commit)
    assert hub.files(ID)["README.md"]
    assert again.spec == model.spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_an_adapter_goes_alone_and_takes_the_place_of_full_weights(hub, checkpoint, adapter):
    upload(checkpoint, ID)
    (adapter / "README.md").write_text("# A card\n")
    (adapter / "trainer.log").write_text("private")
    (adapter / "sub").mkdir()
    (adapter / "sub" / "notes.json").write_text("{}")
    commit = upload(adapter, ID)
    there = set(hub.files(ID))
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} < there
    assert not there & {WEIGHTS, "trainer.log", "sub/notes.json"}
    assert (download(ID, revision=commit) / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repository_is_as_private_as_asked(hub, checkpoint, private):
    hub.token = "secret"
    upload(checkpoint, ID, private=private, token="secret")
    assert hub.repos[ID].private is private


UPLOAD_REFUSED = {
    "no token": ({"token": "secret"}, "who wants to write to 'owner/tiny' (401): log in with"),
    "no right": (
        {"where": "/commit/", "status": 403},
        "no right to write to 'owner/tiny' (403): make one that has it at {url}/settings/tokens",
    ),
    "no right to make one": ({"where": "/repos/create", "status": 403}, "no right to write to"),
    "500": ({"where": "/commit/"}, "The hub failed on 'owner/tiny' (500): try again"),
    "500 at the weights": ({"where": "^PUT"}, "The hub failed on 'owner/tiny' (500): try again"),
    "cut": ({"where": "^PUT", "kind": "drop"}, "Lost the connection to {url} for 'owner/tiny'"),
}


@pytest.mark.parametrize("case", UPLOAD_REFUSED)
def test_an_upload_that_fails_changes_nothing_and_can_be_repeated(hub, checkpoint, case):
    fault, message = UPLOAD_REFUSED[case]
    if "token" in fault:
        hub.token = fault["token"]
    else:
        hub.fail(**{"kind": "status"} | fault)
    with pytest.raises(CheckpointError) as caught:
        upload(checkpoint, ID)
    assert message.format(url=hub.url) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert WEIGHTS not in (hub.files(ID) if ID in hub.repos else {})
    hub.heal()
    commit = upload(checkpoint, ID, token=hub.token)
    assert contents(download(ID, revision=commit)) == contents(checkpoint)


@pytest.mark.parametrize(
    ("files", "repo_id", "message"),
    [
        (one(GOOD) | {"training_args.bin": b""}, ID, "Expected no pickles in .*training_args.bin"),
        (one(GOOD[:-1]), ID, "of .* bytes"),
        ({WEIGHTS: GOOD}, ID, "fuscore.json"),
        (one(GOOD), "tiny", 'Expected a hub id "owner/name"'),
        (None, ID, "Expected a checkpoint directory"),
    ],
)
def test_what_is_not_whole_or_not_safe_is_not_uploaded(hub, tmp_path, files, repo_id, message):
    folder = tmp_path / "checkpoint"
    if files is not None:
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        upload(folder, repo_id)
    assert hub.requests == []


def test_no_upload_offline(hub, checkpoint, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="offline: unset HF_HUB_OFFLINE"):
        upload(checkpoint, ID)
