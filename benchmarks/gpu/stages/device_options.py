"""Where the time of the embedded weights goes on the device, and what its options change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.kit import Images, Kit
from benchmarks.gpu.profiling import seen
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import SkippedError, Task
from fuscore_metric import FuScore
from fuscore_metric.backbones.lite.efficientnet_lite import EfficientNetLite

KERNELS = 10
FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def tasks(kit: Kit) -> Iterator[Task]:
    """Profile, TF32 and memory format; `compiled` is for the end, as it may take long."""
    for dtype in ("float32", "bfloat16"):
        yield Task(f"profile, {dtype}", partial(profile, kit, dtype), 3)
    yield Task("TF32", lambda: tf32_off_and_on(kit), 2)
    for dtype in ("float32", "bfloat16"):
        yield Task(f"memory format, {dtype}", partial(memory_format, kit, dtype), 2)


def scored(model: FuScore, images: Images) -> torch.Tensor:
    """Scores, without a graph; not in inference mode, which `torch.compile` takes for a change."""
    with torch.no_grad():
        score: Tensor = model(*images).score
    return score


def rate(kit: Kit, model: FuScore, images: Images) -> float:
    """Triples a second."""
    return len(images[2]) / kit.seconds(partial(scored, model, images))


def profile(kit: Kit, dtype: str) -> Iterator[Value]:
    """The longest kernels, and how long the device waits for the next one."""
    model, images = kit.embedded(dtype), kit.triples(kit.plan.batch)
    call = partial(scored, model, images)
    wall, found = kit.seconds(call), seen(call, kit.device)
    yield Value("a batch", 1000 * wall, "ms", f"{kit.plan.batch} triples, without the profiler")
    if kit.on_gpu:
        yield Value("launches", found.launches, "a batch")
        idle = 100 * max(0.0, 1 - found.busy / wall)
        yield Value("device idle", idle, "% of the wall time", "launch overhead, waiting")
    total = sum(found.seconds.values())
    for place, (name, taken) in enumerate(list(found.seconds.items())[:KERNELS], 1):
        yield Value(f"kernel {place}", 100 * taken / total, "% of the busy time", name[:100])


@contextmanager
def tf32(*, on: bool) -> Iterator[None]:
    """Let products and convolutions of float32 round their inputs to 10 bits, or not."""
    places: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = on
        yield
    finally:
        for place, was in zip(places, before, strict=True):
            place.allow_tf32 = was


def tf32_off_and_on(kit: Kit) -> Iterator[Value]:
    """Speed and scores in float32, with and without TF32."""
    if not kit.on_gpu:
        raise SkippedError("CPUs have no TF32")
    default = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield Value("torch's default", f"products {default[0]}, convolutions {default[1]}")
    model, images, scores = kit.embedded(), kit.triples(kit.plan.batch), {}
    for on in (False, True):
        with tf32(on=on):
            yield Value("on" if on else "off", rate(kit, model, images), "triples/s")
            scores[on] = scored(model, images)
    moved = float((scores[True] - scores[False]).abs().max())
    yield Value("scores moved by", moved, "", f"at most, {kit.plan.batch} random pictures")


def memory_format(kit: Kit, dtype: str) -> Iterator[Value]:
    """The convolutions with channels last, and with whole maps one after the other."""
    model, images = kit.embedded(dtype), kit.triples(kit.plan.batch)
    before = EfficientNetLite.memory_format
    yield Value("default", str(before).removeprefix("torch."))
    try:
        for name, chosen in FORMATS.items():
            EfficientNetLite.memory_format = chosen
            yield Value(name, rate(kit, model, images), "triples/s")
    finally:
        EfficientNetLite.memory_format = before


def compiled(kit: Kit) -> Iterator[Value]:
    """`model.compile()` against the same model without."""
    images = kit.triples(kit.plan.batch)
    model = FuScore.from_pretrained(device=kit.device)
    yield Value("eager", rate(kit, model, images), "triples/s")
    plain = scored(model, images)
    model.compile()
    started = time.perf_counter()
    moved = float((scored(model, images) - plain).abs().max())  # the sum waits for the device
    yield Value("first batch", time.perf_counter() - started, "s", "compiling")
    yield Value("compiled", rate(kit, model, images), "triples/s")
    yield Value("scores moved by", moved)
