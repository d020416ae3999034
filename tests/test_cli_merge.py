"""`fuscore merge` and `fuscore info --verify`, as a user runs them."""

import json
import shutil

import pytest
import torch

from fuscore_metric import FuScore
from tests.rated_scenes import write_base
from tests.test_adapters import logits, make_adapted
from tests.test_cli import fuscore


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merge")
    model = make_adapted(write_base(folder / "base", "qwen3_vl"), "qwen3_vl")
    model.save_pretrained(folder / "adapter")
    return folder / "adapter", logits(model)


@pytest.mark.slow
def test_an_adapter_and_its_base_become_one_checkpoint(adapter, tmp_path):
    folder, before = adapter
    done = fuscore("merge", "--weights", folder, "--out", tmp_path / "m", "--dtype", "float32")
    assert done.returncode == 0
    for noise in ("Loading weights", "Writing", "Warning"):  # no bars where nobody looks
        assert noise not in done.stderr
    assert "adapted, merged" in done.stdout
    merged = FuScore.from_pretrained(tmp_path / "m")
    assert merged.spec.weights == "merged"
    assert torch.allclose(logits(merged), before, atol=1e-4)
    again = fuscore("merge", "--weights", folder, "--out", tmp_path / "m")
    assert again.returncode == 2
    assert "Expected `out` not to exist or to be empty" in again.stderr
    once_more = fuscore("merge", "--weights", tmp_path / "m", "--out", tmp_path / "n")
    assert once_more.returncode == 2
    assert "got merged weights" in once_more.stderr


@pytest.mark.slow
def test_merged_weights_are_small_by_default_and_the_base_may_be_named(adapter, tmp_path):
    folder, before = adapter
    copy = shutil.copytree(folder.parent / "base", tmp_path / "copy")
    done = fuscore("merge", "--weights", folder, "--base", copy, "--out", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    merged = logits(FuScore.from_pretrained(tmp_path / "m"))
    assert torch.allclose(merged, before, atol=0.3)


def test_info_verifies_what_can_be_verified(adapter):
    found = json.loads(fuscore("info", "--weights", adapter[0], "--verify", "--json").stdout)
    assert found["verified"] == "no hashes are known of these files"
    assert found["weights"] == "adapter"
    assert found["base_revision"].startswith("sha256:")
