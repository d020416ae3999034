"""`fuscore merge` and `fuscore info --verify`, as a user runs them."""

import json
import shutil

import pytest
import torch

from fuscore_metric import FuScore
from tests.helpers.adapted import logits, make_adapted
from tests.helpers.rated_scenes import write_base


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    model = make_adapted(write_base(folder / "base", "qwen3_vl"), "qwen3_vl")
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", logits(model)


def test_an_adapter_and_its_base_become_one_checkpoint(run, adapter, tmp_path):
    folder, before = adapter
    done = run("merge", "--model", folder, "--out", tmp_path / "m", "--dtype", "float32")
    assert done.status == 0
    for noise in ("Loading weights", "Writing", "Warning"):  # no bars where nobody looks
        assert noise not in done.err
    assert "adapted, merged" in done.out
    merged = FuScore.from_pretrained(tmp_path / "m")
    assert merged.spec.weights == "merged"
    assert torch.allclose(logits(merged), before, atol=1e-4)
    again = run("merge", "--model", folder, "--out", tmp_path / "m")
    assert again.status == 2
    assert "Expected `out` not to exist or to be empty" in again.err
    once_more = run("merge", "--model", tmp_path / "m", "--out", tmp_path / "n")
    assert once_more.status == 2
    assert "got merged weights" in once_more.err


def test_merged_weights_are_small_by_default_and_the_base_may_be_named(run, adapter, tmp_path):
    folder, before = adapter
    copy = shutil.copytree(folder.parent / "base", tmp_path / "copy")
    done = run("merge", "--model", folder, "--base", copy, "--out", tmp_path / "m")
    assert done.status == 0, done.err
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    merged = logits(FuScore.from_pretrained(tmp_path / "m"))
    assert torch.allclose(merged, before, atol=0.3)


def test_info_verifies_what_can_be_verified(run, adapter):
    found = json.loads(run("info", "--model", adapter[0], "--verify", "--json").out)
    assert found["verified"] == "no hashes are known of these files"
    assert found["weights"] == "adapter"
    assert found["base_revision"].startswith("sha256:")
