"""Run all benchmarks and print one markdown table: python -m benchmarks.speed.table.

With `--json` of an earlier run, only the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import REPOSITORY

FOLDER = Path(__file__).parent / "benches"
ORDER = ("decode", "prepare", "vision", "prefix", "candidate", "head")


def run(out: Path, data: Path | None) -> None:
    """Run the benchmarks; their JSON goes to `out`.

    Raises:
        subprocess.CalledProcessError: A benchmark failed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(map(str, FOLDER.glob("bench_*.py")))
    options = ["-q", "--benchmark-disable-gc", f"--benchmark-json={out}"]
    environment = {**os.environ, **({"FUSCORE_DATA": str(data)} if data else {})}
    command = [sys.executable, "-m", "pytest", *options, *files]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=sys.stderr)


def table(benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """One row a benchmark, by group; times are the least of the rounds.

    Args:
        benchmarks: What pytest-benchmark's JSON has under that name.

    Returns:
        Markdown, with a caption. In a group of candidates the last column says how many times
        longer than the fastest of the group a triple takes.
    """
    found = sorted(benchmarks, key=_place)
    fastest: dict[str, float] = {}
    for one in found:
        fastest[one["group"]] = min(_each(one), fastest.get(one["group"], float("inf")))
    lines = [_caption(found[0]["extra_info"]), ""]
    lines += ["| stage or task | what | s per triple | over the fastest | GFLOP/s | peak, MiB |"]
    lines += ["|---|---|---|---|---|---|"]
    for one in found:
        info, each = one["extra_info"], _each(one)
        ratio = _figures(each / fastest[one["group"]]) if one["group"] not in ORDER else ""
        flops = info["flops"]
        rate = f"{flops / one['stats']['min'] / 1e9:.0f}" if flops else ""
        lines.append(
            f"| {one['group']} | {info['note']} | {_figures(each)} | {ratio} | {rate} "
            f"| {info['peak_mebibytes']:.0f} |"
        )
    return "\n".join(lines)


def _place(one: Mapping[str, Any]) -> tuple[int, str]:
    group = one["group"]
    return (ORDER.index(group), "") if group in ORDER else (len(ORDER), group)


def _each(one: Mapping[str, Any]) -> float:
    seconds: float = one["stats"]["min"] / one["extra_info"]["triples"]
    return seconds


def _figures(number: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{float(f'{number:.3g}')}"


def _caption(info: Mapping[str, Any]) -> str:
    return (
        f"{info['device']} ({info['processor']}), {info['threads']} threads, {info['dtype']}, "
        f"torch {info['torch']}"
    )


def main() -> None:
    """Run, unless there is a JSON already, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="Real images; default FUSCORE_DATA.")
    parser.add_argument("--out", type=Path, default=Path("runs/speed/benchmarks.json"))
    parser.add_argument("--json", type=Path, help="An earlier run's file: nothing is run.")
    given = parser.parse_args()
    if given.json is None:
        data = None if given.data is None else given.data.resolve()
        run(given.out.resolve(), data)
    print(table(json.loads((given.json or given.out).read_text())["benchmarks"]))


if __name__ == "__main__":
    main()
