"""The question put to the model: ir, vis, fused, then the question and the answer prefix.

One versioned template for every model family. A backbone adds only its own chat markers and image
tokens around these pieces. Everything before `fused` is the same for all candidates of a source
pair, which is what makes it shareable.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import Self

PROMPT_VERSION = 1
"""Raised whenever any text below changes: scores of different versions are not comparable."""

LEVEL_WORDS: tuple[str, ...] = ("bad", "poor", "fair", "good", "excellent")
"""The five answers, worst first; their values are in `levels`."""

ImageName = Literal["ir", "vis", "fused"]
IMAGE_ORDER: tuple[ImageName, ...] = ("ir", "vis", "fused")
IMAGE_LABELS: dict[ImageName, str] = {
    "ir": "Infrared image:",
    "vis": "Visible image:",
    "fused": "Fused image:",
}

QUESTIONS: dict[str, str] = {
    "overall": "How would you rate the overall quality of the fused image?",
    "thermal_retention": "How well does the fused image keep the thermal targets of the infrared?",
    "texture_preservation": "How well does the fused image keep the textures of the visible?",
    "artifacts": "How free of artifacts and noise is the fused image?",
    "sharpness": "How sharp is the fused image?",
}
ASPECTS: tuple[str, ...] = tuple(QUESTIONS)
DEFAULT_ASPECT = "overall"
ALL_ASPECTS = "all"
"""The word for `ASPECTS` on the command line, in `evaluate` and in the settings of a run."""

ANSWER_PREFIXES: dict[str, str] = {
    "overall": "The overall quality is",
    "thermal_retention": "The thermal retention is",
    "texture_preservation": "The texture preservation is",
    "artifacts": "The freedom from artifacts is",
    "sharpness": "The sharpness is",
}
"""What the model has already begun to answer; the next token is a level word."""


@dataclass(frozen=True)
class Prompt:
    """The text pieces of one aspect's prompt.

    Attributes:
        aspect: Which aspect is asked for.
        labels: Text before each image, in image order.
        question: Text after the last image.
        answer_prefix: Beginning of the model's answer, without trailing space.
    """

    aspect: str
    labels: tuple[tuple[ImageName, str], ...]
    question: str
    answer_prefix: str


def build_prompt(aspect: str = DEFAULT_ASPECT) -> Prompt:
    """Return the prompt pieces for an aspect.

    Args:
        aspect: One of `ASPECTS`.

    Raises:
        ValueError: The aspect is unknown.
    """
    if not isinstance(aspect, str) or aspect not in QUESTIONS:
        raise ValueError(f"Expected `aspect` to be one of {', '.join(ASPECTS)}, got {aspect!r}")
    return Prompt(
        aspect=aspect,
        labels=tuple((name, IMAGE_LABELS[name]) for name in IMAGE_ORDER),
        question=QUESTIONS[aspect],
        answer_prefix=ANSWER_PREFIXES[aspect],
    )


@dataclass(frozen=True)
class Asked:
    """The aspects that a caller asks for, and whether the result has an axis for them.

    Attributes:
        aspects: A of `ASPECTS`, each once.
        alone: Whether a single aspect was asked for by `aspect=`: results are (N,) instead of
            (N, A).
    """

    aspects: tuple[str, ...]
    alone: bool

    @classmethod
    def of(cls, aspect: str | None, aspects: Sequence[str] | None = None) -> Self:
        """Check the options `aspect` and `aspects` of a door; without either it is `overall`.

        Raises:
            ValueError: Both are given, an aspect is unknown or comes twice, or there is none.
        """
        if aspects is None:
            if aspect == ALL_ASPECTS:
                warnings.warn(
                    'aspect="all" goes with the next version: use '
                    "aspects=fuscore_metric.prompts.ASPECTS",
                    DeprecationWarning,
                    stacklevel=_callers_level(),
                )
                return cls(ASPECTS, alone=False)
            one = build_prompt(DEFAULT_ASPECT if aspect is None else aspect)
            return cls((one.aspect,), alone=True)
        if aspect is not None:
            raise ValueError(f"Expected `aspect` or `aspects`, got both: {aspect!r}, {aspects!r}")
        given = () if isinstance(aspects, str) else tuple(aspects)
        names = tuple(build_prompt(one).aspect for one in given)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"Expected `aspects` as names of aspects, each once, got {aspects!r}")
        return cls(names, alone=False)


OVERALL = Asked((DEFAULT_ASPECT,), alone=True)
"""The request of a caller who names no aspect."""


def _callers_level() -> int:
    """How far up the stack the caller's own code is; Python shows it warnings of deprecation."""
    frame, level = inspect.currentframe(), 0
    while frame and frame.f_globals.get("__name__", "").startswith(("fuscore_metric.", "torch.")):
        frame, level = frame.f_back, level + 1
    return level


def run_aspects(word: str) -> tuple[str, ...]:
    """The aspects that a word of the command line or of a run's settings stands for.

    Raises:
        ValueError: The word is neither an aspect nor `ALL_ASPECTS`.
    """
    return ASPECTS if word == ALL_ASPECTS else (build_prompt(word).aspect,)


def main_aspect(aspects: Sequence[str]) -> str:
    """The aspect that decides where one number is needed: `overall`, or else the first."""
    return DEFAULT_ASPECT if DEFAULT_ASPECT in aspects else aspects[0]
