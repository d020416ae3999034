"""The recipes and configurations in `training/recipes` and `training/accelerate`."""

from dataclasses import fields

import pytest
import yaml
from fuscore_training.recipe import FineTuneRecipe, read_recipe

from tests.helpers import ROOT

RECIPES = ROOT / "training" / "recipes"


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "qwen3-vl-8b", "smollm2"])
def test_a_shipped_recipe_names_every_option(name):
    path = RECIPES / f"{name}.yaml"
    recipe, content = read_recipe(path), yaml.safe_load(path.read_text())
    assert isinstance(recipe, FineTuneRecipe)
    assert content.keys() == {f.name for f in fields(FineTuneRecipe)}
    for part in ("base", "tune", "labels", "batches", "fit"):
        assert content[part].keys() == {f.name for f in fields(getattr(recipe, part))}, part


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_reads_the_shipped_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file

    path = RECIPES.parent / "accelerate" / f"{name}.yaml"
    assert load_config_from_file(str(path)).num_processes == 8
