"""Several threads and processes with one default model: one load, right scores, no deadlock."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fuscore_metric import FuScore, predict, scoring
from tests.tiny_model import tiny_fuscore


@pytest.fixture
def no_model():
    scoring._load_default.cache_clear()
    yield
    scoring._load_default.cache_clear()


def test_threads_load_the_default_model_once(no_model, monkeypatch, tmp_path):
    model, loads = tiny_fuscore(tmp_path), []

    def load(*_, **options):
        loads.append(options)
        time.sleep(0.05)  # long enough for all threads to come
        return model

    monkeypatch.setattr(FuScore, "from_pretrained", load)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(scoring.default_model, ["cpu", torch.device("cpu")] * 4))
    assert all(one is model for one in found)
    assert loads == [{"device": "cpu"}]


def test_threads_share_a_model_and_score_right(tmp_path):
    model = tiny_fuscore(tmp_path)
    generator = torch.Generator().manual_seed(0)
    triples = [torch.rand(3, 3, 3, 40, 48 + 8 * n, generator=generator) for n in range(8)]
    expected = [predict(*triple, model=model, aspect="all").score for triple in triples]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            found = threads.map(lambda t: predict(*t, model=model, aspect="all").score, triples)
            for score, wanted in zip(found, expected, strict=True):
                assert torch.allclose(score, wanted, atol=1e-6, rtol=0)


FORKED = """
import multiprocessing, sys, torch
from fuscore_metric import score
torch.set_num_threads(2)
images = torch.rand(3, 2, 3, 240, 320, generator=torch.Generator().manual_seed(0))
expected = score(*images)
def work(queue):
    queue.put(score(*images).tolist())
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=work, args=(queue,)) for _ in range(4)]
[child.start() for child in children]
found = [queue.get(timeout=90) for _ in children]
assert all(abs(a - b) < 1e-5 for one in found for a, b in zip(one, expected.tolist()))
"""


@pytest.mark.slow
def test_processes_forked_after_a_score_do_not_hang():
    # Without the fallback to one thread the children wait for ever for threads they do not have.
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("forked after a score") == 4


SPAWNED = """
import concurrent.futures as futures, multiprocessing, sys
from tests.test_concurrency import score_example
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        found = list(pool.map(score_example, range(4), timeout=120))
    assert max(found) - min(found) <= 1e-6, found
    print(found[0])
"""


def score_example(_: int) -> float:
    from importlib.resources import files

    from fuscore_metric import score

    folder = files("fuscore_metric") / "assets" / "example"
    images = (str(folder / name) for name in ("ir.png", "vis.png", "fused_good.png"))
    return score(*images).item()


@pytest.mark.slow
def test_four_processes_give_one_score(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        env={"PYTHONPATH": ".", "PATH": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(score_example(0), abs=1e-4)
