"""What the tests on a GPU share. All of them: `python -m pytest -m gpu tests`.

They need the base install and pytest, and a CUDA device. `FUSCORE_GPU_TESTS_DEVICE=cpu` runs them
on the CPU, which tries their bodies, but for those that make sense on CUDA only. Numbers that
belong into a report are given to `record_property`.
"""

import os

import pytest
import torch

from fuscore_metric import FuScore
from tests.gpu.scenes import tf32


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tests compute: "cuda", or what the environment variable says."""
    name = os.environ.get("FUSCORE_GPU_TESTS_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device here")
    return name


@pytest.fixture
def only_cuda(device) -> None:
    """For tests of what no CPU has: streams, page-locked memory, a memory of its own."""
    if device != "cuda":
        pytest.skip("makes sense on CUDA only")


@pytest.fixture(autouse=True)
def _full_float32():
    """Without TF32, so that a GPU can be held to the CPU's numbers; tests of TF32 switch it on."""
    with tf32(enabled=False):
        yield


@pytest.fixture(scope="session")
def on_cpu() -> FuScore:
    """The embedded weights on the CPU: what a GPU is compared with."""
    return FuScore.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def model(device) -> FuScore:
    """The embedded weights on the device, in float32; not to be moved."""
    return FuScore.from_pretrained(device=device)
