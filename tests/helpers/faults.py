"""What goes wrong around a command: a full disk, lost rights, little memory, a signal."""

import ctypes
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
"""Numbers of the capabilities by which root may read and write everything."""
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True)
class Done:
    """How a process ended: exit status, or minus the number of a signal, and what it said."""

    status: int
    out: str
    err: str


def forked(run: Callable[[], object], *, stdout: Path | None = None, timeout: float = 60) -> Done:
    """Run a function in a process of its own, which has imported all that this one has.

    Args:
        run: The function. SystemExit gives the status; what it returns is printed.
        stdout: A file to have as standard output.
        timeout: Seconds after which the process counts as hanging.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            place = out.fileno() if stdout is None else os.open(stdout, os.O_WRONLY)
            _run_and_leave(run, place, err.fileno())
        status = os.waitstatus_to_exitcode(_wait(child, timeout))
        said = [os.pread(file.fileno(), 10**7, 0).decode() for file in (out, err)]
    return Done(status, *said)


def _run_and_leave(run: Callable[[], object], out: int, err: int) -> None:
    """Never returns: what is above on the stack is the parent's."""
    status = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        # Not pytest's, and with buffers of their own.
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb")) for n in (1, 2))
        logging.getLogger().handlers.clear()  # pytest's: warnings belong on stderr
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray leaves one of its own behind
        said = run()
        sys.stdout.write("" if said is None else str(said))
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.settrace(None)
        try:
            sys.stderr.flush()
            sys.stdout.flush()
        finally:
            os._exit(status)


def _wait(child: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"hangs: still running after {timeout} s")


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """A disk of its own, of a size such as "64k"; skips the test where none may be mounted."""
    path.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={size}", "none", path):
        pytest.skip("no file system may be mounted here")
    try:
        yield path
    finally:
        # pyarrow's threads may close a file a moment later: `--lazy` does not wait for them.
        subprocess.run(["umount", "--lazy", path], check=True)


def remount(path: Path, options: str) -> None:
    """Change a `tmpfs`: "size=1m", "ro"."""
    assert _mount("-o", f"remount,{options}", path)


def _mount(*arguments: object) -> bool:
    line = ["mount", *map(str, arguments)]
    try:
        return subprocess.run(line, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


def without_root(run: Callable[[], object]) -> Callable[[], object]:
    """Let permissions of files hold for root, too."""

    def with_rights_of_all() -> object:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the high halves
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, sets) == 0
        for place in range(3):
            sets[place] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
        assert libc.capset(header, sets) == 0
        return run()

    return with_rights_of_all


class Lines:
    """Counts the lines of the package's code that a function runs, and sends a signal at one.

    Args:
        left_out: Parts of paths whose lines do not count: those of arithmetic are too many.
    """

    def __init__(self, *left_out: str) -> None:
        self._left_out = left_out

    def count(self, run: Callable[[], object]) -> int:
        """How many there are, in a process that ends well."""

        def counted() -> int:
            with suppress(SystemExit):
                self._follow(run, None, 0)
            return self._seen

        done = forked(counted)
        assert done.status == 0, done.err
        return int(done.out.split()[-1])

    def stopped(self, run: Callable[[], object], place: int, number: int) -> Callable[[], object]:
        """The function, with a signal at the line of that place, from 1."""
        return lambda: self._follow(run, place, number)

    def _follow(self, run: Callable[[], object], place: int | None, number: int) -> None:
        self._seen = 0

        def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
            name = frame.f_code.co_filename
            if "/fuscore_metric/" not in name or any(part in name for part in self._left_out):
                return None
            if event == "line":
                self._seen += 1
                if self._seen == place:
                    sys.settrace(None)
                    os.kill(os.getpid(), number)
            return trace

        sys.settrace(trace)
        try:
            run()
        finally:
            sys.settrace(None)
