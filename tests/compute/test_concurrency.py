"""Several threads and processes with one default model: one load, right scores, no deadlock."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image, ImageFile

from fuscore_metric import FuScore, predict, scoring
from fuscore_metric.compute import forking
from fuscore_metric.images.strict_loading import strict_loading
from fuscore_metric.prompts import ASPECTS
from tests.helpers import EXAMPLE
from tests.helpers.faults import forked
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture
def no_model():
    scoring._load_shared.cache_clear()
    yield
    scoring._load_shared.cache_clear()


def test_threads_load_the_default_model_once(no_model, monkeypatch, tmp_path):
    model, loads = tiny_fuscore(tmp_path), []

    def load(*_, **options):
        loads.append(options)
        time.sleep(0.05)  # long enough for all threads to come
        return model

    monkeypatch.setattr(FuScore, "from_pretrained", load)
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(partial(scoring.shared_model, "embedded"), ["cpu", torch.device("cpu")] * 4)
        )
    assert all(one is model for one in found)
    assert loads == [{"device": "cpu"}]


def test_threads_share_a_model_and_score_right(tmp_path):
    model = tiny_fuscore(tmp_path)
    generator = torch.Generator().manual_seed(0)
    triples = [torch.rand(3, 3, 3, 40, 48 + 8 * n, generator=generator) for n in range(8)]
    aspects = [*((one,) for one in ASPECTS), ASPECTS, ("overall",), ("sharpness",)]
    work = list(zip(triples, aspects, strict=True))

    def score(one):
        return predict(*one[0], model=model, aspects=one[1]).score

    expected = [score(one) for one in work]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(2):
            for found, wanted in zip(threads.map(score, work), expected, strict=True):
                assert torch.allclose(found, wanted, atol=1e-6, rtol=0)


def test_threads_share_sources_that_were_read(tmp_path):
    model = tiny_fuscore(tmp_path)
    ir, vis, *fused = torch.rand(10, 1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    expected = [model(ir, vis, one, aspects=ASPECTS).score for one in fused]
    begin = threading.Barrier(8)
    for _ in range(2):  # all come while nothing is kept yet
        sources = model.encode_sources(ir, vis)

        def scored(one, sources=sources):
            begin.wait(timeout=30)
            return model.score_fused(sources, one, aspects=ASPECTS).score

        with ThreadPoolExecutor(8) as threads:
            for found, wanted in zip(threads.map(scored, fused), expected, strict=True):
                assert torch.allclose(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_who_needs_no_gradient_takes_it_from_nobody(tmp_path, mode):
    model = tiny_fuscore(tmp_path)
    ir, vis, fused = torch.rand(3, 1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    ir.requires_grad_()
    model(ir, vis, fused).score.sum().backward()
    expected, ir.grad = ir.grad, None
    sources = model.encode_sources(ir, vis)
    with mode():
        model.score_fused(sources, fused)  # another thread's, say, that validates
    model.score_fused(sources, fused).score.sum().backward()
    assert torch.equal(ir.grad, expected)


def test_a_fork_while_a_thread_loads_the_default_model(no_model, monkeypatch, tmp_path):
    model, is_loading, go_on = tiny_fuscore(tmp_path), threading.Event(), threading.Event()
    parent = os.getpid()

    def load(*_, **__):
        if os.getpid() == parent:
            is_loading.set()
            go_on.wait(timeout=60)
        return model

    monkeypatch.setattr(FuScore, "from_pretrained", load)
    images = torch.rand(3, 1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    loader = threading.Thread(target=scoring.shared_model, args=["embedded", "cpu"])
    loader.start()
    assert is_loading.wait(timeout=60)
    try:
        done = forked(lambda: scoring.score(*images).item(), timeout=30)
    finally:
        go_on.set()
        loader.join()
    assert done.status == 0, done.err
    assert float(done.out) == pytest.approx(scoring.score(*images).item(), abs=1e-5)


def test_a_fork_while_a_thread_decodes(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # by another library

    def child():
        with strict_loading:
            inside = ImageFile.LOAD_TRUNCATED_IMAGES
        return inside, ImageFile.LOAD_TRUNCATED_IMAGES

    with strict_loading, strict_loading._lock:
        done = forked(child, timeout=30)
    assert done.out == "(False, True)", done.err


def test_a_forked_process_says_once_that_it_computes_in_one_thread(tmp_path):
    model, images = tiny_fuscore(tmp_path), torch.rand(3, 1, 3, 40, 48)

    def child():
        torch.set_num_threads(3)  # as it would have them from a parent that has not set one
        for _ in range(2):
            model(*images)
        return torch.get_num_threads()

    done = forked(child)
    assert done.out == "1"
    assert done.err.count("in a forked process: computing in one thread") == 1
    assert not forking._forked  # the parent is none


FORKED = """
import multiprocessing, torch
from fuscore_metric import FuScore, score
torch.set_num_threads(2)
images = torch.rand(3, 2, 3, 240, 320, generator=torch.Generator().manual_seed(0))
model = FuScore.from_pretrained() if LOADED else None
torch.rand(1000, 1000).exp().sum()  # whatever the parent computes
def work(queue, by_score):
    torch.manual_seed(0)
    queue.put((score(*images) if by_score or not LOADED else model(*images).score).tolist())
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=work, args=(queue, n % 2), daemon=True) for n in range(4)]
[child.start() for child in children]
found = [queue.get(timeout=60) for _ in children]
expected = score(*images).tolist()
assert all(abs(a - b) < 1e-5 for one in found for a, b in zip(one, expected)), found
"""


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [True, False])
def test_forked_processes_do_not_hang(loaded):
    # In more than one thread the children wait for ever for threads they do not have: in loading
    # weights, in `score` and in a model they got from their parent.
    done = subprocess.run(
        [sys.executable, "-c", f"LOADED = {loaded}\n{FORKED}"],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("in a forked process: computing in one thread") == 4


SPAWNED = """
import concurrent.futures as futures, multiprocessing
from tests.compute.test_concurrency import score_in_threads
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for scores, loads, process in pool.map(score_in_threads, range(2), timeout=150):
            print(process, loads, *scores)
