"""Sixteen candidates of one scene, from files to scores: FuScore and its peers.

Part of what `python -m benchmarks.speed.table` runs. Every round starts from files that the
operating system has in memory already.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.speed.clock import measure
from benchmarks.speed.models import MODELS
from benchmarks.speed.peers import OneByOne, VitReward
from benchmarks.speed.plain import PlainPool, plain
from benchmarks.speed.scenes import Scene, Triple, data_folder, scene
from benchmarks.speed.work import work
from fuscore_metric import FuScore, rank
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.lazy import load_triples

CANDIDATES = 16
GROUP = "sixteen candidates"
ROUNDS = {"embedded": 3, "0.1B": 1}
VIT_TRIPLES = 2
"""So few, because one takes many seconds; a batch of more is no faster on a CPU."""


@pytest.fixture(scope="module")
def here() -> Scene:
    """The scene."""
    return scene(data_folder(), CANDIDATES)


@pytest.fixture(scope="module", params=["embedded", "0.1B"])
def named(request: pytest.FixtureRequest) -> tuple[str, FuScore]:
    """A model and its name."""
    return request.param, MODELS[request.param]()


def group(name: str) -> str:
    """The embedded weights meet all peers, others only (a), which has their backbone."""
    return GROUP if name == "embedded" else f"{GROUP}, {name}"


def triples(here: Scene) -> list[Triple]:
    """Each candidate beside the sources."""
    return [(here.ir, here.vis, fused) for fused in here.candidates]


def independent(model: FuScore, here: Scene) -> torch.Tensor:
    """Every candidate with its own copy of the sources, in one batch."""
    files = [list(map(str, column)) for column in zip(*triples(here), strict=True)]
    score: Tensor = model(*map(to_batch, load_triples(*files))).score
    return score


def shared(model: FuScore, here: Scene) -> torch.Tensor:
    """The sources read once."""
    files = list(map(str, here.candidates))
    return rank(str(here.ir), str(here.vis), files, model=model, batch_size=CANDIDATES).score


def test_shared(benchmark: Any, named: tuple[str, FuScore], here: Scene) -> None:
    """FuScore, `rank`."""
    name, model = named
    few = scene(data_folder(), 1), scene(data_folder(), 2)
    one, two = (work(partial(shared, model, s)).flops for s in few)
    measure(
        benchmark,
        lambda: shared(model, here),
        triples=CANDIDATES,
        rounds=ROUNDS[name],
        group=group(name),
        note="FuScore, `rank`: sources once",
        flops=one + (CANDIDATES - 1) * (two - one),
    )


def test_independent(benchmark: Any, named: tuple[str, FuScore], here: Scene) -> None:
    """FuScore without sharing."""
    name, model = named
    one = work(lambda: independent(model, scene(data_folder(), 1))).flops
    measure(
        benchmark,
        lambda: independent(model, here),
        triples=CANDIDATES,
        rounds=ROUNDS[name],
        group=group(name),
        note=f"FuScore, a batch of {CANDIDATES} triples, nothing shared",
        flops=CANDIDATES * one,
    )


def test_one_by_one(benchmark: Any, named: tuple[str, FuScore], here: Scene) -> None:
    """Peer (a)."""
    name, model = named
    peer = OneByOne(model)
    measure(
        benchmark,
        lambda: [peer.score(triple) for triple in triples(here)],
        triples=CANDIDATES,
        rounds=ROUNDS[name],
        group=group(name),
        note="(a) same backbone, one triple per call, Pillow, logits of all words",
        flops=CANDIDATES * work(lambda: peer.score(triples(here)[0])).flops,
    )


def test_plain(benchmark: Any, here: Scene) -> None:
    """Peer (b), as scripts run it."""
    measure(
        benchmark,
        lambda: list(map(plain, triples(here))),
        triples=CANDIDATES,
        rounds=1,
        group=GROUP,
        note="(b) nine classic measures by a plain evaluator, one process",
    )


def test_plain_in_processes(benchmark: Any, here: Scene) -> None:
    """Peer (b), as a patient user would run it; the memory is this process's only."""
    with PlainPool(torch.get_num_threads()) as pool:
        pool.score(triples(here)[: torch.get_num_threads()])  # processes import what they need
        measure(
            benchmark,
            lambda: pool.score(triples(here)),
            triples=CANDIDATES,
            rounds=1,
            group=GROUP,
            note="(b) nine classic measures by a plain evaluator, as many processes as threads",
        )


def test_vit_reward(benchmark: Any, here: Scene) -> None:
    """Peer (c)."""
    peer = VitReward()
    measure(
        benchmark,
        lambda: peer.score(triples(here)[:VIT_TRIPLES]),
        triples=VIT_TRIPLES,
        rounds=1,
        group=GROUP,
        note=f"(c) ViT-L/16-384 x 3 + ViT-L encoder, a batch of {VIT_TRIPLES} triples only",
        flops=VIT_TRIPLES * work(lambda: peer.score(triples(here)[:1])).flops,
    )
