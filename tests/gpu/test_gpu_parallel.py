"""Several streams, and the wrappers of data parallelism, with one process."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier

import pytest
import torch
from torch import nn

from fuscore_metric import FuScore, FuScoreReward, score
from tests.golden.doors import TOLERANCE
from tests.gpu.scenes import FusionNet, crops, on

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("where", ["cpu", "device"])
def test_two_streams_at_once_score_right(device, on_cpu, where):
    # A model that nobody used: what it keeps is made in one of the streams.
    model = FuScore.from_pretrained(device=device)
    begin = Barrier(2)
    halves = [[x[n::2] for x in crops(16)] for n in range(2)]
    expected = [score(*half, model=on_cpu) for half in halves]
    given = [on(device if where == "device" else "cpu", half) for half in halves]
    if device == "cuda":
        torch.cuda.synchronize()

    def in_a_stream(images):
        own = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else nullcontext()
        with own:
            begin.wait(timeout=60)
            return [score(*images, model=model, batch_size=2).cpu() for _ in range(4)]

    with ThreadPoolExecutor(2) as threads:
        for found, wanted in zip(threads.map(in_a_stream, given), expected, strict=True):
            for scores in found:
                assert torch.allclose(scores, wanted, atol=TOLERANCE)


class Step(nn.Module):
    """What is wrapped: a network and the reward beside it; gives one value for each triple."""

    def __init__(self, reward: FuScoreReward) -> None:
        super().__init__()
        self.net, self.reward = FusionNet(), reward

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        return self.reward(ir, vis, self.net(ir, vis))


def gradient(wrapped: nn.Module, step: Step, device: str) -> torch.Tensor:
    ir, vis, _ = on(device, crops(4))
    step.zero_grad()
    (-wrapped(ir, vis).mean()).backward()
    return torch.cat([p.grad.flatten().cpu() for p in step.net.parameters()])


def check_gradient(wrapped, step, device):
    expected = gradient(step, step, device).clone()
    assert expected.norm() > 0
    assert (gradient(wrapped, step, device) - expected).norm() <= 1e-3 * expected.norm()


def test_data_parallel(device, model):
    step = Step(FuScoreReward(model)).to(device)
    on_gpus = {"device_ids": [0]} if device == "cuda" else {}
    check_gradient(nn.DataParallel(step, **on_gpus), step, device)


class Scores(nn.Module):
    """What `nn.DataParallel` can gather of a model."""

    def __init__(self, model: FuScore) -> None:
        super().__init__()
        self.model = model

    def forward(self, ir: torch.Tensor, vis: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
        return self.model(ir, vis, fused).score


@pytest.mark.usefixtures("only_cuda")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="replicas need two GPUs")
def test_data_parallel_over_two_gpus(on_cpu):
    images = crops(4)
    expected = on_cpu(*images).score
    scores = nn.DataParallel(Scores(FuScore.from_pretrained(device="cuda:0")), device_ids=[0, 1])
    found = scores(*on("cuda:0", images))
    assert torch.allclose(found.cpu(), expected, atol=TOLERANCE)


def backends() -> list[str]:
    nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    return ["gloo", "nccl"] if nccl else ["gloo"]


@pytest.mark.parametrize("backend", backends())
def test_distributed_data_parallel(device, model, backend, tmp_path):
    if backend == "nccl" and device != "cuda":
        pytest.skip("nccl makes sense on CUDA only")
    torch.distributed.init_process_group(
        backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    try:
        step = Step(FuScoreReward(model)).to(device)
        on_gpus = {"device_ids": [0]} if device == "cuda" else {}
        wrapped = nn.parallel.DistributedDataParallel(step, **on_gpus)
        assert all(name.startswith("module.net.") for name in wrapped.state_dict())
        check_gradient(wrapped, step, device)
    finally:
        torch.distributed.destroy_process_group()
