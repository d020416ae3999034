"""Which triples are computed together, and that their files are read once, in time."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuscore_metric.errors import InputError
from fuscore_metric.images import batches
from fuscore_metric.images import lazy as pictures
from fuscore_metric.images.batches import Batch, Decoder, plan
from fuscore_metric.images.lazy import open_triples, source_pairs

WIDE, TALL = (3, 40, 60), (3, 60, 40)


def test_a_source_pair_with_many_fused_images_has_its_own_batches():
    found = plan([WIDE] * 7, [0, 1, 0, 0, 0, 0, 1], 3)
    assert [batch.rows for batch in found] == [(0, 2, 3), (4, 5), (1, 6)]
    assert [batch.sources for batch in found] == [(0,), (0,), (1,)]


def test_pairs_with_few_share_a_batch():
    (found,) = plan([WIDE] * 5, [3, 4, 3, 5, 4], 8)
    assert found == Batch((0, 2, 1, 4, 3), (3, 3, 4, 4, 5))
    assert found.sources == (3, 4, 5)
    assert found.pair.tolist() == [0, 0, 1, 1, 2]


def test_sizes_are_never_mixed():
    found = plan([WIDE, TALL, WIDE, TALL], [0, 1, 2, 3], 8)
    assert [batch.rows for batch in found] == [(0, 2), (1, 3)]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 9),
)
def test_every_triple_once_and_no_pair_in_two_places(triples, size):
    # A source pair has one size.
    pair = [2 * number + tall for number, tall in triples]
    found = plan([TALL if tall else WIDE for _, tall in triples], pair, size)
    assert sorted(row for batch in found for row in batch.rows) == list(range(len(triples)))
    for batch in found:
        assert 1 <= len(batch.rows) <= size
        assert batch.pairs == tuple(pair[row] for row in batch.rows)
        assert len({triples[row][1] for row in batch.rows}) == 1
    for number in set(pair):
        own = [place for place, batch in enumerate(found) if number in batch.pairs]
        assert own == list(range(own[0], own[-1] + 1))
        assert len(own) == 1 or all(found[place].sources == (number,) for place in own)


@pytest.fixture
def folder(tmp_path):
    """Eight images of 40x48 whose grey level is ten times their number."""
    for number in range(8):
        Image.new("L", (48, 40), 10 * number).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """Names of the images decoded so far, and the threads that did it."""
    found: list[tuple[str, str]] = []
    real = pictures.raw_pixels

    def watched(image, name, argument):
        found.append((name, threading.current_thread().name))
        return real(image, name, argument)

    monkeypatch.setattr(pictures, "raw_pixels", watched)
    return found


def opened(folder):
    """Six triples: two source pairs with three fused images each, in turns."""
    ir = [folder / f"{n % 2}.png" for n in range(6)]
    triples = open_triples(ir, ir, [folder / f"{n + 2}.png" for n in range(6)])
    return triples, plan([x[2].shape for x in triples], source_pairs(triples), 2)


def levels(images):
    return (images[:, 0, 0, 0] * 25.5).round().int().tolist()


def test_files_are_decoded_once_and_in_threads(folder, reads):
    triples, planned = opened(folder)
    with Decoder(triples, planned, ahead=True) as decoder:
        for batch in planned:
            decoder.begin(batch)
            ir, vis = decoder.sources(batch) if batch.rows[0] < 2 else (None, None)
            fused = decoder.fused(batch)
            assert levels(fused) == [row + 2 for row in batch.rows]
            if ir is not None:
                assert levels(ir) == levels(vis) == [row % 2 for row in batch.rows[:1]]
    assert len(reads) == len({name for name, _ in reads}) == 6 + 2 * 2
    assert all(thread.startswith("fuscore-decode") for _, thread in reads)


def test_files_are_decoded_ahead_of_need_but_not_too_far(folder, reads, monkeypatch):
    triples, planned = opened(folder)
    with Decoder(triples, planned, ahead=True) as decoder:
        decoder.begin(planned[0])
        wait(decoder._futures.values())
        assert len(reads) == 10  # all
    reads.clear()
    monkeypatch.setattr(batches, "AHEAD_BYTES", 1)
    with Decoder(triples, planned, ahead=True) as decoder:
        decoder.begin(planned[0])
        decoder.fused(planned[0])
    assert {name for name, _ in reads} == {"ir[0]", "vis[0]", "fused[0]", "fused[2]"}


def test_where_the_cpu_computes_a_batch_is_decoded_before(folder, reads):
    triples, planned = opened(folder)
    with Decoder(triples, planned, ahead=False) as decoder:
        decoder.begin(planned[0])
        assert {name for name, _ in reads} == {"ir[0]", "vis[0]", "fused[0]", "fused[2]"}
        assert all(future.done() for future in decoder._futures.values())


def test_what_is_wanted_again_is_there_again(folder):
    triples, planned = opened(folder)
    with Decoder(triples, planned, ahead=True) as decoder:
        first = decoder.fused(planned[0])
        single = Batch((0,), (0,))
        assert torch.equal(decoder.fused(single), first[:1])
        assert torch.equal(decoder.sources(single)[0], decoder.sources(single)[0])


def test_a_broken_file_is_named(folder):
    path = folder / "4.png"
    path.write_bytes(path.read_bytes()[:60])
    triples, planned = opened(folder)
    with Decoder(triples, planned, ahead=True) as decoder:
        decoder.fused(Batch((0,), (0,)))
        with pytest.raises(InputError, match=r"`fused\[2\]` as a readable image"):
            decoder.fused(Batch((2,), (0,)))


def test_tensors_pass_through_with_their_graph():
    fused = torch.rand(2, 3, 40, 48, requires_grad=True)
    triples = open_triples(np.zeros((40, 48), np.uint8), np.zeros((40, 48), np.uint8), fused)
    planned = plan([x[2].shape for x in triples], source_pairs(triples), 8)
    with Decoder(triples, planned, ahead=True) as decoder:
        decoder.fused(Batch((1, 0), (0, 0)))[0].sum().backward()
    assert fused.grad[1].eq(1).all()
    assert fused.grad[0].eq(0).all()
