"""Attacks on the features: how far they may go, and that training against them helps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fuscore_training.embedded.adversary import (
    AdversarialFeatures,
    AdversarialOptions,
    measure_reach,
    prepare_adversarial,
)
from fuscore_training.embedded.batches import make_loader
from fuscore_training.embedded.fit_cached import fit
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.trainer import (
    FitOptions,
    LevelReader,
)

from fuscore_metric.backbones.lite.cells import AGREEMENT, STATISTICS
from fuscore_metric.backbones.lite.config import DEFAULT_PREPROCESSING
from fuscore_metric.levels import expected_score, level_probabilities
from fuscore_metric.prompts import DEFAULT_ASPECT
from tests.training.embedded.conftest import BATCHES, maker_of, new_backbone, rows_of


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
        AdversarialOptions(**{name: value})


def test_a_cheat_stays_near_and_finds_more_than_chance(trainer, reach, table, cache):
    backbone, made = trainer()
    encoded, aspects = cache.encoded(rows_of(table)[:12]), (DEFAULT_ASPECT,)
    adversarial = AdversarialFeatures(AdversarialOptions(weight=1, radius=0.5), reach)

    def moved(one):
        with torch.no_grad():
            return _change(backbone, encoded, one)

    found = adversarial.attack(made.model, encoded, aspects)
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
    adversarial = AdversarialFeatures(AdversarialOptions(weight=7.0, triples=3), reach)
    torch.manual_seed(3)
    with_them = trainer(adversarial=adversarial)[1]
    total = with_them.compute_loss(with_them.model, batch)
    without = trainer()[1]
    alone = without.compute_loss(without.model, batch)
    (change,) = with_them.terms["adversarial"]
    assert change > 1e-4
    assert (total - alone).item() == pytest.approx(7 * float(change), rel=1e-3)
    total.backward()
    gradient = with_them.model.backbone.llama.lm_head.weight.grad
    assert gradient.abs().sum() > 0


@pytest.mark.slow
def test_training_against_cheats_leaves_them_less(reach, table, cache, tmp_path):
    rows = rows_of(table)
    change = {}
    for weight in (0.0, 30.0):
        backbone = new_backbone(tmp_path)
        backbone.standardise(cache.encoded(rows))
        loader = make_loader(table, rows, cache, LabelOptions(), replace(BATCHES, sub_scores=0))
        options = FitOptions(steps=40, learning_rate=5e-3, evaluate_every=40, consistency=0.0)
        adversarial = (
            AdversarialFeatures(AdversarialOptions(weight=weight, radius=1.0), reach)
            if weight
            else None
        )
        fit(backbone, loader, table, rows, cache, tmp_path / str(weight), options, adversarial)
        probe = AdversarialFeatures(AdversarialOptions(radius=1.0), reach)
        torch.manual_seed(0)
        encoded = cache.encoded(rows)
        found = probe.attack(LevelReader(backbone), encoded, (DEFAULT_ASPECT,))
        with torch.no_grad():
            change[weight] = _change(backbone, encoded, found)
    assert change[30.0] < 0.7 * change[0.0]


def test_cheats_need_a_weight(table, backbone):
    assert prepare_adversarial(AdversarialOptions(), backbone, table.frame) is None
    made = prepare_adversarial(
        AdversarialOptions(weight=1, radius=2, measured_on=1), backbone, table.frame
    )
    row = np.random.default_rng(0).choice(len(table), 1, replace=False)
    files = table.frame[["ir", "vis", "fused"]].to_numpy()[row]
    again = measure_reach(backbone, files)
    assert all(torch.equal(made.box[name], 2 * values) for name, values in again.items())
