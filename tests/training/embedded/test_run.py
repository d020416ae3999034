"""From a recipe to a checkpoint, on tiny data, and what the commands print."""

import json
import logging
import sys
from dataclasses import fields, replace
from pathlib import Path

import fuscore_training.embedded.features
import fuscore_training.embedded.run
import fuscore_training.evaluate
import fuscore_training.trainer
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fuscore_training import cli
from fuscore_training.embedded.features import (
    FeatureCache,
)
from fuscore_training.embedded.fit_cached import predict_cached
from fuscore_training.embedded.run import PreparedData, aspect_table, run
from fuscore_training.labels.proxy_ratings import SETS, find_scenes
from fuscore_training.ratings import RatingsError, read_ratings
from fuscore_training.recipe import EmbeddedRecipe, read_recipe
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.split import Split, read_split

from fuscore_metric import FuScore, score
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from tests.helpers import ROOT
from tests.helpers.tiny_model import LLAMA
from tests.training.embedded.conftest import PREPROCESSING

SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]


def test_the_aspect_table_compares_every_answer_with_every_rating():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(1, 5, (30, 5)), columns=list(ASPECTS))
    scores = frame.to_numpy() ** 3
    scores[:, 1] = -scores[:, 4]
    table = aspect_table(scores, frame)
    assert list(table) == list(ASPECTS)
    assert all(list(line) == list(ASPECTS) for line in table.values())
    assert table["overall"]["overall"] == table["sharpness"]["sharpness"] == 1.0
    assert table["thermal_retention"]["sharpness"] == -1.0
    assert abs(table["artifacts"]["overall"]) < 0.6


# From a recipe to a checkpoint

RECIPE = {
    "name": "tiny",
    "llama": LLAMA,
    "preprocessing": PREPROCESSING,
    "proxy": {"ladders": 1, "mixed": 1, "local": 1, "foreign": 1, "workers": 1},
    "batches": {"scenes_per_batch": 4, "methods_per_scene": 4, "consistency": 4, "least_cells": 4},
    "fit": {"steps": 6, "evaluate_every": 3, "weights": {"dist": 1, "within": 0.5, "cross": 0.5}},
}


SCENES = 17  # the fewest of which a tenth, the test split, is two
SPLIT = {
    "val": ["TNO/01", "VIFB/04"],
    "test": ["VIFB/00", "VIFB/06", "TNO/03"],
    "held_out_methods": ["soft"],
}


