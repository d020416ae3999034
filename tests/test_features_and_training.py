"""Ratings -> cached features -> batches -> fitted weights -> a checkpoint, on tiny data."""

import json
import logging
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import fuscore_training.evaluate_model
import fuscore_training.features
import fuscore_training.run
import fuscore_training.trainer
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fuscore_training import cli
from fuscore_training.adversary import CheatOptions, Cheats, measure_reach, prepare_cheats
from fuscore_training.datasets import (
    BatchMaker,
    BatchOptions,
    LabelOptions,
    make_labels,
    make_loader,
)
from fuscore_training.evaluate import evaluate
from fuscore_training.features import (
    MOST_CUT,
    SOURCE_FEATURES,
    FeatureCache,
    build_features,
    mirrored,
)
from fuscore_training.fit_cached import fit, predict_cached
from fuscore_training.initialise import new_lite_llama
from fuscore_training.losses import tripartite_loss
from fuscore_training.proxy_ratings import SETS, ProxyConfig, find_scenes, make_proxy_ratings
from fuscore_training.ratings import RatingsError, RatingsTable, read_ratings
from fuscore_training.recipe import Recipe, read_recipe
from fuscore_training.run import Material, aspect_table, run
from fuscore_training.soft_labels import label_sigma, soft_label
from fuscore_training.split import Split, read_split
from fuscore_training.trainer import (
    FitOptions,
    FuScoreTrainer,
    LevelReader,
    training_arguments,
)

from fuscore_metric import FuScore, score
from fuscore_metric.backbones.lite_llama import AGREEMENT, DEFAULT_PREPROCESSING, STATISTICS
from fuscore_metric.images import as_images, to_batch
from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_metric.prompts import ALL_ASPECTS, ASPECTS, DEFAULT_ASPECT
from tests.tiny_model import LLAMA

