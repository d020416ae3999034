"""Measured sizes and stated rates -> what a million and a billion triples would take, on paper.

Nothing here was run at that size, or on a GPU.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import mean

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from fuscore_metric.results.parts import Plan, read_parts
from fuscore_metric.runs import on_ray
from fuscore_metric.runs.manifest import COLUMNS, read_table

SIZES = (10**6, 10**9)
FUSIONS = 16
"""Assumed fusions of a source pair: those of benchmarks/speed/shared.py."""
GPU_FLOPS = 312e12
"""Assumed GPU: the 16-bit peak in the data sheet of an A100. float32 without TF32: 19.5e12."""
SHUFFLE_BLOCK = 2**30
"""Bytes that Ray 2.60 divides at once."""
BYTES_AN_OBJECT = 1000
"""Assumed memory of the driver for an object of the shuffle."""
OPENINGS = 2
"""Of each file that is read: its header, then its pixels."""
STATS_A_SECOND = 1000
"""Assumed look-ups a second of one actor on a network file system."""
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """What is known of a model's speed.

    Attributes:
        name: As benchmarks/speed calls it.
        flops: Counted FLOPs of a triple with sources of its own (utilisation.py).
        shared: How many times fewer they are with `FUSIONS` of one pair (shared.py).
        cpu_seconds: Measured for a triple on two threads, sources shared (table.py).
        utilisation: Assumed of the GPU's peak; of two CPU threads' it was 29 % and 84 %.
    """

    name: str
    flops: float
    shared: float
    cpu_seconds: float
    utilisation: float

    def gpu_rate(self, shared: bool) -> float:
        """Triples a second of one GPU, if it never waits."""
        return GPU_FLOPS * self.utilisation / self.flops * (self.shared if shared else 1)


MODELS = (
    Model("embedded", 6.06e9, 2.63, 0.0444, 0.02),
    Model("0.1B", 407.51e9, 2.51, 0.897, 0.30),
)
DECODE_SECONDS = 0.0191 / 3
"""Measured: one file of VIFB on one thread (table.py)."""


@dataclass(frozen=True)
class Measured:
    """Sizes that were measured, in bytes; `file` of a 640x480 image by extension and role."""

    file: dict[tuple[str, str], float]
    shuffled_row: float
    manifest_row: float
    part_row: float
    table_row: float
    driver_row: float

    def read(self, suffix: str, shared: bool) -> float:
        """Bytes of image files that are read for a triple."""
        sources = sum(self.file[suffix, role] for role in ("ir", "vis"))
        return self.file[suffix, "fused"] + sources / (FUSIONS if shared else 1)


def measure(data: Path, run: Path) -> Measured:
    """Measure the real data and a run folder of Ray's, of the same data."""
    found: dict[tuple[str, str], list[int]] = {}
    for path in sorted(data.rglob("*")):
        role = next((name for name in ("ir", "vis", "fused") if name in path.parts), None)
        suffix = path.suffix.lower()
        if role and suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                if image.size == (640, 480):
                    found.setdefault((suffix, role), []).append(path.stat().st_size)
    file = {key: mean(sizes) for key, sizes in found.items()}
    table = read_parts(run)
    triples = table.select(list(COLUMNS))
    numbered = on_ray._number(triples, Plan(8, 1))
    parts = sum(path.stat().st_size for path in (run / "parts").glob("*/*.parquet"))
    return Measured(
        file=file,
        shuffled_row=numbered.nbytes / table.num_rows,
        manifest_row=_manifest_row(triples),
        part_row=parts / table.num_rows,
        table_row=(run / "results.parquet").stat().st_size / table.num_rows,
        driver_row=_driver_row(triples, 10**6),
    )


def _manifest_row(triples: pa.Table) -> float:
    with tempfile.TemporaryDirectory() as folder:
        parquet.write_table(triples, path := Path(folder) / "m.parquet")
        return path.stat().st_size / int(triples.num_rows)


