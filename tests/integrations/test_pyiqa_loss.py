"""FuScore as a loss of pyiqa: gradients, copies, and two processes like one."""

import copy
import pickle

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from fuscore_metric import InputError
from tests.helpers.commands import leave
from tests.integrations.conftest import images, triple

pyiqa = pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra [pyiqa])")


@pytest.fixture(scope="module")
def as_loss(model):
    return pyiqa.create_metric("fuscore", as_loss=True, device="cpu", model=lambda: model)


def gradient(metric, fused: torch.Tensor, sources: dict[str, torch.Tensor]) -> torch.Tensor:
    fused = fused.clone().requires_grad_()
    metric(fused, **sources).sum().backward()
    assert fused.grad is not None
    return fused.grad


def test_the_loss_is_the_mean_and_reaches_the_fused_image_only(as_loss, metric, model):
    fused, sources = triple()
    sources = {name: image.requires_grad_() for name, image in sources.items()}
    value = as_loss(fused, **sources)
    assert value.shape == ()
    assert torch.allclose(value, metric(fused, **sources).mean())
    found = gradient(as_loss, fused, sources)
    assert torch.isfinite(found).all()
    assert (found.abs().amax(dim=(1, 2, 3)) > 0).all()  # every image of the batch
    assert all(image.grad is None for image in sources.values())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_inside_no_grad(as_loss, model):
    """The host computes with gradients whatever the caller says, but takes the mean outside."""
    fused, sources = triple()
    expected = gradient(as_loss, fused, sources)
    each = pyiqa.create_metric(
        "fuscore", as_loss=True, loss_reduction="none", device="cpu", model=lambda: model
    )
    watched = fused.clone().requires_grad_()
    with torch.no_grad():
        mean, values = as_loss(watched, **sources), each(watched, **sources)
    assert torch.equal(mean, as_loss(fused, **sources))
    assert torch.equal(mean, values.mean())
    values.mean().backward()
    assert torch.allclose(watched.grad, expected)


def test_the_loss_under_autocast_and_in_a_training_parent(as_loss):
    fused, sources = triple()
    expected = gradient(as_loss, fused, sources)
    watched = fused.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = as_loss(watched, **sources)
    value.backward()
    assert torch.allclose(watched.grad, expected)
    parent = nn.ModuleList([as_loss]).train()
    assert torch.allclose(gradient(parent[0], fused, sources), expected)
    assert not any(module.training for module in as_loss.net.guest.model.modules())
    with torch.inference_mode():
        assert as_loss(fused, **sources).shape == ()


def test_an_overshoot_is_clipped_in_a_loss_only(as_loss, metric):
    fused, sources = triple()
    wild = 1.4 * fused - 0.2
    assert torch.allclose(as_loss(wild, **sources), as_loss(wild.clamp(0, 1), **sources))
    with pytest.raises(InputError, match=r"values in \[0, 1\]"):
        metric(wild, **sources)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_do_the_same(as_loss, make):
    fused, sources = triple()
    copied = make(as_loss)
    assert torch.allclose(copied(fused, **sources), as_loss(fused, **sources))
    assert torch.allclose(gradient(copied, fused, sources), gradient(as_loss, fused, sources))


def test_the_state_dict_holds_no_weights(metric):
    assert sum(value.numel() for value in metric.state_dict().values()) == 0
    parent = nn.ModuleDict({"layer": nn.Linear(2, 2), "metric": metric})
    parent.load_state_dict(parent.state_dict())
    assert sum(parameter.numel() for parameter in parent.parameters()) == 6


class Fusion(nn.Module):
    """A network that holds the metric as README says: outside the module tree."""

    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(6, 3, 3, padding=1)
        self.metrics = [metric]

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        fused = self.layer(torch.cat([ir, vis], dim=1)).sigmoid()
        return 5 - self.metrics[0](fused, ir=ir, vis=vis)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    metric = pyiqa.create_metric("fuscore", as_loss=True, device="cpu", model=f"{folder}/weights")
    net = nn.parallel.DistributedDataParallel(Fusion(metric))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        net(images(10 * step + rank, 1), images(10 * step + rank + 5, 1)).backward()
        optimizer.step()
    torch.save(net.module.state_dict(), f"{folder}/{rank}.pt")
    leave()


def test_two_processes_train_as_one_on_both_batches(model, tmp_path):
    model.save_pretrained(tmp_path / "weights")
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    ours = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    metric = pyiqa.create_metric("fuscore", as_loss=True, device="cpu", model=lambda: model)
    alone = Fusion(metric)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        both = [torch.cat([images(10 * step + rank + k, 1) for rank in (0, 1)]) for k in (0, 5)]
        alone(*both).backward()
        optimizer.step()
    for name, value in alone.state_dict().items():
        assert torch.allclose(ours[0][name], ours[1][name])
        assert torch.allclose(ours[0][name], value, atol=1e-6)
