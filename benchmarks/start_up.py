"""How long one `fuscore score` process takes, from its start to its end, and bare imports beside.

    python -m benchmarks.start_up

Prints a Markdown table: medians of alternating runs with everything in the page cache (warm) and,
as root on Linux, with the page cache dropped before each run (cold). Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from benchmarks import EXAMPLE, REPOSITORY

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


def command_seconds(arguments: list[str]) -> float:
    """Wall time of this Python anew; of the package, it takes what stands beside this file."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"},
    )
    return time.perf_counter() - started


def drop_cache() -> None:
    """Have the system forget all files that it keeps in memory."""
    os.sync()
    CACHE.write_text("3")


def measure(state: str) -> dict[str, float]:
    """Median seconds of each command."""
    taken: dict[str, list[float]] = defaultdict(list)
    for arguments in COMMANDS.values():
        command_seconds(arguments)  # fills the cache
    for _ in range(RUNS[state]):
        for name, arguments in COMMANDS.items():
            if state == "cold":
                drop_cache()
            taken[name].append(command_seconds(arguments))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Print the table."""
    states = ["warm", *(["cold"] if os.access(CACHE, os.W_OK) else [])]
    found = {state: measure(state) for state in states}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "typer"))
    print(f"Python {sys.version.split()[0]}, {versions}, {os.cpu_count()} CPU cores\n")
    print(f"| seconds | {' | '.join(states)} |\n|---|{'---|' * len(states)}")
    for name in COMMANDS:
        print(f"| {name} | {' | '.join(f'{found[state][name]:.2f}' for state in states)} |")
    if "cold" not in states:
        print("\nCold runs need root on Linux, to drop the page cache.")


if __name__ == "__main__":
    main()
