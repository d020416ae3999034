"""Shared by all tests: one thread, synthetic scenes, and where the real data is."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers import ROOT
from tests.helpers.scenes import synthetic_pair, write_scenes

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_configure(config: pytest.Config) -> None:
    """Unless `-m` asks for `gpu`, tests and what they start see no GPU, on any machine."""
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


LONGEST = [
    "test_gpu_kit.py",
    "test_adapters.py",
    "test_ray_killed.py",
    "test_ray_cluster.py",
    "test_data_parallel.py",
    "test_fine_tune.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: `--dist loadfile` would leave one process alone with them."""
    files = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: files.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True, scope="session")
def _sigint():
    """Python's own handler: processes of pytest-xdist ignore Ctrl-C, and so do their children."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors only lose time in a second thread, and one thread adds up in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser():
    """Chromium, which asks nobody anything by itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real source pairs and fusions; it is never part of the repository."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("FUSCORE_DATA", default))
    if not (folder / "human_severity.csv").is_file():
        pytest.skip(f"no real infrared/visible data in {folder} (set FUSCORE_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def pair() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(ir, vis), each (96, 128) float64 in [0, 1]."""
    ir, vis = synthetic_pair()
    ir.flags.writeable = vis.flags.writeable = False
    return ir, vis


@pytest.fixture(scope="session")
def make_data() -> Callable[..., Path]:
    """`write_scenes`, for modules that want a data folder of their own."""
    return write_scenes


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A checkpoint of the embedded family, tiny and untrained; not to be changed."""
    from tests.helpers.tiny_model import tiny_fuscore  # not at the top: it needs the training code

    folder = tmp_path_factory.mktemp("weights")
    tiny_fuscore(folder).save_pretrained(folder / "tiny")
    return folder / "tiny"
