"""The cache of features holds what `encode` returns, in two views."""

from dataclasses import replace

import fuscore_training.embedded.features
import fuscore_training.embedded.run
import fuscore_training.evaluate
import fuscore_training.trainer
import numpy as np
import torch
from fuscore_training.embedded.adversary import (
    measure_reach,
)
from fuscore_training.embedded.features import (
    MOST_CUT,
    SOURCE_FEATURES,
    build_features,
    mirrored,
)
from fuscore_training.embedded.initialise import new_lite_llama

from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.convert import as_images
from tests.helpers.tiny_model import LLAMA
from tests.training.embedded.conftest import PREPROCESSING, rows_of

OWN_FEATURES = ("fused", "agreement")
MIRROR = [2, 1, 0, 5, 4, 3, 8, 7, 6]


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
    monkeypatch.setattr(fuscore_training.embedded.features, "MOST_CUT", 0)
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
