"""What the commands print on: wide and narrow terminals, pipes, files."""

from __future__ import annotations

import io
import os
import shutil
import sys
from typing import Literal

from rich.console import Console, ConsoleDimensions

_NARROW = 100
"""Columns below which the boxes around the help leave too few for words in it."""


def make_console(*, stderr: bool = False) -> Console:
    """The console of results, or of messages beside them, as wide as the terminal is.

    NO_COLOR leaves no bold or dim text either. Rich takes a dumb terminal for 80 columns wide.
    """
    found = Console(
        stderr=stderr, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto"
    )
    if found.is_dumb_terminal:
        found.size = ConsoleDimensions(*shutil.get_terminal_size())
    return found


def has_width(console: Console) -> bool:
    """Whether lines end where a terminal does; in pipes and files they need not."""
    return console.is_terminal or "COLUMNS" in os.environ


def help_style() -> Literal["rich"] | None:
    """Help and usage errors: in boxes on a terminal that can show them, else plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("", "dumb", "unknown")
    if plain or not sys.stdout.isatty() or shutil.get_terminal_size().columns < _NARROW:
        return None
    return "rich"


def accept_any_name() -> None:
    """Show names of files as escapes where the output's encoding has no text for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """Escape what names of files may hold and a terminal obeys: line breaks, colours, direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def close_output() -> None:
    """Drop output that cannot be written: Python would try again when it ends, and complain."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
