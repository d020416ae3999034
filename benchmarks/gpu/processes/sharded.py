"""torch's `fully_shard` with one process: what it changes, as JSON on stdout.

A process of its own: taking communication apart can hang, so this one just ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

MOST = 1e-4
"""Largest difference of the loss, and of a gradient over the largest gradient."""


def reader(device: str) -> Any:
    """A tiny model as it is trained: LoRA on the language model, the vision part in full."""
    from fuscore_training.large.tuning import TuneOptions, tune
    from fuscore_training.trainer import LevelReader

    from benchmarks.tiny_qwen import tiny_backbone

    backbone = tiny_backbone("qwen3_vl").to(device)
    tune(backbone, TuneOptions(vision="full", rank=4, dropout=0.0), seed=1)
    return LevelReader(backbone.train())


def loss(model: nn.Module, device: str) -> Tensor:
    """The training loss of two scenes with two methods."""
    from fuscore_training.losses import tripartite_loss

    images = torch.rand(8, 3, 96, 128, generator=torch.Generator().manual_seed(0)).to(device)
    triples = [{"ir": part[:1], "vis": part[1:2], "fused": part[2:]} for part in images.split(4)]
    mu, scenes = torch.tensor([1.5, 4.0, 2.0, 3.5]), torch.tensor([0, 0, 1, 1])
    labels = [x.to(device) for x in (mu, torch.full_like(mu, 0.5), scenes)]
    return tripartite_loss(model(triples, ["overall"])[:, 0], *labels).total


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """By name, whole."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in found.items()}


def main(device: str) -> None:
    """Compare, print, and end."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    backend = "nccl" if device == "cuda" else "gloo"
    store = distributed.HashStore()  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    whole, cut = reader(device), reader(device)
    mesh = init_device_mesh(device, (1,))
    layers = [m for m in cut.modules() if type(m).__name__ in cut._no_split_modules]
    for layer in [*layers, cut]:
        fully_shard(layer, mesh=mesh)
    losses = [loss(model, device) for model in (whole, cut)]
    for one in losses:
        one.backward()
    ours, theirs = gradients(whole), gradients(cut)
    largest = max(float(g.abs().max()) for g in ours.values())
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours) / largest
    moved = abs(float(losses[0] - losses[1]))
    print()
    print(
        json.dumps(
            [
                ["backend", backend, ""],
                ["layers", len(layers), "cut each by itself"],
                ["loss moved by", moved, f"may be {MOST}"],
                ["gradients apart by", apart, f"of the largest; may be {MOST}"],
            ]
        ),
        flush=True,
    )
    os._exit(0 if ours.keys() == theirs.keys() and max(moved, apart) <= MOST else 1)


if __name__ == "__main__":
    main(sys.argv[1])
