"""Nothing of the vocabulary's size is made, neither in scoring nor in a training step."""

import pytest
import torch
from fuscore_training.large.tuning import TuneOptions, tune
from fuscore_training.losses import tripartite_loss
from fuscore_training.trainer import LevelReader
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone
from fuscore_metric import FuScore, FuScoreSpec
from fuscore_metric.prompts import ASPECTS

VOCABULARY = 4999  # a prime: no other size is a multiple of it


class Sizes(TorchDispatchMode):
    """Collects operations that make a tensor with an axis of the vocabulary's size."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            # A view of the weights takes no memory.
            if isinstance(tensor, torch.Tensor) and VOCABULARY in tensor.shape and not func.is_view:
                self.found.append(str(func))
        return made


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_makes_nothing_of_that_size(family):
    backbone = tiny_backbone(family, vocabulary=VOCABULARY)
    tune(backbone, TuneOptions(dropout=0.0))
    reader = LevelReader(backbone.train())
    optimizer = torch.optim.AdamW([p for p in reader.parameters() if p.requires_grad])
    with Sizes() as sizes:
        logits = reader([{"ir": images(1), "vis": images(1), "fused": images(3)}], ["overall"])
        mu, sigma, ids = torch.tensor([2.0, 3, 4]), torch.ones(3), torch.tensor([0, 0, 1])
        tripartite_loss(logits[:, 0], mu, sigma, ids).total.backward()
        optimizer.step()
    assert sizes.found == []


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_makes_nothing_of_that_size(family):
    backbone = tiny_backbone(family, vocabulary=VOCABULARY)
    model = FuScore(backbone, FuScoreSpec("a", family, backbone.preprocessing, "none"))
    with Sizes() as sizes, torch.no_grad():
        model(images(2), images(2), images(2), aspects=ASPECTS)
    assert sizes.found == []


def test_the_test_would_see_it():
    backbone = tiny_backbone(FAMILIES[0], vocabulary=VOCABULARY)
    with Sizes() as sizes, torch.no_grad():
        backbone.model.lm_head(torch.zeros(1, 32))
    assert sizes.found
