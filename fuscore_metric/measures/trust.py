"""How far each measure agrees with what eyes say.

`benchmarks.accuracy.trust` measured it and wrote `agreement.json`. Nothing heavy is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

OWN = "FuScore"
"""This package's score; it stands first among the measures."""
DOUBTFUL = 0.3
"""Below this agreement with viewers a measure says little of what eyes see."""


class Coefficient(NamedTuple):
    """SRCC and the ends of its 95 % interval over scenes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (f"{round(number, 2) + 0.0:.2f}" for number in self)  # never -0.00
        return f"{value} ({low} to {high})"


@dataclass(frozen=True)
class Agreement:
    """What one measure agrees with; a measure of which lower is better was turned round.

    Attributes:
        within: Viewers, mean over scenes of the SRCC between the fusions of one scene.
        pooled: Viewers, all pictures together.
        people: People's order of damaged classic fusions.
    """

    within: Coefficient
    pooled: Coefficient
    people: Coefficient


@lru_cache(1)
def facts() -> Mapping[str, Any]:
    """What `agreement.json` says of the pictures, the weights and the date."""
    text = files(__package__).joinpath("agreement.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def agreements() -> dict[str, Agreement]:
    """By measure, `OWN` first."""
    return {
        name: Agreement(**{key: Coefficient(*numbers) for key, numbers in one.items()})
        for name, one in facts()["measures"].items()
    }


def doubtful(names: Iterable[str]) -> list[str]:
    """Those of some measures whose agreement with viewers within scenes is below `DOUBTFUL`.

    Args:
        names: Keys of `catalogue.MEASURES`.

    Raises:
        KeyError: There is no such measure.
    """
    known = agreements()
    return [name for name in names if known[name].within.value < DOUBTFUL]


def doubts(names: Iterable[str]) -> str:
    """A sentence on the doubtful ones of some measures, for below a table; empty if none is.

    Args:
        names: As for `doubtful`.
    """
    found = doubtful(names)
    if not found:
        return ""
    return (
        f"Of what eyes see, {_listed(found)} {'say' if len(found) > 1 else 'says'} little: within "
        f"scenes {'their' if len(found) > 1 else 'its'} SRCC with viewers (a multimodal LLM, not "
        f"people) is below {DOUBTFUL}. `fuscore measures` lists the agreement of every measure."
    )


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def statements() -> list[str]:
    """What the numbers of `agreements` are, in sentences that belong to every table of them."""
    viewers, people, own = (facts()[name] for name in ("viewers", "people", "fuscore"))
    within, pooled = (viewers["two_viewings"][key][0] for key in ("within", "pooled"))
    return [
        f"Viewers: SRCC with a multimodal LLM that looked at {viewers['pictures']} undamaged "
        f"fusions of {viewers['scenes']} scenes blind (model ratings, not human ones), with 95 % "
        f"intervals over scenes. Two of its viewings agree by {within:.2f} within scenes and "
        f"{pooled:.2f} pooled.",
        f"FuScore ({own['weights']}) learned from viewers' ratings of other scenes: it is compared "
        f"on {own['pictures']} of these pictures, of {own['scenes']} scenes that it did not learn "
        "from, although trials of its recipe were compared on them.",
        f"People: SRCC of the order of {people['conditions']} conditions (three classic fusions "
        "under noise, stripes and blur) by the mean opinion of 27 people, and by the mean of the "
        f"measure over {people['scenes']} other scenes, as the study's pictures are not public. "
        "FuScore's labels of damage were scaled by the same study.",
        f"Measured on {facts()['date']}. Lower-is-better measures were turned round.",
    ]
