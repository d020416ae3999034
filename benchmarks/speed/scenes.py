"""A folder of real images -> the files that are timed.

Real fusions of one source pair come from VIFB, 25 methods a scene; source pairs from MSRS, all of
one size. Without that folder the packaged example stands in, its four fusions over and over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import EXAMPLE, REPOSITORY
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.lazy import load_triples

SCENE = "labMan"
"""640x480, like most fusion test sets."""
Triple = tuple[Path, Path, Path]


@dataclass(frozen=True)
class Scene:
    """Files of one source pair and of its fusions."""

    ir: Path
    vis: Path
    candidates: Sequence[Path]
    real: bool

    def __str__(self) -> str:
        """Say what the images are, for a table's caption."""
        return f"VIFB/{SCENE}" if self.real else "the packaged example"

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ir and vis (1, 3, H, W), fused (N, 3, H, W)."""
        files = list(map(str, self.candidates))
        ir, vis, fused = load_triples(str(self.ir), str(self.vis), files)
        return to_batch(ir[:1]), to_batch(vis[:1]), to_batch(fused)


def data_folder() -> Path:
    """Where real images are: the environment's `FUSCORE_DATA`, or beside the repository."""
    return Path(os.environ.get("FUSCORE_DATA", REPOSITORY.parent / "shared" / "data"))


def scene(data: Path, count: int) -> Scene:
    """One source pair with `count` candidates."""
    found = sorted((data / "VIFB" / "fused").glob(f"*/{SCENE}.*"))
    if len(found) >= count:
        ir, vis = (next((data / "VIFB" / kind).glob(f"{SCENE}.*")) for kind in ("ir", "vis"))
        return Scene(ir, vis, found[:count], real=True)
    fusions = sorted(EXAMPLE.glob("fused_*.png"))
    ir, vis = EXAMPLE / "ir.png", EXAMPLE / "vis.png"
    return Scene(ir, vis, list(islice(cycle(fusions), count)), real=False)


def vifb(data: Path) -> list[Triple]:
    """All triples of VIFB, scene by scene; without them those of the packaged example."""
    triples = []
    for fused in sorted((data / "VIFB" / "fused").glob("*/*"), key=lambda path: path.stem):
        ir, vis = (next((data / "VIFB" / kind).glob(f"{fused.stem}.*")) for kind in ("ir", "vis"))
        triples.append((ir, vis, fused))
    example = EXAMPLE / "ir.png", EXAMPLE / "vis.png"
    return triples or [(*example, path) for path in sorted(EXAMPLE.glob("fused_*.png"))]


def separate_triples(data: Path, count: int, folder: Path) -> list[Triple]:
    """Triples that share no source, as copies of files in `folder`: nothing is read once for two.

    MSRS has few fusions at hand; where there is none, the visible image stands for it: decoding
    and scoring take the same time.
    """
    triples = []
    sources = sorted((data / "MSRS" / "ir").glob("*.png"))
    for number in range(count):
        if sources:
            source = sources[number % len(sources)]
            visible = data / "MSRS" / "vis" / source.name
            fusion = data / "MSRS" / "fused" / "PIAFusion" / source.name
            files = source, visible, fusion if fusion.exists() else visible
        else:
            files = EXAMPLE / "ir.png", EXAMPLE / "vis.png", EXAMPLE / "fused_good.png"
        ir, vis, fused = (
            Path(shutil.copyfile(file, folder / f"{number}_{kind}{file.suffix}"))
            for kind, file in zip(("ir", "vis", "fused"), files, strict=True)
        )
        triples.append((ir, vis, fused))
    return triples


def random_triples(count: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, where only the shape matters: three times (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    ir, vis, fused = (torch.rand(count, 3, height, width, generator=generator) for _ in range(3))
    return ir, vis, fused
