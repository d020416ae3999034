"""JSON that anybody may have written -> Python values, or a `ValueError` of one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_DEPTH = 64  # objects and lists in each other; what prints or copies them calls itself
_SHOWN = 80  # characters of a strange value in a message

# Control characters, line separators, half characters, and what turns the writing direction: they
# would rewrite a terminal's lines, or make a report show another text than it holds.
_DISTURBING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def read_json(path: Path, *, limit: int, unique_keys: bool = True) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Args:
        path: A regular file, or a link to one: others may never end.
        limit: Greatest size in bytes.
        unique_keys: Refuse objects that have a key twice: readers differ in which one counts.

    Raises:
        OSError: The file is not there or cannot be read.
        ValueError: It is no such file, too large, nested too deeply, or holds something else.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    hook = _unique if unique_keys else None
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=hook)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _is_deep(content):
        raise ValueError("nested too deeply")
    return content


def walk(content: Any) -> Iterator[tuple[str, Any]]:
    """Go through all keys and values, in no particular order.

    Yields:
        The key of the value, or of the list that it is in ("" at the top), and the value.
    """
    waiting = [("", content)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, inner) for inner in value]


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        inside = [x.values() if isinstance(x, dict) else x for x in level if _holds(x)]
        if not inside:
            return False
        level = [inner for values in inside for inner in values]
    return any(map(_holds, level))


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


def is_clean(text: str, *, allowed: str = "") -> bool:
    """Whether a text holds nothing that disturbs a terminal or report, but for `allowed`."""
    return all(found in allowed for found in _DISTURBING.findall(text))


def short(value: Any) -> str:
    """A value for a message: escaped and cut, whatever it is."""
    shown = repr(value)
    shown = shown if is_clean(shown) else ascii(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."


def readable(name: str) -> str:
    """A key or a tensor's name for a message: as it is, unless it is odd."""
    return name if name and name.isprintable() and len(name) <= 200 else short(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {short(twice)} twice")
    return content
