"""Where things are computed: CUDA by itself, the CPU on demand; models that move and are saved."""

import pytest
import torch

from fuscore_metric import FuScore, FuScoreReward, rank, score
from fuscore_metric.prompts import ASPECTS
from tests.golden.doors import TOLERANCE, check, record
from tests.gpu.scenes import crops, example_files, on

pytestmark = pytest.mark.gpu

HERE = "cuda" if torch.cuda.is_available() else "cpu"


def test_files_are_scored_on_cuda_by_themselves(device):
    del device  # skips where CUDA is wanted and missing
    ir, vis, fused = example_files()
    assert FuScore.from_pretrained().device.type == HERE
    assert FuScoreReward().model.device.type == HERE
    found = score(ir, vis, fused)
    assert found.device.type == HERE
    check("files", record.example_triples(), found)
    assert rank(ir[0], vis[0], fused).score.device.type == HERE


def test_the_cpu_can_be_asked_for(device):
    del device
    assert FuScore.from_pretrained(device="cpu").device.type == "cpu"
    found = score(*example_files(), device="cpu")
    assert found.device.type == "cpu"
    check("files", record.example_triples(), found)


def test_tensors_stay_where_they_are(device):
    for where in ("cpu", device):
        assert score(*on(where, crops(2))).device.type == where
        fused = crops(2)[2].to(where)  # the sources come along
        assert score(*crops(2)[:2], fused).device.type == where


def test_a_model_moves_and_comes_back(device):
    model = FuScore.from_pretrained(device="cpu")
    before = model(*crops(2), aspects=ASPECTS).score
    model.to(device)
    assert model.device.type == device
    there = model(*on(device, crops(2)), aspects=ASPECTS).score
    assert there.device.type == device
    assert torch.allclose(there.cpu(), before, atol=TOLERANCE)
    model.to("cpu")
    assert torch.equal(model(*crops(2), aspects=ASPECTS).score, before)


def test_weights_saved_from_a_gpu_are_the_same_bits(device, on_cpu, tmp_path):
    FuScore.from_pretrained(device=device).save_pretrained(tmp_path)
    loaded = FuScore.from_pretrained(tmp_path, device="cpu")
    expected = on_cpu.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, expected[name]), name
    assert torch.equal(loaded(*crops(2)).score, on_cpu(*crops(2)).score)


def test_a_network_takes_its_reward_along(device):
    reward = FuScoreReward(FuScore.from_pretrained(device="cpu"))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), reward)
    for where in (device, "cpu"):
        net.to(where)
        assert reward.model.device.type == where
        assert reward(*on(where, crops(2))).device.type == where