PREPROCESSING = {"min_pixels": 32 * 32, "grid": 3}
OWN_FEATURES = ("fused", "agreement")
SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]
BATCHES = BatchOptions(scenes_per_batch=2, methods_per_scene=4, twins=3, least_cells=4)
MIRROR = [2, 1, 0, 5, 4, 3, 8, 7, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def table(folder, make_data) -> RatingsTable:
    data = make_data(folder / "data", 3)
    config = ProxyConfig(ladders=1, mixed=1, local=1, source_degraded=1, foreign=1, workers=1)
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


def pictures(table, row):
    """The triple of a row, each (1, 3, H, W)."""
    paths = table.frame.loc[row, ["ir", "vis", "fused"]]
    return [to_batch(as_images(path, "fused")) for path in paths]


def is_rounded(found, exact):
    """float16 keeps 11 bits."""
    return torch.allclose(found.float(), exact.float(), rtol=2**-10, atol=1e-4)


def test_the_cache_holds_what_encode_returns(cache, table, backbone):
    assert len(cache) == len(table)
    assert cache.cells == PREPROCESSING["grid"] ** 2
    kinds = table.frame.reset_index().groupby("kind")["index"].first()
    assert len(kinds) == 5
    for row in kinds:
        with torch.inference_mode():
            expected = backbone.encode(*pictures(table, row))
        found = cache.encoded([row])
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert is_rounded(found[name], value), name


def test_relations_are_in_the_cache_of_a_model_that_has_them(folder, table):
    options = {"llama": LLAMA, "preprocessing": PREPROCESSING, "relations": True}
    backbone = new_lite_llama(folder / "words", seed=0, **options).eval()
    cache = build_features(table, backbone, folder / "with_relations", key="one")
    with torch.inference_mode():
        expected = backbone.encode(*pictures(table, 0))
    found = cache.encoded([0])
    assert set(found) == set(expected)
    assert is_rounded(found["relation"], expected["relation"])
    reach = measure_reach(backbone, table.frame[["ir", "vis", "fused"]].to_numpy()[:1])
    assert [reach[name].shape for name in backbone.own_statistics] == [
        expected[name].shape[2:] for name in backbone.own_statistics
    ]


def test_the_second_view_is_the_mirrored_picture_without_a_few_pixels(cache, table, backbone):
    cuts, last = [], table.frame.reset_index().groupby(table.source_pairs)["index"].last()
    for row in last:
        triple, found = pictures(table, row), cache.encoded([row], views=np.array([1]))
        assert found["cells"].tolist() == found["source_cells"].tolist() == [list(range(9))]
        fits = []
        with torch.inference_mode():
            for top, left in np.ndindex(MOST_CUT + 1, MOST_CUT + 1):
                view = backbone._statistics(triple[2][..., top:, left:].flip(-1)).tokens()
                if is_rounded(found["fused"], view):
                    fits.append((top, left))
            ((top, left),) = fits
            whole = backbone.encode(*(image[..., top:, left:].flip(-1) for image in triple))
        for name in (*SOURCE_FEATURES, *OWN_FEATURES):
            assert is_rounded(found[name], whole[name]), name
        cuts.append((top, left))
    assert len(set(cuts)) > 1
    assert any(top != left for top, left in cuts)


def test_views_are_mirrored_exactly_where_nothing_is_cut(tmp_path, table, backbone, monkeypatch):
    """A plain mirror image, so that the place of each cell can be told."""
    monkeypatch.setattr(fuscore_training.features, "MOST_CUT", 0)
    few = replace(table, frame=table.frame.head(2))
    found = build_features(few, backbone, tmp_path, key="a").encoded([1], views=np.array([1]))
    with torch.inference_mode():
        view = backbone.encode(*(image.flip(-1) for image in pictures(table, 1)))
    for name in (*SOURCE_FEATURES, *OWN_FEATURES):
        assert is_rounded(found[name], view[name]), name


def test_mirrored_cells():
    assert mirrored(np.arange(9), 9).tolist() == MIRROR
    assert mirrored(np.array([0, 7]), 16).tolist() == [3, 4]
    for side in (1, 4, 5):
        cells = np.arange(side**2)
        assert mirrored(mirrored(cells, side**2), side**2).tolist() == cells.tolist()


def test_sources_are_stored_and_read_once_a_pair(cache, table):
    pairs = table.source_pairs.nunique()
    assert all(len(cache.arrays[name]) == pairs for name in SOURCE_FEATURES)
    assert all(len(cache.arrays[name]) == len(table) for name in OWN_FEATURES)
    rows = rows_of(table)[::-1]  # no order of the pairs is taken for granted
    encoded = cache.encoded(rows)
    assert all(len(encoded[name]) == pairs for name in (*SOURCE_FEATURES, "source_cells"))
    for place, row in enumerate(rows):
        alone, pair = cache.encoded([row]), encoded["pair"][place]
        assert all(torch.equal(encoded[n][pair], alone[n][0]) for n in SOURCE_FEATURES)
        assert all(torch.equal(encoded[n][place], alone[n][0]) for n in OWN_FEATURES)
        assert alone["pair"].tolist() == [0]


def test_a_pair_in_two_views_is_read_in_both(cache, table):
    assert table.source_pairs[0] == table.source_pairs[1]
    views = np.array([1, 0, 1])
    encoded = cache.encoded([0, 1, 1], views=views)
    assert len(encoded["ir"]) == 2
    for place, (row, view) in enumerate(zip([0, 1, 1], views, strict=True)):
        alone, pair = cache.encoded([row], views=np.array([view])), encoded["pair"][place]
        for name in (*SOURCE_FEATURES, "source_cells"):
            assert torch.equal(encoded[name][pair], alone[name][0])
        for name in (*OWN_FEATURES, "cells"):
            assert torch.equal(encoded[name][place], alone[name][0])
    assert not torch.equal(encoded["fused"][1], encoded["fused"][2])


def test_chosen_cells_are_those_of_the_whole(cache):
    cells, views = np.array([1, 3, 8]), np.array([0, 1])
    whole = cache.encoded([3, 0], views=views)
    part = cache.encoded([3, 0], views=views, cells=cells)
    assert torch.equal(part["pair"], whole["pair"])
    # The same places of the picture, and both views in grid order, as scoring reads them.
    places = torch.tensor([[1, 3, 8], [1, 5, 6]])
    for name in set(whole) - {"pair"}:
        for seen, all_cells, kept in zip(part[name], whole[name], places, strict=True):
            assert torch.equal(seen, all_cells[kept])
    assert part["cells"].tolist() == places.tolist()


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


def test_one_hot_labels_are_the_nearest_level(table):
    options = LabelOptions(one_hot=True)
    for aspect in ("overall", "sharpness"):
        labels = make_labels(table, aspect, options)
        levels = soft_label(labels.mu, labels.sigma)
        assert levels.max(1).values.tolist() == [1.0] * len(table)
        off = labels.mu - torch.tensor(table.frame[aspect].to_numpy())
        assert off.abs().max() <= 0.5
        assert labels.mu.tolist() == (levels.argmax(1) + 1).tolist()


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
        aspects, encoded, twins = batch["aspects"], batch["triples"], batch["twins"].tolist()
        for number, aspect in enumerate(aspects):
            assert batch["mu"][number].tolist() == table.frame[aspect].iloc[[5, 8, 9]].tolist()
        assert batch["mu"].shape == batch["sigma"].shape == (2, 3)
        assert batch["source_ids"].shape == (3,)
        assert sorted(twins) == [0, 1, 2]
        shown = [5, 8, 9, *(np.array([5, 8, 9])[twins])]
        count = encoded["cells"].shape[1]
        assert encoded["pair"].shape == (6,)
        for name in (*OWN_FEATURES, "cells"):
            assert encoded[name].shape[:2] == (6, count)
        for place, row in enumerate(shown):
            views = [cache.encoded([row], views=np.array([view]))["fused"][0] for view in (0, 1)]
            (found,) = (cells for view in views if (cells := places_in(view, encoded, place)))
            assert found == sorted(set(found))


def places_in(whole, encoded, place):
    """Where the cells of one triple of a batch are among all cells of a view; empty if not."""
    same = [(whole == cell).all(-1).nonzero().flatten() for cell in encoded["fused"][place]]
    return [int(one) for one in same] if all(map(len, same)) else []


def test_each_batch_shows_some_cells_each_pair_mirrored_half_of_the_time(table, cache):
    maker, counts, flipped = maker_of(table, cache, twins=1), [], []
    pairs = cache.pair_of_row
    rows = [0, 1, int(np.flatnonzero(pairs != pairs[0])[0])]
    assert pairs[0] == pairs[1]
    whole = [cache.encoded(rows, views=np.full(3, view))["fused"] for view in (0, 1)]
    for _ in range(60):
        batch = maker(rows)
        encoded, (twin,) = batch["triples"], batch["twins"].tolist()
        cells = encoded["cells"]
        counts.append(cells.shape[1])
        assert torch.equal(cells, cells.sort(1).values)
        places = [0, 1, 2, twin]
        views = [
            int(not torch.equal(shown, whole[0][place][own]))
            for shown, place, own in zip(encoded["fused"], places, cells, strict=True)
        ]
        kept = np.sort(np.array(MIRROR)[cells[0]]) if views[0] else cells[0].numpy()
        exact = cache.encoded([*rows, rows[twin]], views=np.array(views), cells=kept)
        assert all(torch.equal(value, exact[name]) for name, value in encoded.items())
        assert views[0] == views[1]
        assert views[3] == 1 - views[twin]
        flipped.append(tuple(views[1:3]))
    assert (min(counts), max(counts)) == (BATCHES.least_cells, 9)
    assert set(flipped) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_sub_scores_are_drawn_anew_beside_the_overall_quality(table, cache):
    maker = maker_of(table, cache, sub_scores=2)
    drawn = [maker([0, 1])["aspects"] for _ in range(200)]
    assert {first for first, *_ in drawn} == {DEFAULT_ASPECT}
    others = [aspect for _, *two in drawn for aspect in two]
    assert all(len(set(aspects)) == 3 for aspects in drawn)
    for aspect in SUB_SCORES:
        assert 70 < others.count(aspect) < 130
    assert maker_of(table, cache, sub_scores=0)([0, 1])["aspects"] == (DEFAULT_ASPECT,)


def test_small_batches_show_every_triple_twice(table, cache):
    batch = maker_of(table, cache, twins=12)([4, 2])
    assert sorted(batch["twins"].tolist()) == [0, 1]
    assert len(batch["triples"]["fused"]) == 4


def test_loaders_repeat_themselves_and_follow_the_epoch(table, cache):
    def batches(seed=0, epoch=0):
        options = replace(BATCHES, seed=seed)
        loader = make_loader(table, rows_of(table), cache, LabelOptions(), options)
        loader.batch_sampler.set_epoch(epoch)
        return [(b["aspects"], b["mu"].tolist(), b["triples"]["cells"].tolist()) for b in loader]

    assert batches() == batches()
    assert batches() != batches(seed=1)
    assert batches() != batches(epoch=1)
    for _, mu, cells in batches():
        assert [len(one) for one in mu] == [8, 8]
        assert len(cells) == 8 + BATCHES.twins


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
    loader = make_loader(table, rows, cache, LabelOptions(), BATCHES)
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
    loader = make_loader(table, rows, cache, LabelOptions(), replace(BATCHES, sub_scores=0))
    options = FitOptions(steps=60, learning_rate=5e-3, evaluate_every=20)
    fit(backbone, loader, upside_down, rows, cache, tmp_path, options)
    state = json.loads((tmp_path / "checkpoint-60" / "trainer_state.json").read_text())
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
    parts = {"loss_dist", "loss_within", "loss_cross", "loss_twins"}
    assert any(parts <= set(entry) for entry in history)


@pytest.fixture
def trainer(tmp_path, table, cache):
    """Makes a trainer with some weights of the loss, of a backbone whose answers vary; and that."""

    def made(cheats=None, **options):
        backbone = new_backbone(tmp_path).eval()
        backbone.standardise(cache.encoded(rows_of(table)))
        with torch.no_grad():
            for name, weight in backbone.named_parameters():
                if weight.dim() == 2 and not name.startswith("vision."):
                    weight.normal_(std=0.4)
        loader = make_loader(table, rows_of(table), cache, LabelOptions(), BATCHES)
        arguments = training_arguments(tmp_path, FitOptions())
        return backbone, FuScoreTrainer(
            model=LevelReader(backbone),
            args=arguments,
            loader=loader,
            validate=lambda _: None,
            options=FitOptions(**options),
            cheats=cheats,
        )

    return made


def test_the_loss_adds_aspects_and_twins_by_their_weights(trainer, table, cache):
    backbone, made = trainer(sub_scores=0.5, twins=3.0)
    batch = maker_of(table, cache, sub_scores=2)([0, 1, 5, 9])
    with torch.no_grad():
        found = made.compute_loss(made.model, batch)
        logits = backbone.aspect_logits(batch["triples"], batch["aspects"])
    assert logits.shape == (7, 3, 5)
    own, scores = batch["source_ids"], expected_score(level_probabilities(logits))
    losses = [
        tripartite_loss(logits[:4, n], batch["mu"][n], batch["sigma"][n], own) for n in range(3)
    ]
    apart = scores[4:] - scores[batch["twins"]]
    twins = float((apart**2).mean())
    assert apart.shape == (3, 3)
    assert twins > 0.01
    expected = losses[0].total + 0.25 * (losses[1].total + losses[2].total) + 3 * twins
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert made.terms["twins"] == pytest.approx([twins], rel=1e-4)
    within = losses[0].within + 0.25 * (losses[1].within + losses[2].within)
    assert made.terms["within"] == pytest.approx([float(within)], rel=1e-5)


# Against cheats


@pytest.fixture(scope="module")
def reach(table, cache, folder):
    """How far one grey level moves each feature, of a standardised backbone."""
    backbone = new_backbone(folder).eval()
    backbone.standardise(cache.encoded(rows_of(table)))
    files = table.frame[["ir", "vis", "fused"]].to_numpy()[[0, 7]]
    return measure_reach(backbone, files)


def test_the_reach_of_one_grey_level(reach):
    means = reach["fused"][:3] * 255 * DEFAULT_PREPROCESSING["std"]  # of red, green and blue
    assert (means <= 1 + 1e-4).all()  # no mean moves further than every pixel does
    assert (means > 0.02).all()  # a part of the way: each attack pulls at all features at once
    assert reach["fused"].shape == (STATISTICS,)
    assert reach["agreement"].shape == (3 * AGREEMENT,)
    # Some channels of the network never wake.
    assert all((values > 0).float().mean() > 0.5 for values in reach.values())
    assert reach["agreement"].max() < 2  # a correlation cannot move further


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", -1.0),
        ("weight", float("nan")),
        ("radius", -0.5),
        ("triples", 0),
        ("measured_on", 0),
    ],
)
def test_options_of_cheats_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be .*at least"):
        CheatOptions(**{name: value})


