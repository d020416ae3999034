"""A tiny model and images for all tests of integrations."""

import pytest
import torch

from fuscore_metric import FuScore

HEIGHT, WIDTH = 40, 56


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    from tests.helpers.tiny_model import tiny_fuscore  # not at the top: it needs the training code

    return tiny_fuscore(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def metric(model):
    """FuScore as pyiqa makes it."""
    pyiqa = pytest.importorskip("pyiqa")
    return pyiqa.create_metric("fuscore", device="cpu", model=lambda: model)


def images(seed: int, count: int = 2, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, HEIGHT, WIDTH, generator=generator)


def triple(count: int = 2) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return images(0, count), {"ir": images(1, count), "vis": images(2, count)}
