"""All triples of VIFB, from files to numbers: classic measures beside FuScore.

Part of what `python -m benchmarks.speed.table` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import fuscore_metric
from benchmarks.speed.clock import measure
from benchmarks.speed.models import MODELS
from benchmarks.speed.plain import plain
from benchmarks.speed.scenes import Triple, data_folder, vifb
from fuscore_metric.measures.catalogue import SETS

GROUP = "VIFB"
FEW = 25
"""Every so many triples, one per scene, are measured in the ways that share nothing."""


@pytest.fixture(scope="module")
def triples() -> list[Triple]:
    """The triples."""
    return vifb(data_folder())


@pytest.fixture(scope="module")
def few(triples: list[Triple]) -> list[Triple]:
    """Some of them."""
    return triples[::FEW]


def columns(triples: Sequence[Triple]) -> list[list[str]]:
    """Paths of ir, vis and fused."""
    return [list(map(str, column)) for column in zip(*triples, strict=True)]


def test_fuscore(benchmark: Any, triples: list[Triple]) -> None:
    """What the measures' time is compared with."""
    model = MODELS["embedded"]()
    measure(
        benchmark,
        lambda: fuscore_metric.score(*columns(triples), model=model),
        triples=len(triples),
        rounds=1,
        group=GROUP,
        note=f"FuScore, {len(triples)} triples, sources once",
    )


@pytest.mark.parametrize("names", SETS)
def test_measures(benchmark: Any, names: str, triples: list[Triple]) -> None:
    """By this package."""
    measure(
        benchmark,
        lambda: fuscore_metric.measure(*columns(triples), names=names, device="cpu"),
        triples=len(triples),
        rounds=1,
        group=GROUP,
        note=f"{len(SETS[names])} measures, {len(triples)} triples, sources once",
    )


def test_one_by_one(benchmark: Any, few: list[Triple]) -> None:
    """By this package in the way of scripts in MATLAB."""
    measure(
        benchmark,
        lambda: [
            fuscore_metric.measure(*map(str, one), names="paper", device="cpu") for one in few
        ],
        triples=len(few),
        rounds=1,
        group=GROUP,
        note=f"{len(SETS['paper'])} measures, {len(few)} triples, one per call",
    )


def test_plain(benchmark: Any, few: list[Triple]) -> None:
    """As evaluators in Python usually compute them."""
    measure(
        benchmark,
        lambda: list(map(plain, few)),
        triples=len(few),
        rounds=1,
        group=GROUP,
        note=f"nine measures by a plain evaluator, {len(few)} triples",
    )