def test_a_cheat_stays_near_and_finds_more_than_chance(trainer, reach, table, cache):
    backbone, made = trainer()
    encoded, aspects = cache.encoded(rows_of(table)[:12]), (DEFAULT_ASPECT,)
    cheats = Cheats(CheatOptions(weight=1, radius=0.5), reach)

    def moved(one):
        with torch.no_grad():
            return _change(backbone, encoded, one)

    found = cheats.provoke(made.model, encoded, aspects)
    assert set(found) == set(encoded)
    for name, value in encoded.items():
        apart = (found[name] - value).abs()
        if name in reach:
            assert (apart <= 0.5 * reach[name] + 1e-5).all()
            assert (apart > 0.4 * reach[name]).float().mean() > 0.6
        else:
            assert not apart.any()
    chance = encoded | {
        name: encoded[name] + 0.5 * values * torch.randn_like(encoded[name]).sign()
        for name, values in reach.items()
    }
    assert moved(found) > 2 * moved(chance)


def _change(backbone, encoded, other):
    """Mean absolute change of the overall score."""
    scores = [
        expected_score(level_probabilities(backbone.aspect_logits(one, (DEFAULT_ASPECT,))))
        for one in (encoded, other)
    ]
    return float((scores[1] - scores[0]).abs().mean())


