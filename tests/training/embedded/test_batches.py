"""Labels of the rows, and batches of cached features with their mirrored copies."""

from dataclasses import replace

import numpy as np
import torch
from fuscore_training.embedded.batches import BatchMaker, make_loader
from fuscore_training.soft_labels import LabelOptions, label_sigma, make_labels, soft_label

from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from tests.training.embedded.conftest import BATCHES, maker_of, rows_of

OWN_FEATURES = ("fused", "agreement")
SUB_SCORES = [aspect for aspect in ASPECTS if aspect != DEFAULT_ASPECT]
MIRROR = [2, 1, 0, 5, 4, 3, 8, 7, 6]


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


def test_batches_hold_the_rows_asked_for(table, cache):
    """The training part of a table: its row 0 is row 5 of the cache."""
    part = replace(table, frame=table.frame.iloc[5:].reset_index(drop=True))
    maker = BatchMaker(part, range(5, len(table)), cache, LabelOptions(), BATCHES)
    for _ in range(5):
        batch = maker([0, 3, 4])
        aspects, encoded, repeated = batch["aspects"], batch["triples"], batch["repeated"].tolist()
        for number, aspect in enumerate(aspects):
            assert batch["mu"][number].tolist() == table.frame[aspect].iloc[[5, 8, 9]].tolist()
        assert batch["mu"].shape == batch["sigma"].shape == (2, 3)
        assert batch["source_ids"].shape == (3,)
        assert sorted(repeated) == [0, 1, 2]
        shown = [5, 8, 9, *(np.array([5, 8, 9])[repeated])]
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
    maker, counts, flipped = maker_of(table, cache, consistency=1), [], []
    pairs = cache.pair_of_row
    rows = [0, 1, int(np.flatnonzero(pairs != pairs[0])[0])]
    assert pairs[0] == pairs[1]
    whole = [cache.encoded(rows, views=np.full(3, view))["fused"] for view in (0, 1)]
    for _ in range(60):
        batch = maker(rows)
        encoded, (place_again,) = batch["triples"], batch["repeated"].tolist()
        cells = encoded["cells"]
        counts.append(cells.shape[1])
        assert torch.equal(cells, cells.sort(1).values)
        places = [0, 1, 2, place_again]
        views = [
            int(not torch.equal(shown, whole[0][place][own]))
            for shown, place, own in zip(encoded["fused"], places, cells, strict=True)
        ]
        kept = np.sort(np.array(MIRROR)[cells[0]]) if views[0] else cells[0].numpy()
        exact = cache.encoded([*rows, rows[place_again]], views=np.array(views), cells=kept)
        assert all(torch.equal(value, exact[name]) for name, value in encoded.items())
        assert views[0] == views[1]
        assert views[3] == 1 - views[place_again]
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
    batch = maker_of(table, cache, consistency=12)([4, 2])
    assert sorted(batch["repeated"].tolist()) == [0, 1]
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
        assert len(cells) == 8 + BATCHES.consistency
