"""What kind of value each field of `fuscore.json` takes, and from where to where: for `checkpoint`.

A checkpoint may come from anybody. What passes here can be shown, compared and computed with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fuscore_metric.prompts import ASPECTS
from fuscore_metric.strict_json import is_clean, readable, short, walk

MAX_NAME = 200
MAX_BUDGET = 2**24
"""Pixels: the largest budget of Qwen3-VL's own processor. A `min_pixels` beyond it would blow up
the smallest image until the memory is full."""


class Kind(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def whole(low: int, high: int) -> Kind:
    """A whole number in [low, high]; True and 1.0 are none."""
    words = f"a whole number from {low} to {high}"
    return Kind(words, lambda x: type(x) is int and low <= x <= high)


def number(low: float, high: float) -> Kind:
    """A number in [low, high]; NaN and infinity are none."""
    return Kind(f"a number from {low:g} to {high:g}", lambda x: _is_number(x, low, high))


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # NaN compares as False


def _three(low: float, high: float) -> Kind:
    def fits(value: Any) -> bool:
        three = isinstance(value, (list, tuple)) and len(value) == 3
        return three and all(_is_number(x, low, high) for x in value)

    return Kind(f"three numbers from {low:g} to {high:g}", fits)


def _list_of(words: str, kind: type) -> Kind:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(x, kind) for x in value)

    return Kind(words, fits)


def _are_facts(value: Any) -> bool:
    objects = isinstance(value, list) and all(isinstance(x, dict) for x in value)
    return objects and all(isinstance(fact, str) for x in value for fact in x.values())


def _are_aspects(value: Any) -> bool:
    known = isinstance(value, list) and all(isinstance(x, str) and x in ASPECTS for x in value)
    return known and 0 < len(value) == len(set(value))


_TEXT = Kind("a string", lambda x: isinstance(x, str))
_OBJECT = Kind("an object", lambda x: isinstance(x, dict))
_NAME = Kind(
    f"a string of 1 to {MAX_NAME} characters",
    lambda x: isinstance(x, str) and 0 < len(x) <= MAX_NAME,
)
_ABOVE_0 = Kind(
    "a number above 0", lambda x: type(x) in (int, float) and 0 < x < 1e300 and not math.isnan(x)
)

FIELDS: dict[str, Kind] = {
    "name": _NAME,
    "family": _TEXT,
    "preprocessing": _OBJECT,
    "label_kind": _TEXT,
    "label_description": _TEXT,
    "prompt_version": Kind("a whole number", lambda x: type(x) is int),
    "level_words": _list_of("a list of strings", str),
    "aspects": Kind(f"some of {', '.join(ASPECTS)}, each once", _are_aspects),
    "weights": _TEXT,
    "base_model": _TEXT,
    "base_revision": _TEXT,
    "base": Kind("a list of objects with strings", _are_facts),
    "data": _list_of("a list of strings", str),
    "temperature": _ABOVE_0,
    "metrics": _OBJECT,
    "code_revision": _TEXT,
    "created": _TEXT,
}

PREPROCESSING: dict[str, Kind] = {
    "min_pixels": whole(1, MAX_BUDGET),
    "max_pixels": whole(1, MAX_BUDGET),
    "multiple": whole(1, 256),
    "grid": whole(1, 32),
    "patch_size": whole(1, 256),
    "merge_size": whole(1, 16),
    "temporal_patch_size": whole(1, 16),
    "mean": number(0, 1),
    "std": number(1e-3, 10),
    "image_mean": _three(0, 1),
    "image_std": _three(1e-3, 10),
}
"""Options of all families by name; which ones a family has is its own business."""


def misfits(
    values: Mapping[str, Any], kinds: Mapping[str, Kind], parent: str = ""
) -> Iterator[str]:
    """Say of each value that is not of its kind what it should be: "Expected `a.b` to be ...".

    Args:
        values: Values by name; those without a kind are not looked at.
        kinds: What they must be.
        parent: Name of the object that the values are in.
    """
    for name, kind in kinds.items():
        if name in values and not kind.fits(values[name]):
            place = f"{parent}.{name}" if parent else name
            yield f"Expected `{place}` to be {kind.words}, got {short(values[name])}"


def complaints(content: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with the values of a `fuscore.json`, most basic things first."""
    yield from misfits(content, FIELDS)
    options = content["preprocessing"]
    yield from misfits(options, PREPROCESSING, "preprocessing")
    low, high = options.get("min_pixels", 1), options.get("max_pixels", MAX_BUDGET)
    if low > high:
        yield (
            "Expected `preprocessing.min_pixels` up to `preprocessing.max_pixels`, "
            f"got {low} and {high}"
        )
    for key, value in walk(dict(content)):
        # What somebody wrote about the labels may have several lines.
        allowed = "\n\t" if key == "label_description" else ""
        for text in (key, value):
            if isinstance(text, str) and not is_clean(text, allowed=allowed):
                yield f"Expected `{readable(key)}` without control characters, got {short(text)}"
