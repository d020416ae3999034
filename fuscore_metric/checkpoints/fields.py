"""What kind of value each field of `fuscore.json` takes, and from where to where: for `checkpoint`.

A checkpoint may come from anyone. Values that pass here can be shown, compared and computed with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fuscore_metric.checkpoints.strict_json import is_clean, readable, short, walk
from fuscore_metric.prompts import ASPECTS

MAX_NAME = 200
MAX_BUDGET = 2**24
"""Pixels: the largest budget of Qwen3-VL's own processor. A `min_pixels` beyond it would blow up
the smallest image until the memory is full."""

_HASH = re.compile("[0-9a-f]{32}")


class Kind(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def whole(low: int, high: int) -> Kind:
    """A whole number in [low, high]; True and 1.0 are refused."""
    words = f"a whole number from {low} to {high}"
    return Kind(words, lambda x: type(x) is int and low <= x <= high)


def number(low: float, high: float) -> Kind:
    """A number in [low, high]; True, NaN and infinity are refused."""
    words = f"a number from {low:g} to {high:g}"
    return Kind(words, lambda x: type(x) in (int, float) and low <= x <= high)


def _list_of(words: str, fits: Callable[[Any], object]) -> Kind:
    return Kind(words, lambda x: isinstance(x, list) and all(map(fits, x)))


def _three(low: float, high: float) -> Kind:
    numbers = _list_of("", number(low, high).fits)
    words = f"three numbers from {low:g} to {high:g}"
    return Kind(words, lambda x: numbers.fits(x) and len(x) == 3)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TEXT = Kind("a string", _is_text)
TEXTS = _list_of("a list of strings", _is_text)
_OBJECT = Kind("an object", lambda x: isinstance(x, dict))
_NAME = Kind(
    f"a string of 1 to {MAX_NAME} characters", lambda x: _is_text(x) and 0 < len(x) <= MAX_NAME
)
_ABOVE_0 = Kind("a number above 0", lambda x: number(0, 1e300).fits(x) and x > 0)
_ASPECTS = Kind(
    f"some of {', '.join(ASPECTS)}, each once",
    lambda x: TEXTS.fits(x) and set(x) <= set(ASPECTS) and 0 < len(x) == len(set(x)),
)
_FACTS = _list_of(
    "a list of objects with strings",
    lambda x: isinstance(x, dict) and all(map(_is_text, x.values())),
)
_HASHES = _list_of(
    "a list of hashes, 32 hexadecimal digits each", lambda x: _is_text(x) and _HASH.fullmatch(x)
)

FIELDS: dict[str, Kind] = {
    "name": _NAME,
    "family": _TEXT,
    "preprocessing": _OBJECT,
    "label_kind": _TEXT,
    "label_description": _TEXT,
    "prompt_version": Kind("a whole number", lambda x: type(x) is int),
    "level_words": TEXTS,
    "aspects": _ASPECTS,
    "weights": _TEXT,
    "base_model": _TEXT,
    "base_revision": _TEXT,
    "base": _FACTS,
    "data": TEXTS,
    "training_pairs": _HASHES,
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
    "image_size": whole(1, 4096),
    "tower": Kind("true or false", lambda x: isinstance(x, bool)),
    "statistics": Kind("false or an object", lambda x: x is False or isinstance(x, dict)),
}
"""Options of all families by name; each family has some of them."""


def misfits(
    values: Mapping[str, Any], kinds: Mapping[str, Kind], parent: str = ""
) -> Iterator[str]:
    """Name each value that is not of its kind: "Expected `a.b` to be ...".

    Args:
        values: Values by name; those without a kind are not checked.
        kinds: What they must be.
        parent: Name of the object that the values are in.
    """
    for name, kind in kinds.items():
        if name in values and not kind.fits(values[name]):
            place = f"{parent}.{name}" if parent else name
            yield f"Expected `{place}` to be {kind.words}, got {short(values[name])}"


def complaints(content: Mapping[str, Any]) -> Iterator[str]:
    """List what is wrong with the values of a `fuscore.json`, most basic things first."""
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
        # The description of the labels may have several lines.
        allowed = "\n\t" if key == "label_description" else ""
        for text in (key, value):
            if isinstance(text, str) and not is_clean(text, allowed=allowed):
                yield f"Expected `{readable(key)}` without control characters, got {short(text)}"