def command(monkeypatch, capsys, *arguments):
    """Run `fuscore-train` in this process: its exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["fuscore-train", *map(str, arguments)])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # leave pytest's handlers alone
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    return (0 if code is None else code), *capsys.readouterr()


def write_recipe(folder, content):
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def trained(folder, make_data, few_resamples) -> Path:
    """The work folder of a whole run; the checkpoint is in it."""
    data, work = make_data(folder / "run_data", SCENES, height=32, width=40), folder / "work"
    recipe = read_recipe(write_recipe(folder, RECIPE))
    metrics = run(recipe, data=data, work=work, out=work / "checkpoint")
    (work / "metrics.json").write_text(json.dumps(metrics))
    return work


@pytest.fixture(scope="module")
def split_run(folder, trained) -> tuple[dict, PreparedData]:
    """A run of the same ratings and features with a split file: its metrics and its data."""
    content = RECIPE | {"split": "lists/split.yaml", "feature_noise": 0.1}
    (folder / "lists").mkdir()
    (folder / "lists" / "split.yaml").write_text(yaml.safe_dump(SPLIT))
    recipe, seen = read_recipe(write_recipe(folder, content)), []
    original = fuscore_training.embedded.run.train
    with pytest.MonkeyPatch.context() as patch:

        def noted(recipe, prepared, work):
            seen.append(prepared)
            return original(recipe, prepared, work)

        patch.setattr(fuscore_training.embedded.run, "train", noted)
        out = folder / "split_checkpoint"
        metrics = run(recipe, data=folder / "run_data", work=trained, out=out)
    return metrics, seen[0]


def test_the_checkpoint_says_what_it_is(trained):
    spec = json.loads((trained / "checkpoint" / "fuscore.json").read_text())
    assert (spec["name"], spec["label_kind"], spec["family"]) == ("tiny", "proxy", "lite_llama")
    assert "not human" in spec["label_description"]
    assert spec["data"] == ["TNO", "VIFB"]
    assert spec["base"][0]["licence"] == "Apache-2.0"
    assert spec["preprocessing"]["grid"] == 3
    metrics = spec["metrics"]
    held_out = metrics.pop("held_out_scenes")
    assert len(held_out) == 2
    assert metrics.pop("measured_on") == "test"
    assert metrics.pop("held_out_methods") == []  # none without a split file
    assert metrics == json.loads((trained / "metrics.json").read_text())
    assert metrics["acceptance"]["triples"] > 0
    scenes = metrics["held_out_proxy"]["counts"]["scenes"]
    assert scenes == metrics["held_out_proxy_undamaged"]["counts"]["scenes"] == 2
    assert set(metrics["aspect_srcc"]) == set(ASPECTS)
    assert spec["temperature"] == metrics["calibration"]["temperature"] > 0
    assert set(json.loads((trained / "calibration.json").read_text())) > {"temperature", "ece"}
    assert (trained / "calibration.png").stat().st_size > 0


def test_the_ratings_of_a_recipe_are_written_for_others(folder, trained, monkeypatch, capsys):
    recipe, out = write_recipe(folder, RECIPE), folder / "ratings" / "table.parquet"
    options = ["--data", folder / "run_data", "--work", trained, "--out", out]
    assert command(monkeypatch, capsys, "ratings", recipe, *options)[0] == 0
    ours, theirs = read_ratings(out), read_ratings(trained / "ratings.parquet")
    assert (ours.label_kind, ours.description) == (theirs.label_kind, theirs.description)
    pd.testing.assert_frame_equal(ours.frame, theirs.frame)


def test_a_split_file_says_who_sees_what(split_run):
    _, prepared = split_run
    assert prepared.split == Split(**{name: tuple(listed) for name, listed in SPLIT.items()})
    frames = {name: part.frame for name, part in prepared.parts.items()}
    assert set(frames["val"]["scene"]) == set(SPLIT["val"])
    assert set(frames["test"]["scene"]) == set(SPLIT["test"])
    assert frames["train"]["scene"].nunique() == SCENES - 5
    assert (prepared.table.frame["base"] == "soft").sum() > (frames["test"]["base"] == "soft").sum()
    for name in ("train", "val"):
        assert "soft" not in set(frames[name]["base"]) | set(frames[name]["method"])
    for name, frame in frames.items():
        rows = prepared.rows(name)
        assert prepared.table.frame["fused"].iloc[rows].tolist() == frame["fused"].tolist()


def test_metrics_of_a_run_with_a_split_file(split_run, folder):
    metrics, prepared = split_run
    frame = prepared.parts["test"].frame
    soft, undamaged = frame["base"] == "soft", frame["kind"].isin(["method", "plain"])
    for name, rows in {
        "held_out_proxy": len(frame),
        "held_out_proxy_undamaged": undamaged.sum(),
        "held_out_proxy_held_out_methods": soft.sum(),
        "held_out_proxy_undamaged_held_out_methods": (soft & undamaged).sum(),
    }.items():
        assert metrics[name]["counts"]["rows"] == rows > 0
    spec = json.loads((folder / "split_checkpoint" / "fuscore.json").read_text())["metrics"]
    assert spec.pop("held_out_scenes") == sorted(SPLIT["test"])
    assert spec.pop("held_out_methods") == ["soft"]
    assert spec.pop("measured_on") == "test"
    assert spec == json.loads(json.dumps(metrics))


def test_a_split_file_leaves_ratings_and_features_as_they_are(split_run, trained):
    """Both belong to all scenes: only who may see them changes."""
    _, prepared = split_run
    assert (
        len(prepared.cache) == len(prepared.table) == len(read_ratings(trained / "ratings.parquet"))
    )
    assert Path(prepared.cache.arrays["fused"].filename).parent == trained / "features"


def test_a_missing_split_file_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    path = write_recipe(tmp_path, RECIPE | {"split": "no_such.yaml"})
    arguments = (path, "--data", tmp_path, "--work", tmp_path / "work")
    status, _, error = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "no_such.yaml" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "work").exists()


def test_the_checkpoint_scores_as_the_training_code_does(trained):
    """Public scoring of image files against the features cached while training."""
    model = FuScore.from_pretrained(trained / "checkpoint")
    table = read_ratings(trained / "ratings.parquet")
    rows = [0, 5, len(table) - 1]
    triples = (table.frame[name].iloc[rows].tolist() for name in ("ir", "vis", "fused"))
    found = score(*triples, model=model)
    cache = FeatureCache(trained / "features")
    expected, _ = predict_cached(model.backbone, cache, rows)
    assert found.numpy() == pytest.approx(expected, abs=5e-3)
    assert len(set(found.tolist())) == 3
    assert all(1 <= one <= 5 for one in found.tolist())


def test_evaluate_prints_a_table_and_writes_json(trained, tmp_path, monkeypatch, capsys):
    weights, out = trained / "checkpoint", tmp_path / "numbers.json"
    arguments = ["evaluate", trained / "ratings.parquet", "--model", weights, "--held-out"]
    status, text, _ = command(monkeypatch, capsys, *arguments, "--out", out)
    assert status == 0
    for word in ("srcc", "plcc", "krcc", "within_srcc", "method_srcc", "pairwise_accuracy"):
        assert word in text
    numbers = json.loads(out.read_text())
    trained_numbers = json.loads((trained / "metrics.json").read_text())["held_out_proxy"]
    assert numbers["counts"] == trained_numbers["counts"]
    # Whole float32 features here, float16 ones while training.
    assert numbers["srcc"]["value"] == pytest.approx(trained_numbers["srcc"]["value"], abs=0.05)


def test_held_out_rows_of_a_table_that_has_none(trained, table, folder, monkeypatch, capsys):
    model = FuScore.from_pretrained(trained / "checkpoint")
    model.spec.metrics["held_out_scenes"] = []
    model.save_pretrained(folder / "all_seen")
    ratings = folder / "ratings" / "ratings.parquet"
    arguments = ("evaluate", ratings, "--model", folder / "all_seen", "--held-out")
    status, _, error = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "a scene that is held out from tiny" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such.parquet"], "no such ratings table"),
        (["no_such.parquet", "--aspect", "beauty"], "Expected `aspect`"),
        (["{ratings}", "--model", "no_such_weights"], "hub id"),
    ],
)
def test_evaluate_refuses_in_one_line(arguments, words, table, folder, monkeypatch, capsys):
    ratings = str(folder / "ratings" / "ratings.parquet")
    arguments = [argument.format(ratings=ratings) for argument in arguments]
    status, text, error = command(monkeypatch, capsys, "evaluate", *arguments)
    assert (status, text) == (2, "")
    assert words in error
    assert len(error.splitlines()) == 1


def test_evaluate_needs_ratings_of_the_aspect(table):
    sub_scores = list(SUB_SCORES)
    overall_only = replace(table, frame=table.frame.drop(columns=sub_scores).assign(sigma=0.4))
    with pytest.raises(RatingsError, match="a column 'sharpness', got none"):
        fuscore_training.evaluate.evaluate_model(overall_only, aspect="sharpness")


@pytest.mark.slow
def test_a_run_repeats_itself_and_reuses_its_ratings_and_features(trained, folder):
    stored = {path: path.stat().st_mtime_ns for path in trained.glob("*/*.npy")}
    stored[trained / "ratings.parquet"] = (trained / "ratings.parquet").stat().st_mtime_ns
    recipe = read_recipe(write_recipe(folder, RECIPE))
    run(recipe, data=folder / "run_data", work=trained, out=trained / "again")
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    one, again = (FuScore.from_pretrained(trained / name) for name in ("checkpoint", "again"))
    assert one.spec.metrics == again.spec.metrics
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


# Recipes

EMBEDDED = ROOT / "training" / "recipes" / "embedded.yaml"


def test_the_recipe_names_every_option():
    recipe, content = read_recipe(EMBEDDED), yaml.safe_load(EMBEDDED.read_text())
    unneeded = {"llama", "preprocessing", "proxy"}
    assert set(content) == {field.name for field in fields(EmbeddedRecipe)} - unneeded
    assert recipe.name == content["name"]
    for part in ("ladders", "labels", "batches", "fit", "adversarial"):
        assert set(content[part]) == set(vars(getattr(recipe, part)))


def test_the_shipped_split_lists_distinct_scenes():
    recipe = read_recipe(EMBEDDED)
    assert Path(recipe.split) == EMBEDDED.parent / "split.yaml"
    split = read_split(Path(recipe.split))
    listed = [*split.val, *split.test]
    assert len(set(listed)) == len(listed)
    assert len(set(split.held_out_methods)) == len(split.held_out_methods) > 0
    for part in (split.val, split.test):
        assert {scene.split("/")[0] for scene in part} == set(SETS)


@pytest.mark.real_data
def test_the_shipped_split_names_what_is_there(real_data):
    split, scenes = read_split(EMBEDDED.parent / "split.yaml"), find_scenes(real_data)
    assert {*split.val, *split.test} <= {scene.name for scene in scenes}
    for method in split.held_out_methods:
        assert any(method in scene.fused for scene in scenes if scene.name in split.test)


def test_options_reach_the_recipe(tmp_path):
    recipe = read_recipe(write_recipe(tmp_path, RECIPE))
    assert recipe.llama == LLAMA
    assert (recipe.proxy.ladders, recipe.proxy.local) == (1, 1)
    assert (recipe.batches.least_cells, recipe.batches.consistency) == (4, 4)
    assert recipe.split == ""
    assert recipe.fit.weights.within == 0.5
    assert isinstance(recipe.fit.weights.dist, float)
    assert recipe.labels == LabelOptions()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected keys and values, got NoneType"),
        ("- a\n- b\n", "expected keys and values, got list"),
        ("name: [1\nb: }", "not YAML"),
        ({"seed": 1}, "'name'"),
        ({"name": "a", "optimiser": "sgd"}, "unknown key 'optimiser'"),
        ({"name": "a", 3: "b"}, "unknown key '3'"),
        ({"name": "a", "fit": {"step": 3}}, "fit: unknown key 'step'; known are accumulate"),
        ({"name": "a", "fit": {"steps": "many"}}, "fit: steps: expected int, got 'many'"),
        ({"name": "a", "fit": {"steps": True}}, "fit: steps: expected int, got True"),
        ({"name": "a", "fit": {"steps": 1.5}}, "fit: steps: expected int, got 1.5"),
        ({"name": "a", "fit": {"learning_rate": "1e-3"}}, "expected float, got '1e-3'"),
        ({"name": "a", "fit": {"weights": {"dist": -1}}}, "`dist`"),
        ({"name": "a", "fit": {"weights": 1}}, "fit: weights: expected keys and values"),
        ({"name": 3}, "name: expected str, got 3"),
        ({"name": "a", "split": ["val"]}, "split: expected str, got ['val']"),
        ({"name": "a", "labels": {"one_hot": "no"}}, "labels: one_hot: expected bool, got 'no'"),
        ({"name": "a", "labels": {"one_hot": 1}}, "labels: one_hot: expected bool, got 1"),
        ({"name": "a", "llama": 3}, "llama: expected keys and values, got 3"),
        ({"name": "a", "preprocessing": ["grid"]}, "preprocessing: expected keys and values"),
        (None, "No recipe"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, content, words, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        write_recipe(tmp_path, content)
    status, text, error = command(monkeypatch, capsys, path, "--work", tmp_path / "work")
    assert (status, text) == (2, "")
    assert words in error
    assert "recipe.yaml" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "work").exists()


def test_a_recipe_without_data_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    path = write_recipe(tmp_path, RECIPE)
    arguments = (path, "--data", tmp_path, "--work", tmp_path / "work")
    status, _, error = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "Expected source pairs" in error
    assert len(error.splitlines()) == 1