def test_the_loss_adds_what_cheats_find(trainer, reach, table, cache):
    batch = maker_of(table, cache, sub_scores=1)([0, 1, 5, 9])
    cheats = Cheats(CheatOptions(weight=7.0, triples=3), reach)
    torch.manual_seed(3)
    with_them = trainer(cheats=cheats)[1]
    total = with_them.compute_loss(with_them.model, batch)
    without = trainer()[1]
    alone = without.compute_loss(without.model, batch)
    (change,) = with_them.terms["cheats"]
    assert change > 1e-4
    assert (total - alone).item() == pytest.approx(7 * float(change), rel=1e-3)
    total.backward()
    gradient = with_them.model.backbone.llama.lm_head.weight.grad
    assert gradient.abs().sum() > 0


def test_training_against_cheats_leaves_them_less(reach, table, cache, tmp_path):
    rows = rows_of(table)
    change = {}
    for weight in (0.0, 30.0):
        backbone = new_backbone(tmp_path)
        backbone.standardise(cache.encoded(rows))
        loader = make_loader(table, rows, cache, LabelOptions(), replace(BATCHES, sub_scores=0))
        options = FitOptions(steps=40, learning_rate=5e-3, evaluate_every=40, twins=0.0)
        cheats = Cheats(CheatOptions(weight=weight, radius=1.0), reach) if weight else None
        fit(backbone, loader, table, rows, cache, tmp_path / str(weight), options, cheats)
        probe = Cheats(CheatOptions(radius=1.0), reach)
        torch.manual_seed(0)
        encoded = cache.encoded(rows)
        found = probe.provoke(LevelReader(backbone), encoded, (DEFAULT_ASPECT,))
        with torch.no_grad():
            change[weight] = _change(backbone, encoded, found)
    assert change[30.0] < 0.7 * change[0.0]


