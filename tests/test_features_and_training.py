"""Ratings -> cached features -> batches -> fitted weights -> a checkpoint, on tiny data."""

import json
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import fuscore_training.evaluate_model
import fuscore_training.run
import numpy as np
import pytest
import torch
import yaml
from fuscore_training import cli
from fuscore_training.datasets import (
    BatchMaker,
    BatchOptions,
    LabelOptions,
    make_labels,
    make_loader,
)
from fuscore_training.evaluate import evaluate
from fuscore_training.features import FeatureCache, build_features
from fuscore_training.initialise import new_lite_llama
from fuscore_training.losses import tripartite_loss
from fuscore_training.proxy_ratings import ProxyConfig, make_proxy_ratings
from fuscore_training.ratings import RatingsTable, read_ratings
from fuscore_training.recipe import Recipe, read_recipe
from fuscore_training.run import run
from fuscore_training.soft_labels import label_sigma
from fuscore_training.trainer import FitOptions, fit, predict_cached

from fuscore_metric import FuScore, score
from fuscore_metric.images import as_images, to_batch
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from tests.tiny_model import LLAMA

PREPROCESSING = {"min_pixels": 32 * 32, "grid": 3}
SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]
BATCHES = BatchOptions(scenes_per_batch=2, methods_per_scene=4, least_cells=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def table(folder, make_data) -> RatingsTable:
    data = make_data(folder / "data", 3)
    config = ProxyConfig(degraded=4, source_degraded=1, foreign=1, workers=1)
    make_proxy_ratings(data, folder / "ratings", config)
    return read_ratings(folder / "ratings" / "ratings.parquet")


def new_backbone(folder, seed=0):
    return new_lite_llama(folder / "words", seed=seed, llama=LLAMA, preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def backbone(folder):
    return new_backbone(folder).eval()


@pytest.fixture(scope="module")
def cache(folder, table, backbone) -> FeatureCache:
    return build_features(table, backbone, folder / "features", key="one")


def rows_of(table):
    return list(range(len(table)))


# Features


def test_the_cache_holds_what_encode_returns(cache, table, backbone):
    assert len(cache) == len(table)
    assert cache.cells == PREPROCESSING["grid"] ** 2
    kinds = table.frame.reset_index().groupby("kind")["index"].first()
    assert len(kinds) == 5
    for row in kinds:
        triple = table.frame.loc[row, ["ir", "vis", "fused"]]
        with torch.inference_mode():
            expected = backbone.encode(*(to_batch(as_images(path, "fused")) for path in triple))
        found = cache.encoded([row])
        assert set(found) == set(expected)
        for name, value in expected.items():
            # float16 keeps 11 bits.
            assert torch.allclose(found[name].float(), value.float(), rtol=2**-10, atol=1e-4), name


def test_sources_are_stored_once_a_pair(cache, table):
    assert len(cache.arrays["ir"]) == len(cache.arrays["vis"]) == table.source_pairs.nunique()
    assert len(cache.arrays["fused"]) == len(cache.arrays["agreement"]) == len(table)
    rows = rows_of(table)
    encoded = cache.encoded(rows)
    for one in rows[1:]:
        same = table.source_pairs[one] == table.source_pairs[0]
        assert torch.equal(encoded["ir"][one], encoded["ir"][0]) == same


def test_chosen_cells_are_those_of_the_whole(cache):
    cells = torch.tensor([1, 4, 8])
    whole, part = cache.encoded([3, 0]), cache.encoded([3, 0], cells)
    for name in whole:
        assert torch.equal(part[name], whole[name][:, cells])
    assert whole["cells"].tolist() == [list(range(9))] * 2


def test_a_cache_is_opened_again_unless_its_key_or_length_changed(tmp_path, table, backbone):
    def built_at(small, key):
        build_features(small, backbone, tmp_path, key=key)
        return (tmp_path / "fused.npy").stat().st_mtime_ns

    few = replace(table, frame=table.frame.head(3))
    first = built_at(few, "a")
    assert built_at(few, "a") == first
    second = built_at(few, "b")
    assert second > first
    assert built_at(replace(table, frame=table.frame.head(2)), "b") > second


def test_an_interrupted_cache_is_made_anew(tmp_path, table, backbone):
    few = replace(table, frame=table.frame.head(2))
    whole = build_features(few, backbone, tmp_path, key="a").encoded([0, 1])
    (tmp_path / "done.json").unlink()
    np.lib.format.open_memmap(tmp_path / "fused.npy", mode="r+")[:] = 0
    again = build_features(few, backbone, tmp_path, key="a").encoded([0, 1])
    assert whole["fused"].abs().sum() > 0
    assert torch.equal(again["fused"], whole["fused"])


# Labels


def test_labels(table):
    options = LabelOptions(sigma_min=0.25, kappa=0.8)
    frame = table.frame
    overall = make_labels(table, "overall", options)
    assert overall.mu.tolist() == frame["overall"].tolist()
    scores = torch.tensor(frame[SUB_SCORES].to_numpy())
    assert torch.equal(overall.sigma, label_sigma(scores, sigma_min=0.25, kappa=0.8))
    assert overall.sigma.max() > 0.3
    single = make_labels(table, "sharpness", options)
    assert single.mu.tolist() == frame["sharpness"].tolist()
    assert (single.sigma == 0.25).all()
    for one in range(len(table)):
        same = table.source_pairs[one] == table.source_pairs[0]
        assert (overall.source_ids[one] == overall.source_ids[0]) == same


def test_a_sigma_of_the_table_is_taken_for_overall_only(table):
    sigma = np.linspace(0.1, 1.0, len(table))
    given = replace(table, frame=table.frame.assign(sigma=sigma))
    assert make_labels(given, "overall", LabelOptions()).sigma.tolist() == sigma.tolist()
    assert (make_labels(given, "artifacts", LabelOptions()).sigma == 0.3).all()


# Batches


def maker_of(table, cache, **options):
    return BatchMaker(table, rows_of(table), cache, LabelOptions(), replace(BATCHES, **options))


def test_batches_hold_the_rows_asked_for(table, cache):
    """The training part of a table: its row 0 is row 5 of the cache."""
    part = replace(table, frame=table.frame.iloc[5:].reset_index(drop=True))
    maker = BatchMaker(part, range(5, len(table)), cache, LabelOptions(), BATCHES)
    for _ in range(5):
        batch = maker([0, 3, 4])
        aspect, encoded = batch["aspect"], batch["encoded"]
        assert batch["mu"].tolist() == table.frame[aspect].iloc[[5, 8, 9]].tolist()
        assert batch["source_ids"].shape == batch["sigma"].shape == (3,)
        count = encoded["cells"].shape[1]
        assert all(len(value) == 3 and value.shape[1] == count for value in encoded.values())
        for place, row in enumerate((5, 8, 9)):
            whole = cache.encoded([row])["fused"][0]
            found = [int((whole == cell).all(-1).nonzero()) for cell in encoded["fused"][place]]
            assert found == sorted(set(found))


def test_views_show_some_cells_mirrored_half_of_the_time(table, cache):
    """A mirrored view says of each cell the place where it would be, seen in a mirror."""
    maker, whole = maker_of(table, cache), cache.encoded([0])["fused"][0]
    counts, mirrored = [], 0
    mirror = torch.tensor([2, 1, 0, 5, 4, 3, 8, 7, 6])
    for _ in range(80):
        encoded = maker([0, 1])["encoded"]
        shown = torch.tensor(
            [int((whole == cell).all(-1).nonzero()) for cell in encoded["fused"][0]]
        )
        places = encoded["cells"][0]
        assert torch.equal(encoded["cells"][1], places)
        counts.append(len(shown))
        if not torch.equal(places, shown):
            assert torch.equal(places, mirror[shown])
            mirrored += 1
    assert (min(counts), max(counts)) == (BATCHES.least_cells, 9)
    assert 20 < mirrored < 60


def test_aspects_are_drawn_by_their_shares(table, cache):
    maker = maker_of(table, cache, overall_share=0.6)
    drawn = [maker([0, 1])["aspect"] for _ in range(400)]
    assert 0.5 < drawn.count(DEFAULT_ASPECT) / 400 < 0.7
    for aspect in SUB_SCORES:
        assert 0.05 < drawn.count(aspect) / 400 < 0.15
    only = maker_of(table, cache, overall_share=1.0)
    assert {only([0, 1])["aspect"] for _ in range(20)} == {DEFAULT_ASPECT}


def test_loaders_repeat_themselves_and_follow_the_epoch(table, cache):
    def batches(seed=0, epoch=0):
        options = replace(BATCHES, seed=seed)
        loader = make_loader(table, rows_of(table), cache, LabelOptions(), options)
        loader.batch_sampler.set_epoch(epoch)
        return [(b["aspect"], b["mu"].tolist(), b["encoded"]["cells"].tolist()) for b in loader]

    assert batches() == batches()
    assert batches() != batches(seed=1)
    assert batches() != batches(epoch=1)
    for _, mu, cells in batches():
        assert len(mu) == len(cells) == 8


# Fitting


def loss_of(backbone, table, cache):
    labels = make_labels(table, DEFAULT_ASPECT, LabelOptions())
    with torch.inference_mode():
        logits = backbone.level_logits(cache.encoded(rows_of(table)), DEFAULT_ASPECT)
    return float(tripartite_loss(logits, labels.mu, labels.sigma, labels.source_ids).total)


@pytest.fixture(scope="module")
def fitted(folder, table, cache):
    """(backbone, loss before, loss after, epochs that the sampler was told)."""
    backbone, rows, epochs = new_backbone(folder), rows_of(table), []
    backbone.standardise(cache.encoded(rows))
    loader = make_loader(table, rows, cache, LabelOptions(), replace(BATCHES, overall_share=1.0))
    set_epoch = loader.batch_sampler.set_epoch
    loader.batch_sampler.set_epoch = lambda epoch: (epochs.append(epoch), set_epoch(epoch))
    before = loss_of(backbone, table, cache)
    options = FitOptions(steps=30, learning_rate=5e-3, evaluate_every=10)
    fit(backbone, loader, table, rows, cache, folder / "fit", options)
    return backbone, before, loss_of(backbone, table, cache), epochs


def test_fitting_lowers_the_loss(fitted):
    _, before, after, _ = fitted
    assert after < 0.8 * before


def test_every_epoch_draws_anew(fitted):
    epochs = fitted[-1]
    assert epochs == list(range(15))  # 3 scenes, 2 a batch: 2 steps an epoch


def test_vision_stays_frozen(fitted, folder):
    fresh = new_backbone(folder).state_dict()
    state = fitted[0].state_dict()
    frozen = [name for name in state if name.startswith("vision.")]
    assert frozen
    assert all(torch.equal(state[name], fresh[name]) for name in frozen)
    assert not torch.equal(state["llama.lm_head.weight"], fresh["llama.lm_head.weight"])


def test_the_best_weights_are_left(tmp_path, table, cache):
    """Validation ratings that are upside down, so that training makes things worse."""
    backbone, rows, frame = new_backbone(tmp_path), rows_of(table), table.frame
    backbone.standardise(cache.encoded(rows))
    upside_down = replace(table, frame=frame.assign(overall=6 - frame["overall"]))
    loader = make_loader(table, rows, cache, LabelOptions(), replace(BATCHES, overall_share=1.0))
    options = FitOptions(steps=12, learning_rate=5e-3, evaluate_every=4)
    fit(backbone, loader, upside_down, rows, cache, tmp_path, options)
    state = json.loads((tmp_path / "checkpoint-12" / "trainer_state.json").read_text())
    log = [entry["eval_srcc"] for entry in state["log_history"] if "eval_srcc" in entry]
    assert len(log) == 3
    assert log[-1] < max(log)
    scores, _ = predict_cached(backbone, cache, rows)
    found = evaluate(scores, 6 - frame["overall"], frame["scene"], frame["method"], n_boot=0)
    assert found.srcc.value == pytest.approx(max(log), abs=1e-9)
    assert not backbone.training


def test_each_part_of_the_loss_is_logged(fitted, folder):
    path = next(iter((folder / "fit").glob("checkpoint-30/trainer_state.json")))
    history = json.loads(path.read_text())["log_history"]
    assert any({"loss_dist", "loss_within", "loss_cross"} <= set(entry) for entry in history)


def test_predictions_do_not_depend_on_the_batch(fitted, cache, table):
    rows = rows_of(table)
    score_64, std_64 = predict_cached(fitted[0], cache, rows)
    score_3, std_3 = predict_cached(fitted[0], cache, rows, batch_size=3)
    assert score_3 == pytest.approx(score_64, abs=1e-5)
    assert std_3 == pytest.approx(std_64, abs=1e-5)
    assert score_64.min() >= 1
    assert score_64.max() <= 5
    assert std_64.min() > 0


# From a recipe to a checkpoint

RECIPE = {
    "name": "tiny",
    "llama": LLAMA,
    "preprocessing": PREPROCESSING,
    "proxy": {"degraded": 2, "source_degraded": 1, "foreign": 1, "workers": 1},
    "batches": {"scenes_per_batch": 4, "methods_per_scene": 4, "least_cells": 4},
    "fit": {"steps": 6, "evaluate_every": 3, "weights": {"dist": 1, "within": 0.5, "cross": 0.5}},
}
SCENES = 17  # the fewest of which a tenth, the test split, is two


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
def _few_resamples():
    """Intervals from 20 resamples, not 1000: most of the time of a run this small."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (fuscore_training.run, fuscore_training.evaluate_model):
            patch.setattr(module, "evaluate", partial(evaluate, n_boot=20))
        yield


@pytest.fixture(scope="module")
def trained(folder, make_data, _few_resamples) -> Path:
    """The work folder of a whole run; the checkpoint is in it."""
    data, work = make_data(folder / "run_data", SCENES, height=32, width=40), folder / "work"
    recipe = read_recipe(write_recipe(folder, RECIPE))
    metrics = run(recipe, data=data, work=work, out=work / "checkpoint")
    (work / "metrics.json").write_text(json.dumps(metrics))
    return work


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
    assert metrics == json.loads((trained / "metrics.json").read_text())
    assert metrics["acceptance"]["triples"] > 0
    scenes = metrics["held_out_proxy"]["counts"]["scenes"]
    assert scenes == metrics["held_out_proxy_undamaged"]["counts"]["scenes"] == 2


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
    arguments = ["evaluate", trained / "ratings.parquet", "--weights", weights, "--held-out"]
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
    arguments = ("evaluate", ratings, "--weights", folder / "all_seen", "--held-out")
    status, _, error = command(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "no row of a scene that tiny never saw" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such.parquet"], "no such ratings table"),
        (["no_such.parquet", "--aspect", "beauty"], "Expected `aspect`"),
        (["{ratings}", "--weights", "no_such_weights"], "hub id"),
    ],
)
def test_evaluate_refuses_in_one_line(arguments, words, table, folder, monkeypatch, capsys):
    ratings = str(folder / "ratings" / "ratings.parquet")
    arguments = [argument.format(ratings=ratings) for argument in arguments]
    status, text, error = command(monkeypatch, capsys, "evaluate", *arguments)
    assert (status, text) == (2, "")
    assert words in error
    assert len(error.splitlines()) == 1


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

EMBEDDED = Path(__file__).parents[1] / "training" / "recipes" / "embedded.yaml"


def test_the_shipped_recipe_names_every_option():
    recipe, content = read_recipe(EMBEDDED), yaml.safe_load(EMBEDDED.read_text())
    assert recipe.name == content["name"]
    assert recipe == replace(Recipe(recipe.name), seed=recipe.seed, fit=recipe.fit)
    for part in ("proxy", "labels", "batches", "fit"):
        assert set(content[part]) == set(vars(getattr(recipe, part)))


def test_options_reach_the_recipe(tmp_path):
    recipe = read_recipe(write_recipe(tmp_path, RECIPE))
    assert recipe.llama == LLAMA
    assert recipe.proxy.degraded == 2
    assert recipe.batches.least_cells == 4
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
        ({"name": "a", "fit": {"step": 3}}, "fit: unknown key 'step'; known are evaluate_every"),
        ({"name": "a", "fit": {"steps": "many"}}, "fit: steps: expected int, got 'many'"),
        ({"name": "a", "fit": {"steps": True}}, "fit: steps: expected int, got True"),
        ({"name": "a", "fit": {"steps": 1.5}}, "fit: steps: expected int, got 1.5"),
        ({"name": "a", "fit": {"learning_rate": "1e-3"}}, "expected float, got '1e-3'"),
        ({"name": "a", "fit": {"weights": {"dist": -1}}}, "`dist`"),
        ({"name": "a", "fit": {"weights": 1}}, "fit: weights: expected keys and values"),
        ({"name": 3}, "name: expected str, got 3"),
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
