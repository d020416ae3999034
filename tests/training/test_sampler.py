"""Batches of S scenes x M methods: pairs of both kinds, coverage, ranks that agree."""

from collections import Counter

import numpy as np
import pytest
import torch
from fuscore_training.sampler import SceneBatchSampler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=60)


def rows_of(counts):
    """Scene ids, one a row, interleaved so that a scene's rows are not neighbours."""
    ids = [f"s{scene}" for scene, count in enumerate(counts) for _ in range(count)]
    return [ids[i] for i in np.random.default_rng(0).permutation(len(ids))]


def sampler_of(ids, s=2, m=2, **options):
    return SceneBatchSampler(ids, scenes_per_batch=s, methods_per_scene=m, **options)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@st.composite
def setups(draw):
    s, m, world = draw(st.integers(2, 4)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    size = st.lists(st.integers(2, 9), min_size=s * world, max_size=s * world + 12)
    return rows_of(draw(size)), {"s": s, "m": m, "world_size": world, "seed": draw(st.integers(0))}


@DETERMINISTIC
@given(setups(), st.integers(0, 50))
def test_every_batch_holds_both_kinds_of_pair(setup, epoch):
    ids, options = setup
    counts = Counter(ids)
    for rank in range(options["world_size"]):
        sampler = sampler_of(ids, rank=rank, **options)
        batches = epoch_of(sampler, epoch)
        assert len(batches) == len(sampler)
        for batch in batches:
            assert len(set(batch)) == len(batch)
            shown = Counter(ids[row] for row in batch)
            assert len(shown) == options["s"]
            assert all(n == min(options["m"], counts[scene]) for scene, n in shown.items())


@DETERMINISTIC
@given(setups(), st.integers(0, 50))
def test_ranks_share_the_scenes_without_overlap(setup, epoch):
    ids, options = setup
    ranks = [sampler_of(ids, rank=rank, **options) for rank in range(options["world_size"])]
    assert len({len(sampler) for sampler in ranks}) == 1
    visits = []
    for sampler in ranks:
        visits.append(Counter())
        for batch in epoch_of(sampler, epoch):
            visits[-1].update({ids[row] for row in batch})
    assert sum(map(len, visits)) == len(set(ids))
    assert set().union(*visits) == set(ids)
    assert {n for rank in visits for n in rank.values()} <= {1, 2}


@DETERMINISTIC
@given(setups())
def test_all_rows_come_within_the_promised_epochs(setup):
    ids, options = setup
    epochs = -(-max(Counter(ids).values()) // options["m"])
    # Scenes begin their rounds together at epoch 0 only: the largest has just finished its first.
    seen = {
        row
        for rank in range(options["world_size"])
        for epoch in range(epochs)
        for batch in epoch_of(sampler_of(ids, rank=rank, **options), epoch)
        for row in batch
    }
    assert seen == set(range(len(ids)))


def test_rows_are_drawn_about_equally_often():
    ids = rows_of([11] * 10)
    sampler = sampler_of(ids, s=5, m=4)
    drawn = Counter(
        row for epoch in range(300) for batch in epoch_of(sampler, epoch) for row in batch
    )
    # Each round of 3 epochs shows the 11 rows once and one of them again: 100 to 200 draws.
    assert sum(drawn.values()) == 300 * 10 * 4
    assert min(drawn.values()) > 100
    assert max(drawn.values()) < 125


def test_all_pairs_of_methods_meet():
    ids = ["a"] * 5 + ["b"] * 2
    sampler = sampler_of(ids)
    met = {
        frozenset(row for row in batch if row < 5)
        for epoch in range(60)
        for batch in epoch_of(sampler, epoch)
    }
    assert len(met) == 10


def test_second_visit_in_an_epoch_shows_other_rows():
    ids = rows_of([4, 4, 4])
    batches = epoch_of(sampler_of(ids), 0)  # two batches of two: one scene comes twice
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows)) == 8


def test_same_seed_and_epoch_give_the_same_batches():
    ids = rows_of([5] * 12)
    one, same, other = sampler_of(ids), sampler_of(ids), sampler_of(ids, seed=1)
    assert list(one) == list(same) == list(one)
    assert list(one) != list(other)
    assert epoch_of(one, 7) == epoch_of(same, 7)
    assert epoch_of(one, 7) != epoch_of(one, 8)


def test_golden():
    # Recorded with numpy 2.4.6: a change of the drawing changes every run of a fixed seed.
    ids = ["a", "a", "a", "b", "b", "c", "c", "c", "c"]
    assert list(sampler_of(ids, seed=3)) == [[8, 5, 3, 4], [0, 1, 7, 6]]


def test_works_as_the_batch_sampler_of_a_loader():
    ids = rows_of([3, 3, 3, 3])
    sampler = sampler_of(ids)
    loader = DataLoader(torch.arange(len(ids)), batch_sampler=sampler)
    assert len(loader) == len(sampler) == 2
    assert [batch.tolist() for batch in loader] == list(sampler)


@pytest.mark.parametrize(
    ("ids", "options", "words"),
    [
        (rows_of([2, 2]), {"s": 1}, "scenes_per_batch >= 2, got 1"),
        (rows_of([2, 2]), {"m": 1}, "methods_per_scene >= 2, got 1"),
        (rows_of([2, 2]), {"s": 3}, r"3 \* 1 scenes, got 2"),
        (rows_of([2] * 5), {"s": 2, "world_size": 3}, r"2 \* 3 scenes, got 5"),
        ([], {}, "scenes, got 0"),
        (["a", "a", "b"], {}, "2 rows of each scene, got 1 of 'b' .1 such"),
        (rows_of([2, 2]), {"rank": -1}, "rank >= 0, got -1"),
        (rows_of([2, 2]), {"rank": 1}, "rank < world_size, got rank 1 of 1"),
        (rows_of([2, 2]), {"world_size": 0}, "world_size >= 1, got 0"),
        (rows_of([2, 2]), {"seed": -1}, "seed >= 0, got -1"),
    ],
)
def test_bad_arguments(ids, options, words):
    with pytest.raises(ValueError, match=words):
        sampler_of(ids, **options)


def test_bad_epoch():
    with pytest.raises(ValueError, match="epoch >= 0, got -1"):
        sampler_of(rows_of([2, 2])).set_epoch(-1)
