"""The packaged example as tensors and files, small networks, and switches of PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from fuscore_metric.images.convert import as_images
from tests.golden import record


@contextmanager
def tf32(*, enabled: bool) -> Iterator[None]:
    """Let float32 products be computed with 10 bits of mantissa, or not; as before afterwards."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = enabled
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def on(device: str, images: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Bring images to a device."""
    return [image.to(device) for image in images]


def example_files() -> tuple[list[str], list[str], list[str]]:
    """Paths of ir, vis and fused of the four example triples."""
    triples = record.example_triples()
    ir, vis, fused = ([str(getattr(t, name)) for t in triples] for name in ("ir", "vis", "fused"))
    return ir, vis, fused


@lru_cache(maxsize=1)
def example() -> tuple[torch.Tensor, ...]:
    """(ir, vis, fused), each (4, 3, 480, 640)."""
    ir, vis, fused = (
        torch.stack([as_images(path, "fused")[0] for path in paths]) for paths in example_files()
    )
    return ir, vis, fused


def crops(count: int = 4, *, height: int = 120, width: int = 160) -> tuple[torch.Tensor, ...]:
    """(ir, vis, fused), each (count, 3, height, width): cut out of the example, all different."""
    whole = example()
    made = []
    for images in whole:
        cut = []
        for n in range(count):
            top = (37 * n) % (images.shape[2] - height)
            left = (53 * n) % (images.shape[3] - width)
            cut.append(images[n % len(images), :, top : top + height, left : left + width])
        made.append(torch.stack(cut))
    ir, vis, fused = made
    return ir, vis, fused


def write_crops(folder: Path, count: int, **size: int) -> tuple[list[str], list[str], list[str]]:
    """Files of `crops`: paths of ir, vis and fused."""
    columns: list[list[str]] = []
    for name, images in zip(("ir", "vis", "fused"), crops(count, **size), strict=True):
        columns.append([])
        for n, image in enumerate(images):
            path = folder / f"{name}_{n:03d}_{image.shape[1]}x{image.shape[2]}.png"
            pixels = (image * 255).round().to(torch.uint8)
            Image.fromarray(pixels.movedim(0, -1).numpy()).save(path, compress_level=1)
            columns[-1].append(str(path))
    ir, vis, fused = columns
    return ir, vis, fused


class FusionNet(nn.Module):
    """A fusion network of two layers: (N, 3, H, W) twice -> (N, 3, H, W) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)
        )

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        return (self.layers(torch.cat([ir, vis], 1)) + (ir + vis) / 2).clamp(0, 1)
