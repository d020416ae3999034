"""Weights fitted to cached features: what the loss is, what training leaves, predictions."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fuscore_training.embedded.batches import make_loader
from fuscore_training.embedded.fit_cached import fit, predict_cached
from fuscore_training.evaluate import evaluate
from fuscore_training.losses import tripartite_loss
from fuscore_training.soft_labels import LabelOptions, make_labels
from fuscore_training.trainer import (
    FitOptions,
)

from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from tests.training.embedded.conftest import BATCHES, maker_of, new_backbone, rows_of


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
    options = FitOptions(steps=40, learning_rate=5e-3, evaluate_every=5)
    fit(backbone, loader, upside_down, rows, cache, tmp_path, options)
    state = json.loads((tmp_path / "checkpoint-40" / "trainer_state.json").read_text())
    log = [entry["eval_srcc"] for entry in state["log_history"] if "eval_srcc" in entry]
    assert len(log) == 8
    assert log[-1] < max(log)
    scores, _ = predict_cached(backbone, cache, rows)
    found = evaluate(scores, 6 - frame["overall"], frame["scene"], frame["method"], n_boot=0)
    assert found.srcc.value == pytest.approx(max(log), abs=1e-9)
    assert not backbone.training


def test_each_part_of_the_loss_is_logged(fitted, folder):
    path = next(iter((folder / "fit").glob("checkpoint-30/trainer_state.json")))
    history = json.loads(path.read_text())["log_history"]
    parts = {"loss_dist", "loss_within", "loss_cross", "loss_consistency"}
    assert any(parts <= set(entry) for entry in history)


def test_the_loss_adds_aspects_and_twins_by_their_weights(trainer, table, cache):
    backbone, made = trainer(sub_scores=0.5, consistency=3.0)
    batch = maker_of(table, cache, sub_scores=2)([0, 1, 5, 9])
    with torch.no_grad():
        found = made.compute_loss(made.model, batch)
        logits = backbone.aspect_logits(batch["triples"], batch["aspects"])
    assert logits.shape == (7, 3, 5)
    own, scores = batch["source_ids"], expected_score(level_probabilities(logits))
    losses = [
        tripartite_loss(logits[:4, n], batch["mu"][n], batch["sigma"][n], own) for n in range(3)
    ]
    apart = scores[4:] - scores[batch["repeated"]]
    repeated = float((apart**2).mean())
    assert apart.shape == (3, 3)
    assert repeated > 0.01
    expected = losses[0].total + 0.25 * (losses[1].total + losses[2].total) + 3 * repeated
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert made.terms["consistency"] == pytest.approx([repeated], rel=1e-4)
    within = losses[0].within + 0.25 * (losses[1].within + losses[2].within)
    assert made.terms["within"] == pytest.approx([float(within)], rel=1e-5)


def test_a_batch_without_twins_or_sub_scores_has_a_loss(trainer, table, cache):
    _, made = trainer()
    batch = maker_of(table, cache, sub_scores=0, consistency=0)([0, 1, 5, 9])
    loss = made.compute_loss(made.model, batch)
    assert torch.isfinite(loss)
    assert made.terms["consistency"] == [0.0]


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
    score, std = predict_cached(fitted[0], cache, rows, aspects=ASPECTS)
    assert score.shape == std.shape == (len(rows), len(ASPECTS))
    for number, aspect in enumerate(ASPECTS):
        one, one_std = predict_cached(fitted[0], cache, rows, aspects=(aspect,))
        assert score[:, [number]] == pytest.approx(one, abs=1e-5)
        assert std[:, [number]] == pytest.approx(one_std, abs=1e-5)
    other, _ = predict_cached(fitted[0], cache, rows, view=1)
    difference = np.abs(other - score[:, 0])
    assert 1e-4 < difference.mean() < score[:, 0].std()
