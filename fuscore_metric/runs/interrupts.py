"""Ctrl-C and `kill` end a run between two of its writes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_ENDING = (signal.SIG_DFL, signal.default_int_handler)
"""Handlers that end a process; others, which the caller has set, stay."""


class Interrupts:
    """Ctrl-C and `kill` alike raise KeyboardInterrupt, but never while rows are written.

    `kill`, because queues and containers end their jobs so.
    """

    def __init__(self) -> None:
        self._shielded = self._pending = False

    @contextmanager
    def raised(self) -> Generator[None]:
        """Have signals end what is done in this context; Python sends them to the main thread."""
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
        before = {number: signal.getsignal(number) for number in numbers}
        ours = [number for number, handler in before.items() if handler in _ENDING]
        for number in ours:
            signal.signal(number, self._interrupt)
        try:
            yield
        finally:
            for number in ours:
                signal.signal(number, before[number])

    @contextmanager
    def shielded(self) -> Generator[None]:
        """Have them wait for the end of this context."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._pending:
            raise KeyboardInterrupt

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        self._pending = True
        if not self._shielded:
            raise KeyboardInterrupt
