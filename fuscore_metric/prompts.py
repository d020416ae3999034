"""The question put to the model: ir, vis, fused, then the question and the answer prefix.

One versioned template for every model family. A backbone adds only its own chat markers and image
tokens around these pieces. Everything before `fused` is the same for all candidates of a source
pair, which is what makes it shareable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
"""Asks for every aspect at once, in the order of `ASPECTS`."""

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
