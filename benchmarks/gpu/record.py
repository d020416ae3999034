"""Values -> measurements -> stages -> `results.json` and `results.md`, whole at any time."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.report import markdown

Outcome = Literal["running", "ok", "failed", "skipped"]
JSON_NAME, MARKDOWN_NAME = "results.json", "results.md"


@dataclass
class Value:
    """One number, or word, that was measured.

    Attributes:
        name: What it is, unique within its measurement.
        value: The number; a NaN or infinity becomes a word, which JSON can hold.
        unit: Of the number.
        note: What a reader must know besides.
    """

    name: str
    value: float | int | str | bool
    unit: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            self.value = str(self.value)

    def __str__(self) -> str:
        shown = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.name}: {shown}" + (f" {self.unit}" if self.unit else "")


@dataclass
class Measurement:
    """What one task found, or why it found nothing.

    Attributes:
        name: Unique within its stage.
        outcome: How it ended; "running" in the results of a run that was cut.
        reason: Of a skip or a failure, in one line.
        traceback: Of a failure.
        seconds: How long it took.
        values: In the order in which they came.
    """

    name: str
    outcome: Outcome = "running"
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0
    values: list[Value] = field(default_factory=list)


@dataclass
class Stage:
    """Measurements that belong together; `reason` and `traceback` are of what lies between them."""

    name: str
    budget: float
    outcome: Outcome = "running"
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)


class Results:
    """Everything so far, in memory and on disk.

    Args:
        folder: Where to write; made if it is not there.
        run: What was asked for.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, run
        self.environment: dict[str, Any] = {}
        self.stages: list[Stage] = []
        self._started = time.monotonic()

    def content(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return {
            "run": {**self.run, "seconds": round(time.monotonic() - self._started, 1)},
            "environment": self.environment,
            "stages": {stage.name: asdict(stage) for stage in self.stages},
        }

    def save(self) -> None:
        """Write both files; whoever reads them, or cuts the run, finds whole ones."""
        content = self.content()
        for name, text in (
            (JSON_NAME, json.dumps(content, indent=1, allow_nan=False) + "\n"),
            (MARKDOWN_NAME, markdown(content)),
        ):
            unfinished = self.folder / f".{name}.{os.getpid()}"
            unfinished.write_text(text, "utf-8")
            os.replace(unfinished, self.folder / name)

    def say(self, line: str) -> None:
        """Print a line, with the seconds since the start."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {line}", flush=True)
