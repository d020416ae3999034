"""Speed of the embedded weights: from tensors, from files, many candidates, and as a reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.gpu.kit import MIB, Images, Kit
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import SkippedError, Task
from benchmarks.speed.shared import independent, limit, shared
from benchmarks.speed.work import Rates, work
from fuscore_metric import FuScore, FuScoreReward, score
from fuscore_metric.images.batches import THREADS
from fuscore_metric.images.convert import as_images
from fuscore_metric.prompts import DEFAULT_ASPECT

DTYPES = ("float32", "bfloat16", "float16")
HALVES = ("float32", "bfloat16")


def tasks(kit: Kit) -> Iterator[Task]:
    """Tensors, files, `rank`, utilisation, reward."""
    for dtype in DTYPES:
        for batch in kit.plan.batches:
            call = partial(tensors, kit, dtype, batch)
            yield Task(f"tensors, {dtype}, batch {batch}", call, 1 + batch / 100)
    for dtype in HALVES:
        yield Task(f"files, {dtype}", partial(files, kit, dtype), 5)
    yield Task("rank", lambda: many_candidates(kit), 2)
    for dtype in DTYPES:
        yield Task(f"share of a matrix product, {dtype}", partial(utilisation, kit, dtype), 2)
    yield Task("reward step", lambda: reward_step(kit), 2)


def scored(model: FuScore, images: Images) -> torch.Tensor:
    """Scores by the exact door, without a graph."""
    with torch.inference_mode():
        score: Tensor = model(*images).score
    return score


def tensors(kit: Kit, dtype: str, batch: int) -> Iterator[Value]:
    """Triples that are on the device already, through both doors."""
    model, images = kit.embedded(dtype), kit.triples(batch)
    door = partial(score, *images, model=model, batch_size=batch)
    yield Value("score", batch / kit.seconds(door), "triples/s", "checks values, finds sources")
    try:
        exact = partial(scored, model, images)
        yield Value("model", batch / kit.seconds(exact), "triples/s", "model(ir, vis, fused)")
        yield Value("peak memory", kit.peak(exact) / batch / MIB, "MiB per triple")
    except torch.OutOfMemoryError as error:  # `score` would have cut the batch in two
        raise SkippedError(f"out of memory with {batch} triples in one batch") from error


def files(kit: Kit, dtype: str) -> Iterator[Value]:
    """From files on disk, which the system has in memory; and each half of the way alone."""
    count, model = kit.plan.files, kit.embedded(dtype)
    images = kit.triples(count)
    batch = min(count, kit.plan.batch) // 4 or 1  # several, so that decoding can run ahead
    with TemporaryDirectory() as folder:
        paths = kit.files(images, Path(folder))
        ir, vis, fused = ([str(path) for path in column] for column in zip(*paths, strict=True))
        read = partial(score, ir, vis, fused, model=model, batch_size=batch)
        from_files = count / kit.seconds(read)
        yield Value("score", from_files, "triples/s", f"{count} triples, batch {batch}")
        with ThreadPoolExecutor(THREADS) as pool:
            decode = partial(_decode, pool, [*ir, *vis, *fused])
            decoding = count / kit.seconds(decode)
        yield Value("decoding alone", decoding, "triples/s", f"{THREADS} threads, as in `score`")
    in_memory = count / kit.seconds(partial(score, *images, model=model, batch_size=batch))
    yield Value("model alone", in_memory, "triples/s", "`score` of the same triples as tensors")
    yield Value("limit", "decoding" if decoding < in_memory else "model")


def _decode(pool: ThreadPoolExecutor, paths: list[str]) -> None:
    for _ in pool.map(lambda path: as_images(path, "fused")[0], paths):
        pass


def many_candidates(kit: Kit) -> Iterator[Value]:
    """Candidates of one scene, its sources read once, against triples that share nothing."""
    yield from sharing(kit, kit.embedded(), kit.candidates(kit.plan.candidates))


def sharing(kit: Kit, model: FuScore, images: Images) -> Iterator[Value]:
    """Both ways of any model, and how much the counted work allows."""
    count = len(images[2])
    with torch.inference_mode():
        apart = kit.seconds(lambda: independent(model, images, DEFAULT_ASPECT))
        together = kit.seconds(lambda: shared(model, images, DEFAULT_ASPECT))
    yield Value("independent", count / apart, "triples/s", f"{count} triples in a batch")
    yield Value("shared", count / together, "triples/s", "`rank`: sources read once")
    yield Value("speed-up", apart / together, "times")
    # Rates matter to the other limit only, of which nothing is said here.
    allowed, _ = limit(model, images, DEFAULT_ASPECT, Rates(1.0, 1.0))
    yield Value("counted limit", allowed, "times", "multiply-adds, independent over shared")


def utilisation(kit: Kit, dtype: str) -> Iterator[Value]:
    """Counted multiply-adds a second, over those of a large matrix product of the same dtype."""
    model, count, rate = kit.embedded(dtype), kit.plan.batch, kit.rate(dtype)
    images = kit.triples(count)
    taken = kit.seconds(partial(scored, model, images))
    yield from share(model, images, taken, rate)


def share(model: FuScore, images: Images, taken: float, rate: float) -> Iterator[Value]:
    """The same of any model, whose batch took so many seconds."""
    one: Callable[[], object] = partial(model, *(column[:1] for column in images))
    flops = len(images[2]) * work(one).flops / taken
    yield Value("matrix product", rate / 1e12, "TFLOP/s")
    yield Value("model", flops / 1e12, "TFLOP/s", f"batch {len(images[2])}")
    yield Value("share", 100 * flops / rate, "%")


def reward_step(kit: Kit) -> Iterator[Value]:
    """Forward and backward to the fused images, in float32."""
    count, model = kit.plan.candidates, kit.embedded()
    ir, vis, fused = kit.triples(count)
    reward = FuScoreReward(model)
    fused.requires_grad_()

    def step() -> None:
        fused.grad = None
        (-reward(ir, vis, fused).mean()).backward()

    taken = kit.seconds(step)
    yield Value("step", 1000 * taken / count, "ms per triple", f"batch {count}")
    forward = kit.seconds(partial(scored, model, (ir, vis, fused.detach())))
    yield Value("over a score", taken / forward, "times")
    yield Value("peak memory", kit.peak(step) / count / MIB, "MiB per triple")
