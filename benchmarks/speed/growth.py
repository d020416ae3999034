"""How time and memory grow: python -m benchmarks.speed.growth --out benchmarks/speed/growth.png.

Against candidates of one source pair, side of a square image, and triples in a batch. Beside each
fitted exponent of time stands that of the counted multiply-adds, fitted to the same points: what
the computation itself grows by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from benchmarks.speed.clock import best_seconds, caption, peak_mebibytes
from benchmarks.speed.models import MODELS
from benchmarks.speed.scenes import random_triples
from benchmarks.speed.work import work
from fuscore_metric import FuScore, rank

mpl.use("agg")
HEIGHT, WIDTH = 480, 640
POINTS: dict[str, dict[str, Sequence[int]]] = {
    "embedded": {
        "candidates": (1, 2, 4, 8, 16, 32),
        # Above 1024x768 pixels images are made smaller first.
        "image side": (128, 192, 256, 384, 512, 704),
        "batch": (1, 2, 4, 8, 16, 32),
    },
    "0.1B": {
        "candidates": (1, 2, 4, 8, 16),
        # Below 256 and above 724 the pixel budget of 64 to 512 tokens decides.
        "image side": (256, 384, 512, 704),
        "batch": (1, 2, 4, 8),
    },
    "tiny": {"candidates": (1, 2, 4), "image side": (64, 96, 128), "batch": (1, 2, 4)},
}
EXPECTED_MEMORY = {
    "embedded": {"candidates": 0.0, "image side": 2.0, "batch": 0.0},
    "0.1B": {"candidates": 1.0, "image side": 2.0, "batch": 1.0},
}
"""The embedded model looks at one image at a time, so a batch holds feature maps of one triple.
What the others keep of an image grows with its area; maps of attention are stored by no kernel."""


@dataclass(frozen=True)
class Growth:
    """What was measured along one axis.

    Attributes:
        points: Where.
        seconds: Least of the rounds.
        mebibytes: Peak above what was resident before.
        flops: Counted.
    """

    points: Sequence[int]
    seconds: Sequence[float]
    mebibytes: Sequence[float]
    flops: Sequence[int]


def exponent(points: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a straight line through the logarithms, by least squares."""
    slope, _ = np.polyfit(np.log(points), np.log(np.maximum(values, 1e-12)), 1)
    return float(slope)


def call(model: FuScore, axis: str, point: int) -> Callable[[], object]:
    """What is timed at a point of an axis."""
    if axis == "candidates":
        ir, vis, fused = random_triples(point, HEIGHT, WIDTH)
        return lambda: rank(ir[:1], vis[:1], fused, model=model, batch_size=point)
    count, size = (1, (point, point)) if axis == "image side" else (point, (HEIGHT, WIDTH))
    images = random_triples(count, *size)
    return lambda: model(*images)


def measure(model: FuScore, axis: str, points: Sequence[int], rounds: int) -> Growth:
    """Memory, time and work at each point."""
    ways = {str(point): call(model, axis, point) for point in points}
    memory = [peak_mebibytes(way) for way in ways.values()]  # also warms up
    best = best_seconds(ways, rounds)
    return Growth(points, list(best.values()), memory, _flops(model, axis, points))


def _flops(model: FuScore, axis: str, points: Sequence[int]) -> list[int]:
    """Counted where it is quick; more candidates and triples are straight lines from there."""
    if axis == "image side":
        return [work(call(model, axis, point)).flops for point in points]
    one, two = (work(call(model, axis, point)).flops for point in (1, 2))
    return [one + (point - 1) * (two - one) for point in points]


def draw(found: dict[str, dict[str, Growth]], path: Path) -> None:
    """Time above, memory below, a column an axis, a line a model; dashed is counted work."""
    names = list(next(iter(found.values())))
    figure, axes = plt.subplots(2, len(names), figsize=(11, 6), layout="constrained")
    for (time, memory), axis in zip(axes.T, names, strict=True):
        for name, by_axis in found.items():
            one = by_axis[axis]
            fitted, expected = exponent(one.points, one.seconds), exponent(one.points, one.flops)
            label = f"{name}: {fitted:.2f} (work {expected:.2f})"
            (line,) = time.plot(one.points, one.seconds, "o-", label=label)
            work_line = np.array(one.flops) * one.seconds[-1] / one.flops[-1]
            time.plot(one.points, work_line, "--", color=line.get_color(), alpha=0.6)
            label = f"{name}: {exponent(one.points, one.mebibytes):.2f}"
            if name in EXPECTED_MEMORY:
                label += f" (expected {EXPECTED_MEMORY[name][axis]:.0f})"
            memory.plot(one.points, one.mebibytes, "o-", label=label)
        points = sorted({point for by_axis in found.values() for point in by_axis[axis].points})
        for panel, title in ((time, "seconds"), (memory, "peak memory, MiB")):
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=title)
            panel.set_xticks(points, list(map(str, points)), fontsize=8, rotation=45)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.margins(y=0.2)  # room for the legend
            panel.grid(alpha=0.3, which="both")
            panel.legend(fontsize=8, title="fitted exponent", title_fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """A palette of few colours: a quarter of the bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=90)
    plt.close(figure)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)


def show(found: dict[str, dict[str, Growth]]) -> None:
    """Print all points and exponents."""
    print("| model | against | points | s | exponent (work) | peak, MiB | exponent (expected) |")
    print("|---|---|---|---|---|---|---|")
    for name, by_axis in found.items():
        for axis, one in by_axis.items():
            expected = EXPECTED_MEMORY.get(name, {}).get(axis, float("nan"))
            print(
                f"| {name} | {axis} | {_list(one.points, 0)} | {_list(one.seconds, 3)} "
                f"| {exponent(one.points, one.seconds):.2f} "
                f"({exponent(one.points, one.flops):.2f}) | {_list(one.mebibytes, 0)} "
                f"| {exponent(one.points, one.mebibytes):.2f} ({expected:.0f}) |"
            )


def _list(numbers: Sequence[float], digits: int) -> str:
    return ", ".join(f"{number:.{digits}f}" for number in numbers)


def main() -> None:
    """Measure, print a table, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["embedded", "0.1B"], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/speed/growth.png"))
    given = parser.parse_args()
    found = {
        name: {
            axis: measure(model, axis, points, given.rounds)
            for axis, points in POINTS[name].items()
        }
        for name, model in ((name, MODELS[name]()) for name in given.models)
    }
    print(caption("float32", f"{WIDTH}x{HEIGHT} where the side is not what grows") + "\n")
    show(found)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    draw(found, given.out)


if __name__ == "__main__":
    main()
