"""The stages of scoring a batch, one group each: decode, prepare, vision, prefix, candidate, head.

Part of what `python -m benchmarks.speed.table` runs. A batch is eight triples of 640x480 that share
no source; seconds are of the whole batch.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed import clock
from benchmarks.speed.models import MODELS
from benchmarks.speed.scenes import Triple, data_folder, separate_triples
from benchmarks.speed.work import work
from fuscore_metric import FuScore
from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.prompt_tree import Prefix
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL
from fuscore_metric.backbones.sizes import fit_pixels, resize
from fuscore_metric.images.batches import THREADS
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.lazy import load_triples
from fuscore_metric.prompts import DEFAULT_ASPECT

BATCH = 8
ROUNDS = {"embedded": 3, "0.1B": 2}
WORDS = 151_936
"""Rows of the real models' heads."""

measure = partial(clock.measure, triples=BATCH)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Triple]:
    """A batch on disk."""
    return separate_triples(data_folder(), BATCH, tmp_path_factory.mktemp("triples"))


@pytest.fixture(scope="module")
def images(files: list[Triple]) -> list[Tensor]:
    """The same in memory: ir, vis, fused (N, 3, H, W)."""
    columns = [list(map(str, column)) for column in zip(*files, strict=True)]
    return [to_batch(column) for column in load_triples(*columns)]


@pytest.fixture(scope="module", params=["embedded", "0.1B"])
def named(request: pytest.FixtureRequest) -> tuple[str, FuScore]:
    """A model and its name."""
    return request.param, MODELS[request.param]()


def first(images: list[Tensor]) -> list[Tensor]:
    """One triple, whose work is counted in place of the batch's."""
    return [column[:1] for column in images]


def decode(path: Path) -> Tensor:
    """One file."""
    return as_images(str(path), "fused")[0]


@pytest.mark.parametrize("threads", [1, THREADS])
def test_decode(benchmark: Any, files: list[Triple], threads: int) -> None:
    """Files to numbers."""
    paths = [path for triple in files for path in triple]
    with ThreadPoolExecutor(threads) as pool:
        measure(
            benchmark,
            lambda: list(pool.map(decode, paths)),
            group="decode",
            note=f"{len(paths)} files, {threads} thread{'s' * (threads > 1)}",
            rounds=5,
        )


def test_prepare(benchmark: Any, images: list[Tensor], named: tuple[str, FuScore]) -> None:
    """Numbers to normalised pixels of a size that the model takes; for Qwen-VL, to patches."""
    name, model = named
    pixels = torch.cat(images)
    measure(benchmark, lambda: prepare(model, pixels), group="prepare", note=name, rounds=5)


def prepare(model: FuScore, pixels: Tensor) -> Tensor:
    """What comes before the first weight."""
    if isinstance(model.backbone, QwenVL):
        return model.backbone.pixels(pixels)[0]
    options = model.backbone.preprocessing
    budget = {name: options[name] for name in ("min_pixels", "max_pixels", "multiple")}
    size = fit_pixels(*pixels.shape[-2:], **budget)
    prepared: Tensor = (resize(pixels, size) - options["mean"]) / options["std"]
    return prepared


def encode(model: FuScore, images: list[Tensor]) -> Encoded:
    """The vision part over all images."""
    with torch.no_grad():
        return model.backbone.encode(*images)


def prefix(model: FuScore, encoded: Encoded) -> Prefix:
    """The language part over the sources."""
    with torch.no_grad():
        return model.backbone.read_sources(encoded)


def candidate(model: FuScore, encoded: Encoded, before: Prefix) -> Tensor:
    """The language part over the fused images and the question, and the five rows."""
    with torch.no_grad():
        return model.backbone.aspect_logits(encoded, (DEFAULT_ASPECT,), before)


def test_vision(benchmark: Any, images: list[Tensor], named: tuple[str, FuScore]) -> None:
    """All three images of each triple; with `prepare`, which is a small part of it."""
    name, model = named
    measure(
        benchmark,
        lambda: encode(model, images),
        group="vision",
        note=name,
        rounds=ROUNDS[name],
        flops=BATCH * work(lambda: encode(model, first(images))).flops,
    )


def test_prefix(benchmark: Any, images: list[Tensor], named: tuple[str, FuScore]) -> None:
    """The language part over the sources."""
    name, model = named
    encoded, one = encode(model, images), encode(model, first(images))
    measure(
        benchmark,
        lambda: prefix(model, encoded),
        group="prefix",
        note=name,
        rounds=ROUNDS[name],
        flops=BATCH * work(lambda: prefix(model, one)).flops,
    )


def test_candidate(benchmark: Any, images: list[Tensor], named: tuple[str, FuScore]) -> None:
    """The language part behind the sources."""
    name, model = named
    encoded, one = encode(model, images), encode(model, first(images))
    before, before_one = prefix(model, encoded), prefix(model, one)
    measure(
        benchmark,
        lambda: candidate(model, encoded, before),
        group="candidate",
        note=name,
        rounds=ROUNDS[name],
        flops=BATCH * work(lambda: candidate(model, one, before_one)).flops,
    )


@pytest.mark.parametrize("rows", [5, WORDS])
def test_head(benchmark: Any, rows: int) -> None:
    """Last states of width 640 to logits: the five level words, or a real model's whole head."""
    states, head = torch.rand(BATCH, 640), torch.rand(rows, 640)
    note = "five rows" if rows == 5 else f"all {rows:,} rows, last position only"
    call = partial(F.linear, states, head)
    measure(benchmark, call, group="head", note=note, rounds=5, flops=work(call).flops)
