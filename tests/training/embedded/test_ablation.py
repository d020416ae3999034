"""What each part of the objective is worth: runs, resumption and the table, on tiny data."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fuscore_training import cli
from fuscore_training.embedded import ablation
from fuscore_training.embedded.ablation import MEASURES, VARIANTS, Variant, ablate, summary
from fuscore_training.losses import LossWeights
from fuscore_training.recipe import EmbeddedRecipe, read_recipe

from tests.helpers.tiny_model import LLAMA

TWO = {
    "soft": Variant(LossWeights(1, 0.5, 0), consistency=True),
    "one-hot": Variant(LossWeights(1, 0.5, 0), {"one_hot": True}, consistency=True),
}
"""They differ in the labels only: different numbers say that labels reach the training."""
RECIPE = {
    "name": "tiny",
    "split": "split.yaml",
    "llama": LLAMA,
    "preprocessing": {"min_pixels": 32 * 32, "grid": 2},
    "proxy": {"ladders": 1, "mixed": 1, "local": 0, "foreign": 1, "workers": 1},
    "batches": {"scenes_per_batch": 2, "methods_per_scene": 3, "consistency": 2, "least_cells": 4},
    "fit": {"learning_rate": 0.2, "consistency": 2.0},  # two steps should show
}
SPLIT = {"val": ["TNO/01"], "test": ["VIFB/00", "TNO/03"], "held_out_methods": ["soft"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_data) -> Path:
    found = tmp_path_factory.mktemp("ablation")
    make_data(found / "data", 6, height=32, width=40)
    (found / "split.yaml").write_text(yaml.safe_dump(SPLIT))
    (found / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return found


@pytest.fixture(scope="module")
def recipe(folder) -> EmbeddedRecipe:
    return read_recipe(folder / "recipe.yaml")


def run(recipe, folder, trained=None, **changes):
    """Two variants, and which recipes were trained on the way."""
    options = {"steps": 2, "seeds": 1, "out": folder / "new" / "runs.jsonl"} | changes
    original = ablation.train
    with pytest.MonkeyPatch.context() as patch:

        def noted(recipe, prepared, work):
            if trained is not None:
                trained.append(recipe)
            return original(recipe, prepared, work)

        patch.setattr(ablation, "VARIANTS", TWO)
        patch.setattr(ablation, "train", noted)
        return ablate(recipe, data=folder / "data", work=folder / "work", **options)


@pytest.fixture(scope="module")
def first(recipe, folder):
    """(runs, recipes that were trained, the file as it was then)"""
    trained = []
    runs = run(recipe, folder, trained)
    return runs, trained, (folder / "new" / "runs.jsonl").read_text()


def test_every_variant_is_trained_and_measured(first):
    runs, trained, _ = first
    assert runs["variant"].tolist() == list(TWO)
    assert runs["seed"].tolist() == [0, 0]
    assert np.isfinite(runs[list(MEASURES)].to_numpy()).all()
    assert runs["srcc"].between(-1, 1).all()
    assert runs["pairwise"].between(0, 1).all()
    assert runs["error"].between(0, 4).all()
    assert (runs["mirror"] > 0).all()
    assert abs(runs["error"][0] - runs["error"][1]) > 1e-3
    assert len(trained) == 2


def test_variants_differ_in_the_objective_only(first, recipe):
    for found, variant in zip(first[1], TWO.values(), strict=True):
        assert found.labels.one_hot == bool(variant.labels)
        assert (found.fit.weights, found.fit.consistency) == (variant.weights, 2.0)
        assert (found.fit.steps, found.fit.evaluate_every) == (2, 2)
        assert found.batches == recipe.batches
        assert found.labels.sigma_min == recipe.labels.sigma_min
        assert (found.llama, found.proxy, found.split) == (recipe.llama, recipe.proxy, recipe.split)


def test_a_finished_run_is_a_line_and_not_repeated(first, recipe, folder):
    runs, _, lines = first
    assert [json.loads(line)["variant"] for line in lines.splitlines()] == list(TWO)
    trained = []
    again = run(recipe, folder, trained)
    assert trained == []
    pd.testing.assert_frame_equal(again, runs)
    assert (folder / "new" / "runs.jsonl").read_text() == lines


def test_only_what_is_missing_is_run(first, recipe, folder):
    """An interrupted ablation: one run is there, another seed is asked for too."""
    out, trained = folder / "interrupted.jsonl", []
    out.write_text(first[2].splitlines()[0] + "\n")
    runs = run(recipe, folder, trained, seeds=2, out=out)
    assert [(one.seed, one.fit.seed, one.batches.seed) for one in trained] == [
        (0, 0, 0),
        (1, 1, 1),
        (1, 1, 1),
    ]
    assert sorted(zip(runs["variant"], runs["seed"], strict=True)) == sorted(
        (name, seed) for name in TWO for seed in (0, 1)
    )
    # The same seed, the same numbers; another seed, others.
    one, repeated = (table[table["seed"] == 0].set_index("variant") for table in (first[0], runs))
    pd.testing.assert_frame_equal(one[list(MEASURES)], repeated.loc[list(TWO), list(MEASURES)])
    assert runs.groupby("variant")["error"].nunique().eq(2).all()


def test_runs_of_another_length_are_not_mixed_in(first, recipe, folder):
    out, longer = folder / "other.jsonl", []
    line = json.loads(first[2].splitlines()[0]) | {"steps": 300, "srcc": 0.9}
    out.write_text(json.dumps(line) + "\n" + first[2])
    runs = run(recipe, folder, longer, out=out)
    assert longer == []
    assert (runs["steps"] == 2).all()
    assert len(runs) == 2


def test_the_summary_is_a_line_a_variant(monkeypatch):
    monkeypatch.setattr(ablation, "VARIANTS", TWO)
    runs = pd.DataFrame(
        [
            {"variant": name, "seed": seed} | dict.fromkeys(MEASURES, base + 0.1 * seed)
            for name, base in zip(TWO, (0.5, 0.7), strict=True)
            for seed in range(3)
        ]
    )
    heading, rule, *lines = summary(runs).splitlines()
    assert heading == f"| objective | {' | '.join(MEASURES)} |"
    assert rule == "|---" * (len(MEASURES) + 1) + "|"
    assert lines[0] == "| soft " + "| 0.600 ± 0.100 " * len(MEASURES) + "|"
    assert lines[1] == "| one-hot " + "| 0.800 ± 0.100 " * len(MEASURES) + "|"


def test_the_variants_add_one_part_at_a_time():
    assert len({repr(variant) for variant in VARIANTS.values()}) == len(VARIANTS)
    assert [name for name, one in VARIANTS.items() if one.labels.get("one_hot")] == [
        "KL, one-hot labels"
    ]
    assert [name for name, one in VARIANTS.items() if one.consistency] == ["all, and consistency"]
    assert all(one.weights.dist == 1 for one in VARIANTS.values())


def test_the_command_prints_the_table(first, folder, monkeypatch, capsys):
    options = ("--data", folder / "data", "--work", folder / "work", "--steps", 2, "--seeds", 1)
    arguments = ("ablation", folder / "recipe.yaml", *options, "--out", folder / "new/runs.jsonl")
    monkeypatch.setattr(ablation, "VARIANTS", TWO)
    monkeypatch.setattr(sys, "argv", ["fuscore-train", *map(str, arguments)])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| objective | srcc |")
    assert f"| soft | {first[0]['srcc'][0]:.3f} ± nan |" in lines[2]
