"""Commands in processes of their own, stopped with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks import REPOSITORY

TAIL = 4000
"""Characters of a failed command's output that are kept."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, in which the repository's packages are found."""
    found = [str(REPOSITORY), str(REPOSITORY / "training"), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, found))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **(more or {})}


@contextmanager
def started(
    command: Sequence[str], output: IO[str], more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in the repository; when this block is left, it ends.

    Args:
        command: Program and arguments.
        output: Where stdout and stderr go.
        more: Environment variables.
    """
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(more),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what it starts can be stopped with it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(command: Sequence[str], log: Path, more: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, and return what it printed, which is also in `log`.

    Raises:
        RuntimeError: Its exit status is not 0; the message has the end of its output.
    """
    with log.open("w") as output, started(command, output, more) as process:
        status = process.wait()
    said = log.read_text(errors="replace")
    if status:
        raise RuntimeError(f"exit status {status}: {' '.join(command)}\n{said[-TAIL:]}")
    return said
