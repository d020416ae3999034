"""Speed of random models of published shapes: scoring in bfloat16, and a LoRA training step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.kit import GIB, Kit
from benchmarks.gpu.plan import COUNTED
from benchmarks.gpu.profiling import seen
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import TRAINING, Task, need
from benchmarks.gpu.stages.embedded import scored, share, sharing
from benchmarks.speed.clock import seconds
from fuscore_metric import FuScore

SHAPES = {"Qwen3-VL-2B": 12.0, "Qwen2.5-VL-7B": 18.0}
"""With about how many seconds a scoring measurement takes."""
TRAINED = "Qwen2.5-VL-7B"
ASPECTS = ("overall", "sharpness")


def tasks(kit: Kit) -> Iterator[Task]:
    """Two shapes, and a step of the larger one."""
    for name, expected in SHAPES.items():
        yield Task(name, partial(scoring, kit, name), expected)
    yield Task(f"LoRA step, {TRAINED}", lambda: training_step(kit), 20)


def scoring(kit: Kit, name: str) -> Iterator[Value]:
    """Triples a second, memory, sharing, attention and utilisation."""
    before = held(kit)
    started = time.perf_counter()
    model = kit.random(name)
    yield Value("made in", time.perf_counter() - started, "s", "on the device")
    yield Value("weights", (held(kit) - before) / GIB, "GiB")
    count = kit.plan.big_batch
    images = kit.triples(count)
    call = partial(scored, model, images)
    taken = kit.seconds(call)
    yield Value("model", count / taken, "triples/s", f"batch {count}")
    yield Value("peak memory", kit.peak(call) / GIB, "GiB", f"beside the weights, batch {count}")
    yield from sharing(kit, model, kit.candidates(kit.plan.candidates))
    yield from attention(kit, model)
    rate = kit.rate(str(model.dtype).removeprefix("torch."))
    for value in share(model, images, taken, rate):
        value.name = {"model": "work", "share": "share of a matrix product"}.get(
            value.name, value.name
        )
        yield value


def attention(kit: Kit, model: FuScore) -> Iterator[Value]:
    """Which kernels computed attention, in both parts of the model."""
    found = seen(partial(scored, model, kit.triples(1)), kit.device)
    for number, name in enumerate(found.attention, 1):
        yield Value(f"attention {number}", name[:100])


def held(kit: Kit) -> int:
    """Bytes of tensors on the device; unknown on a CPU."""
    return torch.cuda.memory_allocated(kit.device) if kit.on_gpu else 0


def training_step(kit: Kit) -> Iterator[Value]:
    """Forward, backward and AdamW's step of LoRA, with checkpointing and two questions."""
    need(*TRAINING)
    from fuscore_training.large.tuning import TuneOptions, tune
    from fuscore_training.losses import tripartite_loss
    from fuscore_training.trainer import LevelReader

    backbone = kit.random(TRAINED).backbone
    tune(backbone, TuneOptions())  # type: ignore[arg-type]
    reader = LevelReader(backbone.train())
    trained = [p for p in reader.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    scenes, methods = kit.plan.scenes, kit.plan.methods
    triples = [_scene(kit, number, methods) for number in range(scenes)]
    source_ids = torch.arange(scenes, device=kit.device).repeat_interleave(methods)
    mu = torch.linspace(1, 5, scenes * methods, device=kit.device)
    losses: list[Tensor] = []

    def step() -> None:
        logits = reader(triples, ASPECTS)  # (N, A, 5)
        parts = [
            tripartite_loss(logits[:, n], mu, torch.full_like(mu, 0.5), source_ids).total
            for n in range(len(ASPECTS))
        ]
        losses.append(parts[0] + 0.5 * parts[1])
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses[-1] = losses[-1].detach()

    batch = f"{scenes} scenes x {methods} methods, {len(ASPECTS)} questions"
    yield Value("trained", sum(p.numel() for p in trained) / 1e6, "million parameters")
    yield Value("first step", seconds(step, kit.device), "s", batch)
    weights = held(kit)
    added = kit.peak(step)
    yield Value("peak memory", (weights + added) / GIB, "GiB in all", counted(kit))
    yield Value("step", min(seconds(step, kit.device) for _ in range(2)), "s", batch)
    yield Value(
        "loss, first and last", " ".join(f"{float(x):.4f}" for x in losses[:: len(losses) - 1])
    )


def _scene(kit: Kit, seed: int, methods: int) -> dict[str, Tensor]:
    fused = kit.pictures(methods, 100 + seed)
    return {"ir": kit.pictures(1, 200 + seed), "vis": kit.pictures(1, 300 + seed), "fused": fused}


def counted(kit: Kit) -> str:
    """What the peak is to be compared with."""
    return "" if kit.quick else f"counted without a GPU: {COUNTED} GiB"
