"""The checkpoint that ships: what it says of itself, and what it gets right on unseen scenes."""

import pytest
import torch
from fuscore_training.embedded.acceptance import check_acceptance
from fuscore_training.labels.proxy_ratings import find_scenes

from fuscore_metric import FuScore
from fuscore_metric.checkpoints.locate import locate
from fuscore_metric.checkpoints.spec import read_spec


def test_it_says_what_its_labels_are():
    spec = read_spec(locate("embedded"))
    assert spec.label_kind == "model"
    assert "not human" in spec.label_statement()
    assert "scaled by people's opinions" in spec.label_description
    assert spec.base[0]["licence"] == "Apache-2.0"
    assert spec.metrics["held_out_scenes"]


def test_it_is_small_and_holds_no_pickle():
    files = list(locate("embedded").rglob("*"))
    assert sum(file.stat().st_size for file in files) <= 40e6
    assert {file.suffix for file in files} <= {".json", ".safetensors"}


def test_it_is_float32_by_default_and_close_to_that_in_bfloat16():
    images = [torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))] * 3
    full, half = FuScore.from_pretrained(), FuScore.from_pretrained(dtype="bfloat16")
    assert full.dtype == torch.float32
    assert half(*images).score.dtype == torch.float32
    assert torch.allclose(full(*images).score, half(*images).score, atol=0.02)


@pytest.mark.proof
def test_on_real_scenes_it_never_saw(real_data):
    """The promise of the README, on one fusion of each held-out scene."""
    torch.set_num_threads(2)  # with one, PyTorch takes its slow convolutions
    model = FuScore.from_pretrained()
    held_out = set(model.spec.metrics["held_out_scenes"])
    scenes = [scene for scene in find_scenes(real_data) if scene.name in held_out]
    found = check_acceptance(model, scenes, fused_per_scene=1)
    assert found.pristine_above_all >= 0.95
    assert min(found.pristine_above.values()) >= 0.9
    assert found.reads_sources >= 0.9
