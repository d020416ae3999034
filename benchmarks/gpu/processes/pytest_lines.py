"""A pytest plugin: each finished test -> a line of JSON, written at once.

pytest's own XML comes at the very end, so a crash of the driver, or of the time, would lose all.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "FUSCORE_GPU_LINES"
"""Environment variable with the file to write."""


def pytest_runtest_logreport(report: Any) -> None:
    """Write what became of a test: of its call, or of a fixture that failed or skipped."""
    if report.when == "call" or not report.passed:
        more = " (teardown)" if report.when == "teardown" else ""
        properties = [[str(name), _plain(value)] for name, value in report.user_properties]
        _write(report, report.nodeid + more, report.duration, properties)


def pytest_collectreport(report: Any) -> None:
    """Write which files could not be read."""
    if not report.passed:
        _write(report, report.nodeid, 0.0, [])


def _write(report: Any, name: str, duration: float, properties: list[list[Any]]) -> None:
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longreprtext
    line = {
        "name": name,
        "outcome": "ok" if report.passed else str(report.outcome),
        "seconds": round(duration, 3),
        "reason": "" if report.passed else reason,
        "properties": properties,
    }
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
