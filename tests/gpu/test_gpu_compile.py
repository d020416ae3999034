"""`torch.compile` on a GPU: of a fusion network with the reward in its step, and of the model."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from fuscore_metric import FuScore, FuScoreReward
from tests.golden.doors import TOLERANCE
from tests.gpu.scenes import FusionNet, crops, on

# Triton builds a small module in C for Python at the first kernel.
COMPILER = shutil.which("gcc") or shutil.which("g++") or shutil.which("clang")
HEADERS = Path(sysconfig.get_path("include"), "Python.h").is_file()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (COMPILER and HEADERS), reason="needs a C compiler and Python.h"),
]


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def step(net, reward, ir, vis):
    return -reward(ir, vis, net(ir, vis)).mean()


@pytest.mark.parametrize("whole", [False, True], ids=["network", "network and reward"])
def test_a_compiled_step_learns_the_same(device, model, whole):
    """The whole step with the reward in it is traced, in one or several graphs, but not made into
    kernels: that takes minutes, and the network alone shows them."""
    ir, vis, _ = on(device, crops(2, height=64, width=96))
    found = []
    for compiled in (False, True):
        net, reward = FusionNet().to(device), FuScoreReward(model)
        fuse, loss = net, step
        if compiled and whole:
            loss = torch.compile(step, backend="eager")
        elif compiled:
            fuse = torch.compile(net)
        optimizer, losses = torch.optim.SGD(net.parameters(), lr=1e-3), []
        for _ in range(3):
            optimizer.zero_grad()
            value = loss(fuse, reward, ir, vis)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        found.append((losses, net.layers[0].weight.grad.cpu()))
    (eager, gradient), (losses, compiled_gradient) = found
    assert losses == pytest.approx(eager, abs=1e-3)
    assert (compiled_gradient - gradient).norm() <= 0.01 * gradient.norm()


def test_a_compiled_model_gives_the_same_scores(device, model):
    compiled = FuScore.from_pretrained(device=device)
    compiled.compile()
    for count in (1, 3):
        images = on(device, crops(count))
        with torch.no_grad():
            difference = compiled(*images).score - model(*images).score
        assert difference.abs().max() <= TOLERANCE
