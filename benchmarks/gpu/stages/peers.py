"""The other ways to score the same files, in the same run: see `benchmarks/speed/peers.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu.kit import Kit
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import Task
from benchmarks.speed.peers import OneByOne, VitReward
from benchmarks.speed.scenes import Triple
from fuscore_metric import FuScore, rank

BIG = "Qwen3-VL-2B"
POOLED = 16
"""Triples for a pool of processes are so many times those for one process."""


def tasks(kit: Kit) -> Iterator[Task]:
    """Each peer beside `rank` from the same files, in the same measurement."""
    yield Task("one triple per call, embedded", lambda: one_by_one(kit, kit.embedded()), 3)
    for dtype in ("float32", "bfloat16"):
        yield Task(f"ViT-L reward model, {dtype}", partial(vit, kit, dtype), 4)
    yield Task("classic measures, one process", lambda: classic(kit), 4)
    yield Task("classic measures, all processes", lambda: classic_pool(kit), 8)
    yield Task(f"one triple per call, {BIG}", lambda: one_by_one(kit, kit.random(BIG)), 8)


def scene(kit: Kit, folder: str) -> list[Triple]:
    """Files of one source pair with many candidates."""
    return kit.files(kit.candidates(kit.plan.candidates), Path(folder))


def beside(
    kit: Kit, model: FuScore, files: list[Triple], peer: Callable[[], object]
) -> Iterator[Value]:
    """Triples a second of a peer that scores these files, and of `rank`."""
    (ir, vis, _), fused = files[0], [str(path) for _, _, path in files]
    ours = kit.seconds(lambda: rank(str(ir), str(vis), fused, model=model, batch_size=len(fused)))
    theirs = kit.seconds(peer)
    yield Value("peer", len(files) / theirs, "triples/s", f"{len(files)} candidates, from files")
    yield Value("rank", len(files) / ours, "triples/s", "FuScore, the same files")
    yield Value("rank is faster", theirs / ours, "times")


def one_by_one(kit: Kit, model: FuScore) -> Iterator[Value]:
    """Today's way: Pillow, one triple per call, logits of all words, the same backbone."""
    with TemporaryDirectory() as folder:
        files, peer = scene(kit, folder), OneByOne(model)
        yield from beside(kit, model, files, lambda: [peer.score(triple) for triple in files])


def vit(kit: Kit, dtype: str) -> Iterator[Value]:
    """ViT-L/16-384 on three images and an encoder of its size, random weights, one batch."""
    layers, width = kit.plan.vit
    peer = VitReward(layers, width, device=kit.device, dtype=getattr(torch, dtype))
    with TemporaryDirectory() as folder:
        files = scene(kit, folder)
        yield from beside(kit, kit.embedded(dtype), files, lambda: peer.score(files))


def classic(kit: Kit) -> Iterator[Value]:
    """Nine classic measures on one thread of the CPU, as scripts compute them."""
    from benchmarks.speed.plain import plain

    with TemporaryDirectory() as folder:
        files = scene(kit, folder)[: kit.plan.classic]
        yield from beside(kit, kit.embedded(), files, lambda: [plain(one) for one in files])


def classic_pool(kit: Kit) -> Iterator[Value]:
    """The same in as many processes as there are cores."""
    from benchmarks.speed.plain import PlainPool

    workers = os.cpu_count() or 1
    with TemporaryDirectory() as folder, PlainPool(workers) as pool:
        files = POOLED * scene(kit, folder)[: kit.plan.classic]
        pool.score(files[:workers])  # processes import what they need
        yield Value("processes", workers)
        yield from beside(kit, kit.embedded(), files, lambda: pool.score(files))
