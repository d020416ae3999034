"""What each second of one `fuscore score` process is spent on, from its start to its end.

    python benchmarks/start_up.py

Prints a Markdown table: medians of alternating runs with everything in the page cache (warm) and,
as root on Linux, with the page cache dropped before each run (cold). The commands run as they are;
the stages are measured in runs of their own, where a hook on imports reads the clock. Only one
stage counts at a time: an import inside `from_pretrained` is an import. Run it on a machine that
does nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
SCORE = [
    "score",
    *("--ir", str(EXAMPLE / "ir.png")),
    *("--vis", str(EXAMPLE / "vis.png")),
    *("--fused", str(EXAMPLE / "fused_good.png")),
]
RUNS = {"warm": 7, "cold": 3}
CACHE = Path("/proc/sys/vm/drop_caches")

BASELINE = "import torch; from transformers import LlamaForCausalLM"
COMMANDS = {
    "`fuscore score`": ["-m", "fuscore_metric.cli", *SCORE],
    f"`{BASELINE}`": ["-c", BASELINE],
    "`import torch`": ["-c", "import torch"],
}

INTERPRETER, LEAVING = "start of Python", "end of Python"
COMMAND_LINE, OURS, PRINTING = "typer, rich, options", "our own modules", "printing"
IMPORTS = {
    "torch": "import of torch",
    "transformers": "import of transformers, and what it imports",
}
CALLS = {
    "fuscore_metric.images": ("as_images", "images: read and checked"),
    "fuscore_metric.model": ("FuScore.from_pretrained", "weights and tokenizer: read"),
    "fuscore_metric.scoring": ("predict", "first forward pass"),
}
"""Module -> its function that is a stage, and that stage's name."""
STAGES = [
    INTERPRETER,
    COMMAND_LINE,
    *IMPORTS.values(),
    OURS,
    *(stage for _, stage in CALLS.values()),
    PRINTING,
    LEAVING,
]


class Clock:
    """Adds up the time of stages, of which the innermost counts.

    Args:
        started: Nanoseconds of the system's monotonic clock at which the first stage began.
        stage: Its name.
    """

    def __init__(self, started: int, stage: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stages = [stage]
        self._since = started

    def lap(self) -> None:
        """Credit the time since the last lap to the innermost stage."""
        now = time.monotonic_ns()
        self.seconds[self.stages[-1]] += (now - self._since) / 1e9
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as this stage."""
        self.lap()
        self.stages.append(name)
        try:
            yield
        finally:
            self.lap()
            self.stages.pop()

    def timed(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        """Make a function a stage."""

        def stage(*args: object, **kwargs: object) -> object:
            with self.stage(name):
                return call(*args, **kwargs)

        return stage


class TimedImports(MetaPathFinder):
    """Finds modules as they are found without it, and makes stages of some of them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is a stage, or that has one; leave others to other finders."""
        stage = self._stage(fullname)
        if stage is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with self.clock.stage(stage):
                execute(module)
            self._time_call(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _stage(self, fullname: str) -> str | None:
        top = fullname.partition(".")[0]
        if top == "fuscore_metric":
            return OURS
        within = self.clock.stages[-1] in IMPORTS.values()  # what torch imports is torch's cost
        return None if within else IMPORTS.get(top)

    def _time_call(self, module: ModuleType) -> None:
        if module.__name__ not in CALLS:
            return
        path, stage = CALLS[module.__name__]
        *owners, name = path.split(".")
        owner: object = module
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, self.clock.timed(stage, getattr(owner, name)))


def trace(started: int) -> None:
    """Score in this process, then write to stderr what took how long, and when that was."""
    clock = Clock(started, INTERPRETER)
    clock.lap()
    clock.stages = [COMMAND_LINE]
    from fuscore_metric.cli import main  # its imports are the command line's own

    sys.meta_path.insert(0, TimedImports(clock))
    sys.argv = ["fuscore", *SCORE]
    clock.lap()
    clock.stages = [PRINTING]
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise
    clock.lap()
    print(json.dumps([time.monotonic_ns(), clock.seconds]), file=sys.stderr)


def stage_seconds() -> dict[str, float]:
    """Run `trace` in a process of its own: seconds by stage, and in total."""
    started = time.monotonic_ns()
    done = run([__file__, "--trace", str(started)])
    ended = time.monotonic_ns()
    finished, seconds = json.loads(done.stderr.splitlines()[-1])
    return seconds | {LEAVING: (ended - finished) / 1e9, "total": (ended - started) / 1e9}


def command_seconds(arguments: list[str]) -> float:
    """Wall time of a Python process."""
    started = time.monotonic_ns()
    run(arguments)
    return (time.monotonic_ns() - started) / 1e9


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run this Python anew; of the package, what stands beside this file."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )


def drop_cache() -> None:
    """Have the system forget all files that it keeps in memory."""
    os.sync()
    CACHE.write_text("3")


def measure(state: str) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of seconds: of the stages, and of whole commands."""

    def begin() -> None:
        if state == "cold":
            drop_cache()

    stages: dict[str, list[float]] = defaultdict(list)
    commands: dict[str, list[float]] = defaultdict(list)
    if state == "warm":
        stage_seconds()  # fills the cache
    for _ in range(RUNS[state]):
        begin()
        for name, seconds in stage_seconds().items():
            stages[name].append(seconds)
        for name, arguments in COMMANDS.items():
            begin()
            commands[name].append(command_seconds(arguments))
    return tuple(
        {name: statistics.median(seconds) for name, seconds in found.items()}
        for found in (stages, commands)
    )


def main() -> None:
    """Print the table."""
    states = ["warm", *(["cold"] if os.access(CACHE, os.W_OK) else [])]
    found = {state: measure(state) for state in states}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "typer"))
    print(f"Python {sys.version.split()[0]}, {versions}, {os.cpu_count()} CPU cores\n")
    print(f"| seconds | {' | '.join(states)} |\n|---|{'---|' * len(states)}")

    def row(name: str, values: list[float]) -> None:
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")

    for name in STAGES:
        row(name, [found[state][0].get(name, 0.0) for state in states])
    row("all stages", [found[state][0]["total"] for state in states])
    for name in COMMANDS:
        row(f"**{name}, as it is**", [found[state][1][name] for state in states])
    score, baseline, _ = COMMANDS
    ratios = [found[state][1][score] / found[state][1][baseline] for state in states]
    row("ratio of the first of these to the second", ratios)
    if "cold" not in states:
        print("\nCold runs need root on Linux, to drop the page cache.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        trace(int(sys.argv[2]))
    else:
        main()
