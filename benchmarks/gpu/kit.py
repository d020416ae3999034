"""What the stages share: device, sizes, pictures, files and models."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.full_size.shapes import SHAPES
from benchmarks.gpu.plan import Plan
from benchmarks.speed.clock import matmul_rate, median_seconds, resident_growth, wait
from benchmarks.speed.scenes import Triple
from benchmarks.tiny_qwen import qwen_class, tiny_backbone, tokenizer
from fuscore_metric import FuScore, FuScoreSpec

GIB, MIB = 2**30, 2**20
Images = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Kit:
    """What to run on, and how much.

    Attributes:
        device: "cuda", or "cpu" to try the kit.
        folder: Where results go.
        plan: Sizes and budgets.
        quick: Whether models are tiny.
    """

    device: torch.device
    folder: Path
    plan: Plan
    quick: bool

    @property
    def on_gpu(self) -> bool:
        """Whether this is the real thing."""
        return self.device.type == "cuda"

    def seconds(self, call: Callable[[], object]) -> float:
        """Median seconds of a call and what it starts on the device."""
        return median_seconds(call, self.device, least=self.plan.least, rounds=self.plan.rounds)

    def peak(self, call: Callable[[], object]) -> int:
        """Bytes that a call adds to what the device holds, at most."""
        if not self.on_gpu:
            return resident_growth(call)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        wait(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before

    def rate(self, dtype: str) -> float:
        """FLOPs a second of a large matrix product."""
        return _rate(dtype, self.device, self.plan.sides)

    def embedded(self, dtype: str = "float32") -> FuScore:
        """The embedded weights, loaded once per dtype."""
        return _embedded(dtype, self.device)

    def random(self, name: str) -> FuScore:
        """A FuScore of a published shape, made on the device in bfloat16; a tiny one if `quick`.

        Its tokenizer is a small one of the same kind, its head has all rows of the real one.
        """
        shape = SHAPES[name]
        torch.manual_seed(0)
        if self.quick:
            backbone = tiny_backbone(shape.family).to(self.device)
        else:
            model = shape.model(device=str(self.device), dtype=torch.bfloat16).eval()
            backbone = qwen_class(shape.family)(model, tokenizer()).to(self.device)
        return FuScore(backbone, FuScoreSpec(name, shape.family, backbone.preprocessing, "none"))

    def pictures(self, count: int, seed: int = 0) -> Tensor:
        """Random images that have broad shapes, edges and some grain, as pictures have.

        Returns:
            (N, 3, H, W) float32 in [0, 1], on the device.
        """
        height, width = self.plan.size
        generator = torch.Generator(self.device).manual_seed(seed)
        image = torch.zeros(count, 3, height, width, device=self.device)
        for cell, strength in ((64, 0.5), (16, 0.25), (4, 0.08), (1, 0.02)):
            small = (count, 3, -(-height // cell), -(-width // cell))
            noise = torch.randn(small, generator=generator, device=self.device)
            image += strength * F.interpolate(noise, (height, width), mode="bilinear")
        return torch.sigmoid(3 * image)

    def triples(self, count: int) -> Images:
        """Triples that share no source: three times (N, 3, H, W), on the device."""
        ir, vis = self.pictures(count, 1)[:, :1].expand(-1, 3, -1, -1), self.pictures(count, 2)
        return ir.contiguous(), vis, (ir + vis) / 2

    def candidates(self, count: int) -> Images:
        """One source pair, and fused images of it: (1, 3, H, W) twice, (N, 3, H, W)."""
        ir, vis, _ = self.triples(1)
        share = torch.linspace(0.2, 0.8, count, device=self.device).view(-1, 1, 1, 1)
        return ir, vis, share * ir + (1 - share) * vis

    def files(self, images: Images, folder: Path) -> list[Triple]:
        """Write triples, every other one as JPEG, the rest as PNG; sources of one pair once."""

        def write(image: Tensor, name: str) -> Path:
            path = folder / name
            if not path.exists():
                pixels = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
                Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=92)
            return path

        def triple(number: int) -> Triple:
            kind = "jpg" if number % 2 else "png"
            ir, vis, fused = images
            if len(ir) == 1:
                sources = write(ir[0], "ir.png"), write(vis[0], "vis.png")
            else:
                numbered = [f"{number}_{name}.{kind}" for name in ("ir", "vis")]
                sources = write(ir[number], numbered[0]), write(vis[number], numbered[1])
            return (*sources, write(fused[number], f"{number}_fused.{kind}"))

        first = triple(0)  # alone, as others may share its sources
        with ThreadPoolExecutor() as pool:
            return [first, *pool.map(triple, range(1, len(images[2])))]


@lru_cache
def _rate(dtype: str, device: torch.device, sides: tuple[int, ...]) -> float:
    return matmul_rate(getattr(torch, dtype), device=device, sides=sides)


@lru_cache
def _embedded(dtype: str, device: torch.device) -> FuScore:
    return FuScore.from_pretrained(device=device, dtype=dtype)
