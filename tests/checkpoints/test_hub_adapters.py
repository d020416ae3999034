"""Adapters, merged and whole weights by way of a hub, with the base model on it, too."""

import logging
from dataclasses import replace

import pytest
import torch
from fuscore_training.large.fine_tune import Base
from fuscore_training.recipe import BaseOptions

from fuscore_metric import CheckpointError, FuScore
from tests.helpers.adapted import images, make_adapted
from tests.helpers.hub_server import hub_fixture  # noqa: F401
from tests.helpers.rated_scenes import write_base

BASE, ADAPTER = "owner/base", "owner/adapter"
FAMILY = "qwen3_vl"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), FAMILY)


@pytest.fixture
def adapted(hub, base_folder) -> FuScore:
    """An adapter, pinned to the base model on the hub."""
    made = make_adapted(base_folder, FAMILY)
    made.spec = replace(made.spec, base_model=BASE, base_revision=hub.put(BASE, base_folder))
    return made


def logits(model: FuScore) -> torch.Tensor:
    with torch.no_grad():
        return model(*images()).level_logits


def test_an_adapter_brings_its_base_at_the_pinned_commit(hub, adapted, base_folder, tmp_path):
    commit = adapted.push_to_hub(ADAPTER)
    other = write_base(tmp_path / "other", "qwen2_5_vl")
    hub.put(BASE, other)  # the branch has moved on since
    loaded = FuScore.from_pretrained(ADAPTER, revision=commit)
    assert torch.equal(logits(loaded), logits(adapted))
    assert loaded.spec == adapted.spec


def test_offline_once_both_are_there(hub, adapted):
    commit = adapted.push_to_hub(ADAPTER)
    with pytest.raises(CheckpointError):
        FuScore.from_pretrained(ADAPTER, revision=commit, local_files_only=True)
    FuScore.from_pretrained(ADAPTER, revision=commit)
    hub.close()
    loaded = FuScore.from_pretrained(ADAPTER, revision=commit, local_files_only=True)
    assert torch.equal(logits(loaded), logits(adapted))


def test_a_base_that_is_gone_is_named(hub, adapted):
    adapted.spec = replace(adapted.spec, base_revision="a" * 40)
    adapted.push_to_hub(ADAPTER)
    with pytest.raises(CheckpointError, match=BASE) as caught:
        FuScore.from_pretrained(ADAPTER)
    assert "\n" not in str(caught.value)


def test_a_pinned_base_can_be_given_by_name(hub, adapted):
    adapted.push_to_hub(ADAPTER)
    loaded = FuScore.from_pretrained(BASE, adapter=ADAPTER)
    assert torch.equal(logits(loaded), logits(adapted))


def test_a_downloaded_adapter_leads_to_no_directory_here(hub, base_folder):
    made = make_adapted(base_folder, FAMILY)  # names the folder, rightly
    made.push_to_hub(ADAPTER)
    with pytest.raises(CheckpointError, match="give the directory of your copy"):
        FuScore.from_pretrained(ADAPTER)
    loaded = FuScore.from_pretrained(base_folder, adapter=ADAPTER)
    assert torch.equal(logits(loaded), logits(made))


def test_a_directory_of_the_same_name_is_not_the_commit(hub, adapted, tmp_path, monkeypatch):
    adapted.push_to_hub(ADAPTER)
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / BASE, "qwen2_5_vl")
    loaded = FuScore.from_pretrained(ADAPTER)
    assert torch.equal(logits(loaded), logits(adapted))


def test_merged_weights_replace_the_adapter_on_the_hub(hub, adapted):
    before = logits(adapted)
    adapted.push_to_hub(ADAPTER)
    adapted.merge().push_to_hub(ADAPTER)
    loaded = FuScore.from_pretrained(ADAPTER)
    assert loaded.spec.weights == "merged"
    assert loaded.backbone.adapter is None
    assert torch.allclose(logits(loaded), before, atol=1e-4)


def test_the_card_says_what_the_labels_are(hub, adapted):
    commit = adapted.push_to_hub(ADAPTER)
    card = hub.repos[ADAPTER].commits[commit]["README.md"].decode()
    assert "trained on MODEL ratings" in card
    assert f"base_model: {BASE}" in card
    assert "base_model_relation: adapter" in card
    commit = adapted.push_to_hub(ADAPTER, card="# mine\n", revision="dev")
    assert hub.repos[ADAPTER].commits[commit]["README.md"] == b"# mine\n"


def test_training_pins_the_commit_that_it_got(hub, base_folder, caplog):
    caplog.set_level(logging.INFO)
    commit = hub.put(BASE, base_folder)
    base = Base(BaseOptions(BASE))
    assert (base.model, base.revision) == (BASE, commit)
    assert base.family().family == FAMILY


@pytest.mark.network
def test_a_real_base_model_has_the_special_tokens():
    """Qwen's own tokenizer and config, without the weights."""
    from huggingface_hub import snapshot_download
    from transformers import AutoTokenizer

    from fuscore_metric.levels import level_token_ids

    for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"):
        folder = snapshot_download(name, allow_patterns=["*.json", "*.txt"])
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(set(level_token_ids(tokenizer, "The overall quality is"))) == 5