def _driver_row(triples: pa.Table, rows: int) -> float:
    """How far reading and checking a manifest lifts the resident memory, a row."""
    again = ceil(rows / triples.num_rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.parquet"
        with parquet.ParquetWriter(path, triples.schema) as writer:
            for n in range(again):
                scenes = pa.array([f"{s}-{n:05}" for s in triples["scene"].to_pylist()])
                place = triples.column_names.index("scene")
                writer.write_table(triples.set_column(place, "scene", scenes))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_table(path)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float((after - before) * 1024 / (again * triples.num_rows))


def inputs(m: Measured) -> list[tuple[str, str]]:
    """What the table is computed from."""
    files = [
        (f"{suffix[1:].upper()} 640x480, {role}: bytes a file", f"{size:,.0f}")
        for (suffix, role), size in sorted(m.file.items())
    ]
    return [
        *files,
        ("row of a manifest in Parquet, bytes", f"{m.manifest_row:.0f}"),
        (
            "row of the manifest in the shuffle (Arrow, without compression), bytes",
            f"{m.shuffled_row:.0f}",
        ),
        ("row in `parts/` (small files), bytes", f"{m.part_row:.0f}"),
        ("row in one `results.parquet`, bytes", f"{m.table_row:.0f}"),
        ("driver's peak for a row of a manifest that it checks, bytes", f"{m.driver_row:.0f}"),
    ]


def capacity(m: Measured) -> list[tuple[str, Callable[[int], str]]]:
    """Lines of the table: what, and its value for a number of triples."""

    def buckets(n: int) -> int:
        return max(on_ray.LEAST_BUCKETS_AN_ACTOR, n // on_ray.BUCKET_ROWS)

    def partitions(n: int) -> int:
        return min(buckets(n), on_ray.MOST_PARTITIONS)

    def objects(n: int) -> int:
        return ceil(n * m.shuffled_row / SHUFFLE_BLOCK) * (partitions(n) + 1)

    lines: list[tuple[str, Callable[[int], str]]] = []
    for model in MODELS:
        lines += [
            (
                f"{model.name}: hours of a machine of two CPU threads, sources shared",
                _times(model.cpu_seconds / 3600),
            )
        ]
        for shared in (False, True):
            rate = model.gpu_rate(shared)
            sources = "shared" if shared else "read each time"
            files = 1 + 2 / FUSIONS if shared else 3
            threads = f"{rate * files * DECODE_SECONDS:.0f} CPU threads decode for it"
            lines += [
                (
                    f"{model.name}: GPU hours, sources {sources} ({rate * 3600:,.0f} triples/hour; "
                    f"{threads})",
                    _times(1 / rate / 3600, ".1f"),
                )
            ]
    for shared in (False, True):
        files = 1 + 2 / FUSIONS if shared else 3.0
        sources = "shared" if shared else "read each time"
        lines += [
            (
                f"CPU thread hours of decoding, sources {sources}",
                _times(files * DECODE_SECONDS / 3600, ".1f"),
            ),
            (
                f"openings of files, sources {sources}",
                _times(files * OPENINGS),
            ),
        ]
        lines += [
            (
                f"image bytes read, {suffix[1:].upper()}, sources {sources}, GiB",
                _times(m.read(suffix, shared) / GIB),
            )
            for suffix in (".jpg", ".png")
        ]
    return [
        *lines,
        ("manifest in Parquet, GiB", _times(m.manifest_row / GIB, ".2f")),
        ("shuffle, GiB", _times(m.shuffled_row / GIB, ".2f")),
        ("buckets", lambda n: f"{buckets(n):,}"),
        ("partitions of the shuffle", lambda n: f"{partitions(n):,}"),
        (
            "bytes of a partition, MiB",
            lambda n: f"{n * m.shuffled_row / partitions(n) / 2**20:,.1f}",
        ),
        ("objects of the shuffle", lambda n: f"{objects(n):,}"),
        ("part files, if a bucket takes less than 30 s", lambda n: f"{buckets(n):,}"),
        ("parts, GiB", _times(m.part_row / GIB, ".2f")),
        ("driver: manifest it checks, GiB", lambda n: _checked(n, m)),
        (
            "driver: the shuffle's objects, GiB",
            lambda n: f"{objects(n) * BYTES_AN_OBJECT / GIB:,.2f}",
        ),
        (
            "look-ups of files when all is done and it is started again, hours of an actor",
            _times(3 / STATS_A_SECOND / 3600, ".1f"),
        ),
    ]


def _times(factor: float, digits: str = ".0f") -> Callable[[int], str]:
    return lambda n: f"{n * factor:,{digits}}"


def _checked(rows: int, m: Measured) -> str:
    if rows > on_ray.FEW_ROWS:
        return "none: by Ray"
    return f"{rows * m.driver_row / GIB:,.2f}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--run", type=Path, required=True, help="what engines.py --keep left")
    arguments = parser.parse_args()
    m = measure(arguments.data, arguments.run)
    print("| measured | |\n|---|---|")
    for what, number in inputs(m):
        print(f"| {what} | {number} |")
    print(f"\n| triples | {' | '.join(f'{n:,}' for n in SIZES)} |\n|---|---|---|")
    for what, value in capacity(m):
        print(f"| {what} | {' | '.join(value(n) for n in SIZES)} |")


if __name__ == "__main__":
    main()
