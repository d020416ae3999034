"""What big models need, on tiny random ones: device maps, 4 bits, FSDP, accelerate's launcher."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks import REPOSITORY
from benchmarks.gpu.kit import Kit
from benchmarks.gpu.processes import child
from benchmarks.gpu.processes.tiny_run import write_run
from benchmarks.gpu.record import Value
from benchmarks.gpu.run import TRAINING, Task, need
from benchmarks.tiny_qwen import tiny_backbone
from fuscore_metric import FuScore, FuScoreSpec

FAMILY, WIDTH = "qwen2_5_vl", 4
"""Wide enough for the blocks of 4-bit weights; its head is not its embedding."""
CONFIGS = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed": "DEEPSPEED"}
"""Files in `training/accelerate`, and what accelerate says runs under them."""


def tasks(kit: Kit) -> Iterator[Task]:
    """Device maps, 4 bits, then what starts processes."""
    yield Task("device map, auto", lambda: placed(kit, "auto"), 2)
    main = 0 if kit.on_gpu else "cpu"
    parts = {"model.visual": main, "model.language_model": "cpu", "lm_head": "cpu"}
    yield Task("device map, language model kept on the CPU", lambda: placed(kit, parts), 2)
    yield Task("bitsandbytes, 4 bits", lambda: four_bits(kit), 2)
    yield Task("FSDP, fully_shard, one process", lambda: sharded(kit), 12)
    for name in CONFIGS:
        yield Task(f"accelerate launch, {name}.yaml", partial(launched, kit, name), 15)


def write_model(folder: str) -> None:
    """Write a random checkpoint in float32."""
    backbone = tiny_backbone(FAMILY, width=WIDTH)
    FuScore(backbone, FuScoreSpec("tiny", FAMILY, backbone.preprocessing, "none")).save_pretrained(
        folder
    )


def load(folder: str, **options: Any) -> FuScore:
    """Load it in float32."""
    return FuScore.from_pretrained(folder, dtype="float32", **options)


def scores(kit: Kit, model: FuScore) -> Tensor:
    """Scores of a few triples, on the CPU."""
    with torch.no_grad():
        found: Tensor = model(*(x.to(model.device) for x in kit.triples(4))).score
    return found.cpu()


def placed(kit: Kit, device_map: Any) -> Iterator[Value]:
    """A model over devices against the same on one."""
    need("accelerate")
    with TemporaryDirectory() as folder:
        write_model(folder)
        model = load(folder, device_map=device_map)
        places = sorted({str(p.device) for p in model.parameters()})
        yield Value("weights on", ", ".join(places))
        found, expected = scores(kit, model), scores(kit, load(folder, device=kit.device))
        yield from compared(found, expected, "the same model on one device", most=1e-3)


def compared(found: Tensor, expected: Tensor, what: str, most: float) -> Iterator[Value]:
    """The largest difference of scores.

    Raises:
        AssertionError: It is larger than it may be, or no number.
    """
    moved = float((found - expected).abs().max())
    yield Value("scores moved by", moved, "", f"at most, against {what}; may be {most}")
    if not moved <= most:
        raise AssertionError(f"scores moved by {moved}, more than {most}")


def four_bits(kit: Kit) -> Iterator[Value]:
    """A language model in 4 bits against the whole one: random weights move far."""
    need("accelerate", "bitsandbytes")
    with TemporaryDirectory() as folder:
        write_model(folder)
        model = load(folder, device=kit.device, quantize="4bit")
        kinds = {type(m).__name__ for m in model.modules() if "4bit" in type(m).__name__}
        yield Value("layers", ", ".join(sorted(kinds)) or "none")
        if not kinds:
            raise AssertionError("no layer has 4 bits")
        expected = scores(kit, load(folder, device=kit.device))
        yield from compared(scores(kit, model), expected, "the whole weights", most=1.0)


def sharded(kit: Kit) -> Iterator[Value]:
    """Loss and gradients of sharded layers against whole ones, in a process of its own."""
    need(*TRAINING)
    command = [sys.executable, "-m", "benchmarks.gpu.processes.sharded", kit.device.type]
    said = child.run(command, kit.folder / "fsdp.log")
    for name, value, note in json.loads(said.splitlines()[-1]):
        yield Value(name, value, "", note)


def launched(kit: Kit, name: str) -> Iterator[Value]:
    """Two steps of fine-tuning a tiny model, started as training/README.md says."""
    need(*TRAINING, "tensorboard", "yaml", *(["deepspeed"] if name == "deepspeed" else []))
    config = REPOSITORY / "training" / "accelerate" / f"{name}.yaml"
    processes = ["--num_processes", "1", *([] if kit.on_gpu else ["--cpu"])]
    with TemporaryDirectory() as folder:
        recipe = write_run(Path(folder), kit, full=name == "fsdp")
        launcher = [sys.executable, "-m", "accelerate.commands.launch"]
        launcher += ["--config_file", str(config), *processes]
        launcher += ["-m", "benchmarks.gpu.processes.launched"]
        where = ["--work", f"{folder}/work", "--out", f"{folder}/out"]
        log = kit.folder / f"accelerate-{name}.log"
        said = child.run([*launcher, str(recipe), *where], log)
        written = sorted(path.name for path in Path(folder, "out").iterdir())
    kind = said.rpartition("distributed type: ")[2].split()[0]
    yield Value("distributed type", kind)
    yield Value("written", ", ".join(written))
    if kit.on_gpu and kind != CONFIGS[name]:
        raise AssertionError(f"accelerate ran {kind} where {config.name} says {CONFIGS[name]}")
