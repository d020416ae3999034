"""How much slower does FuScore get beside a busy program, by how OpenMP's threads wait?

    python -m benchmarks.beside_others

Four candidates of the packaged example are scored, again and again, by one process for each way to
wait, which take turns. Prints medians of seconds as a Markdown table: with nothing else running,
and beside one program that never rests. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import REPOSITORY
from fuscore_metric.compute.openmp import SET_BY_USERS, TURNS

WAYS = {
    "as OpenMP does by itself": {},
    "asleep at once (`OMP_WAIT_POLICY=passive`)": {"OMP_WAIT_POLICY": "passive"},
    f"as the commands do (`GOMP_SPINCOUNT={TURNS}`)": {"GOMP_SPINCOUNT": TURNS},
    "one thread (`OMP_NUM_THREADS=1`)": {"OMP_NUM_THREADS": "1"},
}
ROUNDS = 3
CHILD = """
import sys, time
from pathlib import Path
import fuscore_metric
example = Path(fuscore_metric.__file__).parent / "assets" / "example"
fused = sorted(example.glob("fused_*.png"))
for turn in range(6):
    started = time.perf_counter()
    fuscore_metric.score(example / "ir.png", example / "vis.png", fused)
    if turn:  # the first reads weights and warms up
        print(time.perf_counter() - started)
"""


def seconds(settings: dict[str, str]) -> list[float]:
    """Seconds of each call in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in SET_BY_USERS}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        check=True,
        capture_output=True,
        text=True,
        env=kept | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"} | settings,
    )
    return list(map(float, done.stdout.split()))


@contextmanager
def busy_program() -> Iterator[None]:
    """One program that keeps a core busy."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


def medians() -> dict[str, float]:
    """Median seconds by way to wait."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, settings in WAYS.items():
            found[name] += seconds(settings)
    return {name: statistics.median(taken) for name, taken in found.items()}


def main() -> None:
    """Print the table."""
    quiet = medians()
    with busy_program():
        beside = medians()
    print(f"{os.cpu_count()} CPU cores\n\n| threads wait | alone | beside a busy program |")
    print("|---|---|---|")
    for name in WAYS:
        print(f"| {name} | {quiet[name]:.2f} | {beside[name]:.2f} |")


if __name__ == "__main__":
    main()
