"""Triples a second, and what files cost: python -m benchmarks.speed.throughput.

By batch size, by image size, mixed sizes in one call, and the share of preprocessing in the time of
a triple at batch 8 from real files. No triple shares a source with another, but in the last row.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.speed.clock import best_seconds, caption
from benchmarks.speed.models import MODELS
from benchmarks.speed.scenes import (
    Triple,
    data_folder,
    random_triples,
    scene,
    separate_triples,
)
from fuscore_metric import FuScore, score
from fuscore_metric.images.lazy import load_triples

BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = ((256, 256), (480, 640), (768, 1024), (1024, 1280))
BATCH = 8
FILES = 24
Columns = tuple[list[Tensor], list[Tensor], list[Tensor]]


def by_batch(
    model: FuScore, batches: Sequence[int], size: tuple[int, int], rounds: int
) -> dict[int, float]:
    """Triples a second of batches of tensors."""
    images = random_triples(max(batches), *size)
    ways = {
        str(count): lambda count=count: model(*(column[:count] for column in images))
        for count in batches
    }
    best = best_seconds(ways, rounds)
    return {int(name): int(name) / seconds for name, seconds in best.items()}


def by_size(
    model: FuScore, sizes: Sequence[tuple[int, int]], batch: int, rounds: int
) -> dict[tuple[int, int], float]:
    """Triples a second of batches of each size (height, width)."""
    return {size: by_batch(model, [batch], size, rounds)[batch] for size in sizes}


def mixed(
    model: FuScore, sizes: Sequence[tuple[int, int]], batch: int, rounds: int
) -> tuple[float, float, float]:
    """A batch of each size, shuffled, in one call of `score`.

    Returns:
        Seconds of the call; of the sizes one after the other, also by `score`; and the greatest
        difference between the scores of the call and of each triple alone.
    """
    groups = [list(zip(*random_triples(batch, *size), strict=True)) for size in sizes]
    together = [triple for row in zip(*groups, strict=True) for triple in row]  # sizes alternate
    found: list[Tensor] = []

    def scored(triples: Sequence[tuple[Tensor, ...]]) -> Tensor:
        ir, vis, fused = (list(column) for column in zip(*triples, strict=True))
        return score(ir, vis, fused, model=model, batch_size=batch)

    best = best_seconds(
        {
            "together": lambda: found.append(scored(together)),
            "apart": lambda: [scored(group) for group in groups],
        },
        rounds,
    )
    alone = torch.cat([scored([triple]) for triple in together])
    return best["together"], best["apart"], float((found[-1] - alone).abs().max())


def preprocessing(model: FuScore, triples: Sequence[Triple], rounds: int) -> dict[str, float]:
    """Seconds of scoring files.

    Returns:
        `files`: by `score`, which decodes in threads. `decode`: all files before
        anything is computed, by one thread. `memory`: `score` of what that made.
    """
    ir, vis, fused = ([str(path) for path in column] for column in zip(*triples, strict=True))
    loaded: Columns = load_triples(ir, vis, fused)
    loaded[0][:], loaded[1][:] = _once(ir, loaded[0]), _once(vis, loaded[1])
    return best_seconds(
        {
            "files": lambda: score(ir, vis, fused, model=model, batch_size=BATCH),
            "decode": lambda: load_triples(_each(ir), _each(vis), fused),
            "memory": lambda: score(*loaded, model=model, batch_size=BATCH),
        },
        rounds,
    )


def _once(paths: Sequence[str], images: Sequence[Tensor]) -> list[Tensor]:
    """One object for each path: what is read once from files is so from memory, and no more.

    Some paths are copies of one file, whose pixels would be found to be the same picture.
    """
    numbered = enumerate(zip(paths, images, strict=True))
    first = {path: (image + 1e-6 * n).clamp_max(1) for n, (path, image) in numbered}
    return [first[path] for path in paths]


def _each(paths: list[str]) -> list[str]:
    """A source that all share is decoded once; `load_triples` takes it as one."""
    return paths[:1] if len(set(paths)) == 1 else paths


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--model", default="embedded", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model, rounds = MODELS[given.model](), given.rounds
    print(caption("float32", given.model) + "\n")
    print("| batch of 640x480 | triples per second |\n|---|---|")
    for batch, rate in by_batch(model, BATCHES, (480, 640), rounds).items():
        print(f"| {batch} | {rate:.2f} |")
    print(f"\n| size, batch {BATCH} | triples per second | megapixels of fused per second |")
    print("|---|---|---|")
    for (height, width), rate in by_size(model, SIZES, BATCH, rounds).items():
        print(f"| {width}x{height} | {rate:.2f} | {rate * height * width / 1e6:.2f} |", flush=True)
    together, apart, difference = mixed(model, SIZES[:3], BATCH, rounds)
    print(
        f"\n{3 * BATCH} triples of three sizes, alternating, in one call: {together:.2f} s; "
        f"a call for each size: {apart:.2f} s; greatest difference from each alone: "
        f"{difference:.1e}\n"
    )
    print(
        f"| {FILES} triples from files, batch {BATCH} | in memory, s | from files, s "
        "| share of preprocessing | decoding alone, one thread, s | share without threads |"
    )
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        one = scene(given.data, FILES)
        kinds = {
            "own sources each": separate_triples(given.data, FILES, Path(folder)),
            f"candidates of {one}": [(one.ir, one.vis, fused) for fused in one.candidates],
        }
        for name, triples in kinds.items():
            taken = preprocessing(model, triples, rounds)
            files, memory, decode = (taken[key] for key in ("files", "memory", "decode"))
            print(
                f"| {name} | {memory:.3f} | {files:.3f} | {100 * (files - memory) / files:.0f} % "
                f"| {decode:.3f} | {100 * decode / (decode + memory):.0f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
