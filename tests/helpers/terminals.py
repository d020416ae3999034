"""Programs in a terminal of their own, for tests of what a person sees."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field

import pyte

# Makes stdin, a pty, the controlling terminal, where Ctrl-C is a signal; then runs the program.
LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
DEADLINE = 120


@dataclass
class Terminal:
    """A running `fuscore`, and what its terminal shows.

    Attributes:
        columns: Width of the terminal.
        written: All bytes that came, stdout and stderr as one.
        screen: What they look like; long enough that nothing scrolls away.
        seen: What the screen was like after each piece that came.
    """

    process: subprocess.Popen
    side: int
    columns: int
    written: bytes = b""
    seen: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.screen = pyte.Screen(self.columns, 300)
        self._stream = pyte.ByteStream(self.screen)
        self._lines = [""] * self.screen.lines

    @property
    def text(self):
        # Only the lines that changed: to draw all of them takes longer than what is watched.
        for number in self.screen.dirty:
            line = self.screen.buffer[number]
            cells = (line[column].data for column in range(self.columns))
            self._lines[number] = "".join(cells).rstrip()
        self.screen.dirty.clear()
        return "\n".join(self._lines).rstrip()

    def read(self, until=None):
        """Follow it until a test of this terminal holds, or the program ended."""
        deadline = time.monotonic() + DEADLINE
        while until is None or not until(self):
            assert time.monotonic() < deadline, self.text
            if not select.select([self.side], [], [], 0.1)[0]:
                continue
            try:
                some = os.read(self.side, 1 << 16)
            except OSError:  # Linux: the other side was closed
                some = b""
            if not some:
                break
            self.written += some
            self._stream.feed(some)
            self.seen.append(self.text)
        return self

    def type(self, keys):
        os.write(self.side, keys)

    def end(self):
        """Exit status, once all is read."""
        self.read()
        os.close(self.side)
        return self.process.wait(DEADLINE)


def fuscore(*arguments, columns=80, **environment):
    """Start `fuscore` in a terminal; a variable that is None is not set."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 300, columns, 0, 0))
    given = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    given |= {"LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, "-m", "fuscore_metric.cli", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=given,
        start_new_session=True,
        close_fds=True,
    )
    os.close(theirs)
    return Terminal(process, ours, columns)
