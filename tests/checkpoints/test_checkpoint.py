"""fuscore.json and where weights come from."""

import json
from dataclasses import replace

import pytest
import torch

from fuscore_metric import CheckpointError, FuScore, FuScoreSpec
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.checkpoints.spec import SPEC_FILE, read_spec
from tests.helpers.tiny_model import tiny_fuscore

SPEC = FuScoreSpec("a name", "lite_llama", {"grid": 5}, "proxy", "how")


def test_written_and_read_is_the_same(tmp_path):
    SPEC.save(tmp_path)
    assert read_spec(tmp_path) == SPEC


def test_a_directory_is_not_named_to_the_hub_as_a_base_model():
    for name in ("models/qwen", "/models"):
        local = replace(SPEC, base_model=name, base_revision="sha256:" + "0" * 64)
        assert "base_model" not in local.short_card("owner/name")
    on_hub = replace(SPEC, base_model="models/qwen", base_revision="0" * 40)
    assert "base_model: models/qwen" in on_hub.short_card("owner/name")


def test_proxy_labels_are_never_called_human():
    assert "PROXY" in SPEC.label_statement()
    assert "not human" in SPEC.label_statement()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 5}, "format version up to 4"),
        ({"surprise": 1}, "Unknown keys .* surprise"),
        ({"name": None, "family": None}, None),
        ({"family": "clip"}, "`family`"),
        ({"label_kind": "people"}, "`label_kind`"),
        ({"prompt_version": 0}, "`prompt_version`"),
        ({"level_words": ["a", "b", "c", "d", "e"]}, "`level_words`"),
    ],
)
def test_a_spec_that_means_other_scores_is_refused(tmp_path, change, message):
    SPEC.save(tmp_path)
    content = json.loads((tmp_path / SPEC_FILE).read_text())
    if message is None:
        del content["name"]
        message = "Missing keys .* name"
    else:
        content |= change
    (tmp_path / SPEC_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_spec(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "not json", "[]"])
def test_a_broken_spec_is_refused(tmp_path, content):
    (tmp_path / SPEC_FILE).write_text(content)
    with pytest.raises(CheckpointError):
        read_spec(tmp_path)


def test_a_folder_without_spec_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=SPEC_FILE):
        FuScore.from_pretrained(tmp_path)


def test_a_save_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    earlier, later = tiny_fuscore(tmp_path), tiny_fuscore(tmp_path, seed=1)
    folder = tmp_path / "saved"
    earlier.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(directory):
        (directory / "model.safetensors").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(later.backbone, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        later.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    later.save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    loaded = FuScore.from_pretrained(folder)
    for ours, theirs in zip(later.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["no_such_thing", "./a/b", "/no/such/folder", "a/b/c"])
def test_a_name_that_is_nothing_is_refused(name):
    with pytest.raises(CheckpointError, match="hub id"):
        locate(name)


def test_a_hub_id_that_is_not_cached_fails_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="'nobody/nothing'") as caught:
        locate("nobody/nothing", local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_checkpoint(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="directory"):
        locate(str(tmp_path / "weights.bin"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "Expected model.safetensors"),
        ("garbage", "has no readable header"),
        ("truncated", r"is \d+ of \d+ bytes, it is cut or damaged"),
        ("misshapen", r"Expected cell_embedding\.weight in .* as \(16, 32\), got \(16, 16\)"),
        ("no words", r"Cannot load the weights .* tokenizer\.json"),
    ],
)
def test_damaged_weights_are_refused_in_one_line(tmp_path, damage, message):
    folder = tmp_path / "saved"
    tiny_fuscore(tmp_path).save_pretrained(folder)
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "garbage":
        weights.write_bytes(b"not safetensors at all")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "misshapen":
        config = json.loads((folder / "config.json").read_text())
        config["llama"]["hidden_size"] = 32
        (folder / "config.json").write_text(json.dumps(config))
    else:
        (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=message) as caught:
        FuScore.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_none_is_refused(tmp_path):
    tiny_fuscore(tmp_path).save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="Expected `device`"):
        FuScore.from_pretrained(tmp_path / "saved", device="abacus")


def test_dtypes(tmp_path):
    tiny_fuscore(tmp_path).save_pretrained(tmp_path / "saved")
    assert FuScore.from_pretrained(tmp_path / "saved").dtype == torch.float32
    half = FuScore.from_pretrained(tmp_path / "saved", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="`dtype`"):
        FuScore.from_pretrained(tmp_path / "saved", dtype="int8")
