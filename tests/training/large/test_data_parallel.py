"""Fine-tuning in two processes: what is the same as in one, and what sharded layers compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
import yaml
from fuscore_training.large import fine_tune as module
from fuscore_training.large.fine_tune import fine_tune
from fuscore_training.large.image_batches import (
    ImageBatchMaker,
    ImageBatchOptions,
    make_image_loader,
)
from fuscore_training.large.tuning import TuneOptions, tune
from fuscore_training.losses import tripartite_loss
from fuscore_training.ratings import read_ratings
from fuscore_training.recipe import read_recipe
from fuscore_training.sampler import RowNumbers
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.trainer import LevelReader
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone
from fuscore_metric.checkpoints.spec import ADAPTER_WEIGHTS
from tests.helpers.commands import leave
from tests.helpers.rated_scenes import recipe_content, write_base, write_rated_scenes

# Nothing drawn that depends on what else is in the batch.
BATCHES = {"scenes_per_batch": 2, "methods_per_scene": 2, "sub_scores": 0, "mirror": False}


@pytest.fixture(scope="module")
def ratings(tmp_path_factory) -> Path:
    return write_rated_scenes(tmp_path_factory.mktemp("scenes"))


def own_batches(ratings: Path) -> list[list[int]]:
    """The first batch of each of two processes, as rows of the training table."""
    table = module.split_by_scene(read_ratings(ratings))["train"]
    options = ImageBatchOptions(**BATCHES, workers=0)
    loaders = [
        make_image_loader(table, LabelOptions(), options, rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    return [next(iter(loader.batch_sampler)) for loader in loaders]


class _Together:
    """A batch sampler that shows both processes' batches as one."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        yield self.rows

    def set_epoch(self, epoch: int) -> None:
        del epoch


def first_log(work: Path) -> dict[str, float]:
    state = json.loads((work / "fit" / "checkpoint-1" / "trainer_state.json").read_text())
    return state["log_history"][0]


@pytest.mark.slow
def test_two_processes_learn_as_one(ratings, tmp_path, monkeypatch):
    base = write_base(tmp_path / "base", "qwen3_vl")
    content = recipe_content(base, ratings, steps=1, evaluate_every=1)
    content["batches"] = BATCHES | {"workers": 0}
    # Pairs are within a process, so their parts of the loss are others than those of one process.
    content["fit"]["weights"] = {"within": 0.0, "cross": 0.0}
    content["tune"] |= {"dropout": 0.0}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    # accelerate's own launcher starts one process on a CPU, whatever it is told.
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = (sys.executable, *launch, "-m", "fuscore_training", str(recipe))
    where = ("--work", str(tmp_path / "two"), "--out", str(tmp_path / "two_out"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = {"check": True, "capture_output": True, "env": environment, "timeout": 300}
    subprocess.run([*command, *where], **options)

    first, second = own_batches(ratings)
    assert not set(first) & set(second)

    def together(table, labels, options, **_):
        maker = ImageBatchMaker(table, labels, options)
        sampler = _Together(first + second)
        return DataLoader(RowNumbers(len(table)), batch_sampler=sampler, collate_fn=maker)

    monkeypatch.setattr(module, "make_image_loader", together)
    fine_tune(read_recipe(recipe), work=tmp_path / "one", out=tmp_path / "one_out")

    one, two = first_log(tmp_path / "one"), first_log(tmp_path / "two")
    assert two["loss_dist"] == pytest.approx(one["loss_dist"], abs=1e-5)
    ours, theirs = (load_file(tmp_path / f"{n}_out" / ADAPTER_WEIGHTS) for n in ("one", "two"))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-5, rtol=0)


def losses_of(reader: nn.Module, batch: dict) -> torch.Tensor:
    logits = reader(batch["triples"], batch["aspects"])
    return tripartite_loss(logits[:, 0], batch["mu"][0], batch["sigma"][0], batch["source_ids"])[0]


def make_reader(family: str) -> LevelReader:
    backbone = tiny_backbone(family)
    tune(backbone, TuneOptions(vision="full", rank=4, dropout=0.0), seed=1)
    return LevelReader(backbone.train())


def _shard(rank: int, folder: str, batch: dict) -> None:
    """Of each family; in one process, as it imports all anew."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    mesh = init_device_mesh("cpu", (2,))
    for family in FAMILIES:
        reader = make_reader(family)
        layers = [m for m in reader.modules() if type(m).__name__ in reader._no_split_modules]
        for layer in [*layers, reader]:
            fully_shard(layer, mesh=mesh)
        loss = losses_of(reader, batch)
        loss.backward()
        gradients = {
            name: p.grad.full_tensor()
            for name, p in reader.named_parameters()
            if p.grad is not None
        }
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(reader, options=whole)
        if rank == 0:
            torch.save((len(layers), loss.detach(), gradients, state), f"{folder}/{family}.pt")
    leave()


@pytest.fixture(scope="module")
def sharded(ratings, tmp_path_factory) -> tuple[Path, dict]:
    """The folder of what two processes computed, and the batch that they had."""
    rows, folder = own_batches(ratings)[0], tmp_path_factory.mktemp("sharded")
    table = module.split_by_scene(read_ratings(ratings))["train"]
    batch = ImageBatchMaker(table, LabelOptions(), ImageBatchOptions(**BATCHES))(rows)
    mp.spawn(_shard, args=(str(folder), batch), nprocs=2)
    return folder, batch


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_cut_over_processes_compute_the_same(family, sharded):
    """What FSDP does to the model, by torch's own `fully_shard`; accelerate's needs GPUs."""
    folder, batch = sharded
    reader = make_reader(family)
    loss = losses_of(reader, batch)
    loss.backward()
    layers, found, gradients, state = torch.load(folder / f"{family}.pt")
    assert layers == 6  # three of the language model, three of the vision tower
    assert found.item() == pytest.approx(loss.item(), abs=1e-5)
    expected = {name: p.grad for name, p in reader.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-4), name
    # What is gathered at the end goes by the names that a model in one piece has.
    for name, parameter in reader.named_parameters():
        assert torch.equal(state[name], parameter), name