"""


def score_in_threads(_: int) -> tuple[list[float], int, int]:
    """Scores of a piece of the example by 8 threads, how often weights loaded, which process."""
    begin, loads, real = threading.Barrier(8), [], FuScore.from_pretrained

    def load(*arguments, **options):
        loads.append(options)
        return real(*arguments, **options)

    def score(number):
        begin.wait(timeout=100)
        return [score_example(aspect) for aspect in ("overall", ASPECTS[number % len(ASPECTS)])]

    FuScore.from_pretrained = load
    time.sleep(0.5)  # so that no process takes the work of two
    with ThreadPoolExecutor(8) as threads:
        found = [one for pair in threads.map(score, range(8)) for one in pair]
    return found, len(loads), os.getpid()


def score_example(aspect: str) -> float:
    with TemporaryDirectory() as folder:
        names = ("ir.png", "vis.png", "fused_good.png")
        for name in names:
            with Image.open(EXAMPLE / name) as image:
                image.crop((0, 0, 160, 120)).save(Path(folder) / name)
        return scoring.score(*(f"{folder}/{name}" for name in names), aspect=aspect).item()


@pytest.mark.slow
def test_eight_threads_in_each_of_two_processes(tmp_path):
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
    expected = [
        score_example(aspect)
        for number in range(8)
        for aspect in ("overall", ASPECTS[number % len(ASPECTS)])
    ]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len({process for process, *_ in lines}) == 2
    for _, loads, *scores in lines:
        assert loads == "1"
        assert [float(one) for one in scores] == pytest.approx(expected, abs=1e-4)