def test_cheats_need_a_weight(table, backbone):
    assert prepare_cheats(CheatOptions(), backbone, table.frame) is None
    made = prepare_cheats(CheatOptions(weight=1, radius=2, measured_on=1), backbone, table.frame)
    row = np.random.default_rng(0).choice(len(table), 1, replace=False)
    files = table.frame[["ir", "vis", "fused"]].to_numpy()[row]
    again = measure_reach(backbone, files)
    assert all(torch.equal(made.box[name], 2 * values) for name, values in again.items())


def test_a_batch_without_twins_or_sub_scores_has_a_loss(trainer, table, cache):
    _, made = trainer()
    batch = maker_of(table, cache, sub_scores=0, twins=0)([0, 1, 5, 9])
    loss = made.compute_loss(made.model, batch)
    assert torch.isfinite(loss)
    assert made.terms["twins"] == [0.0]


def test_noise_on_the_statistics_is_for_training_only(cache, tmp_path):
    backbone, encoded = new_backbone(tmp_path).eval(), cache.encoded([0, 1])
    clean = backbone.level_logits(encoded, DEFAULT_ASPECT)
    for projector in backbone.projectors.values():
        projector.noise = 0.5
    assert torch.equal(backbone.level_logits(encoded, DEFAULT_ASPECT), clean)
    backbone.train()
    drawn = [backbone.level_logits(encoded, DEFAULT_ASPECT) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_predictions_do_not_depend_on_the_batch(fitted, cache, table):
    rows = rows_of(table)
    score_64, std_64 = predict_cached(fitted[0], cache, rows)
    score_3, std_3 = predict_cached(fitted[0], cache, rows, batch_size=3)
    assert score_3 == pytest.approx(score_64, abs=1e-5)
    assert std_3 == pytest.approx(std_64, abs=1e-5)
    assert score_64.min() >= 1
    assert score_64.max() <= 5
    assert std_64.min() > 0


def test_rows_in_any_order_keep_their_predictions(fitted, cache, table):
    """Rows of as many source pairs as rows: each must find its own."""
    rows = pd.Series(rows_of(table)).groupby(table.source_pairs).first().tolist()[::-1]
    score, _ = predict_cached(fitted[0], cache, rows)
    alone = [predict_cached(fitted[0], cache, [row])[0].item() for row in rows]
    assert len(rows) > 3
    assert score == pytest.approx(alone, abs=1e-5)


def test_predictions_of_all_aspects_and_of_the_second_view(fitted, cache, table):
    rows = rows_of(table)
    score, std = predict_cached(fitted[0], cache, rows, aspect=ALL_ASPECTS)
    assert score.shape == std.shape == (len(rows), len(ASPECTS))
    for number, aspect in enumerate(ASPECTS):
        one, one_std = predict_cached(fitted[0], cache, rows, aspect=aspect)
        assert score[:, number] == pytest.approx(one, abs=1e-5)
        assert std[:, number] == pytest.approx(one_std, abs=1e-5)
    other, _ = predict_cached(fitted[0], cache, rows, view=1)
    difference = np.abs(other - score[:, 0])
    assert 1e-4 < difference.mean() < score[:, 0].std()


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
    "batches": {"scenes_per_batch": 4, "methods_per_scene": 4, "twins": 4, "least_cells": 4},
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


@pytest.fixture(scope="module")
def split_run(folder, trained) -> tuple[dict, Material]:
    """A run of the same ratings and features with a split file: its metrics and its material."""
    content = RECIPE | {"split": "lists/split.yaml", "feature_noise": 0.1}
    (folder / "lists").mkdir()
    (folder / "lists" / "split.yaml").write_text(yaml.safe_dump(SPLIT))
    recipe, seen = read_recipe(write_recipe(folder, content)), []
    original = fuscore_training.run.train
    with pytest.MonkeyPatch.context() as patch:

        def noted(recipe, material, work):
            seen.append(material)
            return original(recipe, material, work)

        patch.setattr(fuscore_training.run, "train", noted)
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


def test_a_split_file_says_who_sees_what(split_run):
    _, material = split_run
    assert material.split == Split(**{name: tuple(listed) for name, listed in SPLIT.items()})
    frames = {name: part.frame for name, part in material.parts.items()}
    assert set(frames["val"]["scene"]) == set(SPLIT["val"])
    assert set(frames["test"]["scene"]) == set(SPLIT["test"])
    assert frames["train"]["scene"].nunique() == SCENES - 5
    assert (material.table.frame["base"] == "soft").sum() > (frames["test"]["base"] == "soft").sum()
    for name in ("train", "val"):
        assert "soft" not in set(frames[name]["base"]) | set(frames[name]["method"])
    for name, frame in frames.items():
        rows = material.rows(name)
        assert material.table.frame["fused"].iloc[rows].tolist() == frame["fused"].tolist()


def test_metrics_of_a_run_with_a_split_file(split_run, folder):
    metrics, material = split_run
    frame = material.parts["test"].frame
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
    _, material = split_run
    assert (
        len(material.cache) == len(material.table) == len(read_ratings(trained / "ratings.parquet"))
    )
    assert Path(material.cache.arrays["fused"].filename).parent == trained / "features"


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


def test_evaluate_needs_ratings_of_the_aspect(table):
    sub_scores = list(SUB_SCORES)
    overall_only = replace(table, frame=table.frame.drop(columns=sub_scores).assign(sigma=0.4))
    with pytest.raises(RatingsError, match="a column 'sharpness', got none"):
        fuscore_training.evaluate_model.evaluate_model(overall_only, aspect="sharpness")


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


def test_the_recipe_names_every_option():
    recipe, content = read_recipe(EMBEDDED), yaml.safe_load(EMBEDDED.read_text())
    unneeded = {"llama", "preprocessing", "proxy"}
    assert set(content) == {field.name for field in fields(Recipe)} - unneeded
    assert recipe.name == content["name"]
    for part in ("ladders", "labels", "batches", "fit", "cheats"):
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
    assert (recipe.batches.least_cells, recipe.batches.twins) == (4, 4)
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
