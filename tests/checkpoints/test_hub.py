"""Checkpoints from a hub: the right files or one clear error, whatever the hub does."""

import errno
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.numpy import save
from transformers import AutoConfig

from fuscore_metric import CheckpointError, FuScore
from fuscore_metric.checkpoints.hub import download
from fuscore_metric.checkpoints.integrity import verify_content
from tests.helpers.hub_routes import sha256
from tests.helpers.hub_server import checkpoint_fixture, contents, hub_fixture  # noqa: F401

ID = "owner/tiny"
CDN = "^GET /cdn/"
WEIGHTS = "model.safetensors"


def download_of(hub, source, **options):
    hub.put(ID, source)
    return download(ID, **options)


def refusal(*args, **kwargs):
    """The one line that a load is refused with; what the library raised stays its cause."""
    with pytest.raises(CheckpointError) as caught:
        download(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", "dev", "commit"])
def test_a_hub_id_gives_the_files_of_its_revision(hub, checkpoint, revision):
    other = hub.put(ID, {"fuscore.json": b"{}", WEIGHTS: save({"x": np.ones(3)})}, branch="dev")
    commit = hub.put(ID, checkpoint)
    folder = download(ID, revision=commit if revision == "commit" else revision)
    assert folder.name == (other if revision == "dev" else commit)
    assert contents(folder) == hub.repos[ID].commits[folder.name]
    assert verify_content(folder) == sorted(contents(folder))


def test_scores_are_those_of_the_local_directory(hub, checkpoint):
    commit = hub.put(ID, checkpoint)
    images = torch.rand((3, 2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    local = FuScore.from_pretrained(checkpoint)(*images)
    for revision in (None, commit):
        ours = FuScore.from_pretrained(ID, revision=revision)(*images)
        assert torch.equal(ours.level_logits, local.level_logits)


def test_only_what_a_checkpoint_needs_is_downloaded(hub, checkpoint):
    extra = {"model.bin": b"pickle", "modeling.py": b"code", "sub/a.json": b"{}", "README.md": b""}
    hub.put(ID, contents(checkpoint) | extra)
    assert contents(download(ID)) == contents(checkpoint)
    assert not hub.asked("model.bin|modeling|sub|README")


def test_the_cache_is_used_without_the_hub(hub, checkpoint, monkeypatch):
    commit = hub.put(ID, checkpoint)
    folder = download(ID)
    hub.requests.clear()
    assert download(ID, revision=commit) == folder  # a commit cannot change
    assert download(ID, local_files_only=True) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(ID) == folder
    assert download(ID, revision=commit) == folder
    assert hub.requests == []


def test_a_branch_that_moved_is_loaded_anew(hub, checkpoint):
    old = download_of(hub, checkpoint)
    new = hub.put(ID, contents(checkpoint) | {"note.json": b"{}"})
    hub.requests.clear()
    folder = download(ID)
    assert (folder.name, folder == old) == (new, False)
    assert not hub.asked(CDN)  # the weights are the same, and here


@pytest.mark.parametrize("how", ["gone", "failing", "dropping", "forbidding"])
def test_a_silent_hub_means_the_cached_commit_with_a_warning(hub, checkpoint, caplog, how):
    folder = download_of(hub, checkpoint)
    hub.put(ID, {"fuscore.json": b"newer"})
    if how == "gone":
        hub.close()
    else:
        kind = "drop" if how == "dropping" else "status"
        hub.fail(kind, status=500 if how == "failing" else 401)
    with caplog.at_level(logging.WARNING, "fuscore_metric.checkpoints.hub"):
        assert download(ID) == folder
    assert folder.name in caplog.text
    assert "may be older" in caplog.text


def test_transformers_reads_from_the_same_hub(hub):
    config = {"model_type": "llama", "hidden_size": 64}
    hub.put("owner/base", {"config.json": json.dumps(config).encode()})
    assert AutoConfig.from_pretrained("owner/base").hidden_size == 64


def test_a_base_model_needs_no_spec(hub, checkpoint):
    files = contents(checkpoint)
    del files["fuscore.json"]
    hub.put(ID, files)
    assert contents(download(ID, spec=False)) == files
    hub.requests.clear()
    assert "fine-tuned weights, not of their base model" in refusal(ID)
    assert not hub.asked("resolve")


def test_a_private_repository_is_read_with_a_token(hub, checkpoint, monkeypatch):
    hub.put(ID, checkpoint)
    hub.repos[ID].private, hub.token = True, "secret"
    assert "if it is private, log in with `hf auth login`" in refusal(ID)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert contents(download(ID)) == contents(checkpoint)


@pytest.mark.parametrize(
    ("terminal", "variable", "shown"),
    [(False, None, False), (True, None, True), (False, False, True)],
)
def test_progress_bars_are_for_terminals(
    hub, checkpoint, monkeypatch, capsys, terminal, variable, shown
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", variable)
    download_of(hub, checkpoint)
    assert ("Fetching 4 files" in capsys.readouterr().err) is shown


REFUSED = {
    "no repository": ({}, "No 'owner/none' at {url}: check the spelling"),
    "no revision": ({}, "No revision 'none' of 'owner/tiny': see {url}/owner/tiny/commits/main"),
    "no hub id": ({}, 'Expected a hub id "owner/name", got '),
    "unauthorised": ({"status": 401}, "(401): log in with `hf auth login`"),
    "gated": (
        {"status": 403, "code": "GatedRepo"},
        "is gated: accept its conditions at {url}/owner/tiny, then log in with `hf auth login`",
    ),
    "forbidden": ({"status": 403}, "no right to read 'owner/tiny' (403)"),
    "disabled": (
        {"status": 403, "message": "Access to this resource is disabled."},
        "is disabled on the hub: see {url}/owner/tiny",
    ),
    "too many requests": ({"status": 429}, "(429): wait some minutes"),
    "teapot": ({"status": 418}, "The hub refuses 'owner/tiny' (418)"),
    "500": ({"status": 500}, "The hub failed on 'owner/tiny' (500): try again"),
    "500 for the listing": ({"where": "/tree/"}, "(500): try again: files that were finished"),
    "500 for a file's facts": ({"where": "^HEAD .*fuscore.json"}, "(500): try again"),
    "500 for a file": ({"where": CDN}, "(500): try again"),
    "dropped": ({"kind": "drop"}, "Lost the connection to {url} for 'owner/tiny'"),
    "dropped at a file": ({"kind": "drop", "where": CDN}, "Lost the connection to {url}"),
    "cut again and again": ({"kind": "cut", "where": CDN}, "Lost the connection to {url}"),
    "too short": ({"kind": "short", "where": CDN}, "Consistency check failed"),
    "too long": ({"kind": "long", "where": CDN}, "Consistency check failed"),
    "altered": (
        {"kind": "corrupt", "where": CDN},
        "Part of 'owner/tiny' came damaged and was deleted, load again: the hub gives its hash as "
        "{sha256}",
    ),
    "altered text": ({"kind": "corrupt", "where": "^GET .*(config|fuscore).json"}, "damaged and"),
}
ASKED = {"no repository": "owner/none", "no hub id": "owner/a b"}


@pytest.mark.parametrize("case", REFUSED)
def test_what_goes_wrong_is_said_in_one_line_and_mended_by_loading_again(hub, checkpoint, case):
    fault, message = REFUSED[case]
    hub.put(ID, checkpoint)
    if fault:
        hub.fail(**{"kind": "status"} | fault)
    said = refusal(ASKED.get(case, ID), revision="none" if case == "no revision" else None)
    assert message.format(url=hub.url, sha256=sha256((checkpoint / WEIGHTS).read_bytes())) in said
    hub.heal()
    folder = download(ID)
    assert contents(folder) == contents(checkpoint)
    assert verify_content(folder) == sorted(contents(checkpoint))


def test_the_library_tries_again_by_itself(hub, checkpoint):
    hub.fail("status", "^HEAD", status=503, times=2)
    assert contents(download_of(hub, checkpoint)) == contents(checkpoint)


def test_a_cut_file_is_resumed_where_it_was_cut(hub, checkpoint):
    hub.fail("cut", CDN, times=1)
    assert contents(download_of(hub, checkpoint)) == contents(checkpoint)
    first, second = hub.asked(CDN)
    assert "Range" not in first
    assert int(second.split("bytes=")[1].rstrip("-")) > 0


def test_damage_is_found_also_when_another_file_fails(hub, checkpoint):
    hub.put(ID, checkpoint)
    hub.fail("corrupt", CDN)
    hub.fail("status", "^HEAD .*tokenizer.json")
    assert "(500): try again" in refusal(ID)
    hub.heal()
    assert contents(download(ID)) == contents(checkpoint)


def interrupted(hub, checkpoint):
    """A snapshot without its weights, as an interrupted download leaves it."""
    folder = download_of(hub, checkpoint)
    (folder / WEIGHTS).resolve().unlink()
    (folder / WEIGHTS).unlink()
    hub.requests.clear()
    return folder


def test_an_interrupted_download_goes_on_with_what_is_missing(hub, checkpoint):
    interrupted(hub, checkpoint)
    assert contents(download(ID)) == contents(checkpoint)
    assert len(hub.asked("^GET .*/(resolve|cdn)/")) == len(hub.asked(CDN)) == 1


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "as an older library leaves it"])
@pytest.mark.parametrize("offline", [True, False], ids=["offline", "local_files_only"])
def test_an_unfinished_snapshot_is_not_taken_for_whole(
    hub, checkpoint, monkeypatch, listed, offline
):
    folder = interrupted(hub, checkpoint)
    if not listed:
        forget_listing(folder.name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    said = refusal(ID, local_files_only=not offline)
    assert ("hf download owner/tiny" if listed else "load again with a connection") in said
    assert hub.requests == []


def forget_listing(commit):
    (listing,) = Path(constants.HF_HUB_CACHE).glob(f"models--*/trees/{commit}.json")
    listing.unlink()
    sys.modules["huggingface_hub._tree_cache"]._IN_MEMORY_TREE_CACHE.clear()


def test_what_was_never_downloaded_is_not_there_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refusal(ID, revision="dev")
    assert "`HF_HUB_OFFLINE=0 hf download owner/tiny --revision dev`" in said
    assert hub.requests == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "No space left for 'owner/tiny' in .*: free some, or set HF_HOME"),
        (errno.EROFS, "Cannot write 'owner/tiny' to the cache .*Read-only.*: set HF_HOME"),
        (errno.EACCES, "Cannot write 'owner/tiny' to the cache .*Permission.*: set HF_HOME"),
    ],
)
def test_a_disk_that_refuses_is_said(hub, checkpoint, monkeypatch, number, message):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), "somewhere")

    hub.put(ID, checkpoint)
    monkeypatch.setattr("huggingface_hub.file_download._download_to_tmp_and_move", refuse)
    with pytest.raises(CheckpointError, match=message):
        download(ID)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": b""}, "got pytorch_model.bin: pickles can run code"),
        ({"README.md": b""}, "Expected model.safetensors, .* in 'owner/tiny', none is there"),
    ],
)
def test_a_repository_without_safetensors_is_refused_before_its_download(hub, files, message):
    hub.put(ID, {"fuscore.json": b"{}"} | files)
    with pytest.raises(CheckpointError, match=message):
        download(ID)
    assert not hub.asked("resolve")


def test_a_repository_that_lacks_a_shard_is_refused(hub):
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    files = {"fuscore.json": b"{}", shards[0]: save({"a": np.ones(3)})}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.put(ID, files)
    said = refusal(ID)
    assert "lacks model-00002-of-00002.safetensors" in said
    assert "tell its owner" in said


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_the_file_that_an_error_names_is_the_one_to_delete(hub, checkpoint, damage):
    folder = download_of(hub, checkpoint)
    blob = (folder / WEIGHTS).resolve()
    data = blob.read_bytes()
    half = len(data) // 2
    blob.write_bytes(data[:half] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    message = f"is {half} of {len(data)} bytes" if damage == "cut" else "is not what the hub has"
    with pytest.raises(CheckpointError, match=f"{message}.*: delete {blob} and load again$"):
        # A change within the size is found when asked for only.
        download(ID) if damage == "cut" else verify_content(folder)
    if damage == "cut":
        with pytest.raises(CheckpointError, match=message):
            FuScore.from_pretrained(ID, local_files_only=True)
    blob.unlink()
    assert contents(download(ID)) == contents(checkpoint)
