"""Gradients on a GPU against the CPU's, and what a caller's autocast may not change."""

import pytest
import torch

from fuscore_metric import FuScoreReward, TrustRegion
from fuscore_metric.prompts import ASPECTS
from tests.gpu.scenes import FusionNet, crops, on

pytestmark = pytest.mark.gpu

RELATIVE_ERROR = 0.01
"""Where an activation is at a kink, rounding decides which slope counts."""


def gradients(of, device):
    """Gradients of the three images, on the CPU."""
    images = [image.requires_grad_() for image in on(device, crops(2))]
    of(*images).sum().backward()
    return [None if image.grad is None else image.grad.cpu() for image in images]


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("asked", [{}, {"aspects": ASPECTS}], ids=["overall", "all"])
def test_gradients_of_all_images_are_those_of_the_cpu(
    device, model, on_cpu, asked, record_property
):
    expected = gradients(lambda *images: on_cpu(*images, **asked).score, "cpu")
    found = gradients(lambda *images: model(*images, **asked).score, device)
    for name, *both in zip(("ir", "vis", "fused"), found, expected, strict=True):
        error = relative_error(*both)
        record_property(f"relative error of the gradient, {asked}, {name}", error)
        assert error <= RELATIVE_ERROR, name


@pytest.mark.parametrize("region", [None, TrustRegion()], ids=["plain", "trust region"])
def test_gradients_through_the_reward_are_those_of_the_cpu(
    device, model, on_cpu, region, record_property
):
    expected = gradients(FuScoreReward(on_cpu, trust_region=region), "cpu")
    found = gradients(FuScoreReward(model, trust_region=region), device)
    assert found[:2] == expected[:2] == [None, None]
    error = relative_error(found[2], expected[2])
    record_property("relative error of the gradient, reward", error)
    assert error <= RELATIVE_ERROR


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_score_and_no_gradient(device, model, dtype):
    reward = FuScoreReward(model)
    doors = {"forward": lambda *images: model(*images).score, "reward": reward}
    for name, door in doors.items():
        plain, cast = [], []
        for found, enabled in ((plain, False), (cast, True)):
            ir, vis, fused = on(device, crops(2))
            fused.requires_grad_()
            with torch.autocast(device, dtype=dtype, enabled=enabled):
                scores = door(ir, vis, fused)
                scores.sum().backward(retain_graph=True)
            inside, fused.grad = fused.grad, None
            scores.sum().backward()
            found += [scores.detach(), fused.grad, inside]
        assert {x.dtype for x in cast} == {torch.float32}, name
        assert torch.allclose(cast[0], plain[0], atol=1e-6), name
        # A GPU adds in no fixed order.
        assert relative_error(cast[1], plain[1]) <= 1e-4, name
        assert relative_error(cast[2], plain[1]) <= 1e-4, name


def test_a_network_learns_under_autocast_with_a_scaler(device, model):
    """The usual loop: float16 in the network, float32 in the metric."""
    reward, net = FuScoreReward(model), FusionNet().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(device, init_scale=256.0)
    ir, vis, _ = on(device, crops(2))
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.float16):
            loss = -reward(ir, vis, net(ir, vis)).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
