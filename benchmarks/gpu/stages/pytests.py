"""Every test that is marked `gpu`, and what the tests recorded, such as deviations of scores."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import REPOSITORY
from benchmarks.gpu.kit import Kit
from benchmarks.gpu.processes import pytest_lines
from benchmarks.gpu.processes.child import TAIL, started
from benchmarks.gpu.record import Measurement, Value
from benchmarks.gpu.run import SkippedError, Task

DEVICE = "FUSCORE_GPU_TESTS_DEVICE"
"""Environment variable that the tests in `tests/gpu` read."""
TESTS = REPOSITORY / "tests"
MARK = "mark.gpu"
FOUND_NOTHING = 5  # pytest's exit status
_MISSING = re.compile(r"No module named '([\w.]+)'")


def tasks(kit: Kit) -> Iterator[Task]:
    """One run of pytest; each test is a measurement of its own."""
    yield Task("pytest -m gpu", lambda: run(kit), 20)


def files(kit: Kit) -> list[Path]:
    """Files with such tests. On a CPU those of `tests/gpu`, which can be told the device."""
    folder = TESTS if kit.on_gpu else TESTS / "gpu"
    found = [path for path in folder.rglob("test_*.py") if MARK in path.read_text()]
    return sorted(found, key=lambda path: ("compile" in path.name, path))  # the slowest last


def run(kit: Kit) -> Iterator[Value | Measurement]:
    """Run them; their output is in `tests.log` beside the results."""
    chosen = files(kit)
    if not chosen:
        raise SkippedError("there are no tests for this device")
    options = ["-m", "gpu", "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["-k", kit.plan.tests]
    command = [sys.executable, "-m", "pytest", "-p", pytest_lines.__name__, *options]
    command += map(str, chosen)
    log, seen = kit.folder / "tests.log", 0
    with TemporaryDirectory() as folder, log.open("w") as output:
        lines = Path(folder) / "lines"
        lines.touch()
        more = {DEVICE: kit.device.type, pytest_lines.VARIABLE: str(lines)}
        with started(command, output, more) as process:
            ended = False
            while not ended:
                ended = process.poll() is not None  # before the file is read for the last time
                whole = lines.read_text().splitlines()
                for line in whole[seen:]:
                    yield measurement(json.loads(line))
                seen = len(whole)
                time.sleep(0 if ended else 0.3)
    status = process.returncode
    if status == FOUND_NOTHING:
        raise SkippedError("pytest found no test marked gpu")
    if status not in (0, 1):
        end = log.read_text()[-TAIL:]
        if missing := _MISSING.search(end):
            raise SkippedError(f"{missing[1]} is not installed")
        raise RuntimeError(f"pytest ended with status {status}\n{end}")
    yield Value("tests", seen)


def measurement(line: dict[str, Any]) -> Measurement:
    """A line of `pytest_lines` -> a measurement; a file that needs a missing package is skipped."""
    reason, outcome = line["reason"], line["outcome"]
    if "::" not in line["name"] and (missing := _MISSING.search(reason)):
        reason, outcome = f"{missing[1]} is not installed", "skipped"
    short = reason.strip().splitlines()[-1] if reason.strip() else ""
    trace = reason if outcome == "failed" else ""
    values = [Value(name, value) for name, value in line["properties"]]
    name = line["name"].removeprefix("tests/")
    return Measurement(name, outcome, short[:500], trace, line["seconds"], values)
