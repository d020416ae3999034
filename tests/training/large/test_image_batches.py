"""Batches of images: which image stands where, and which label belongs to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fuscore_training.large.image_batches import (
    ImageBatchMaker,
    ImageBatchOptions,
    make_image_loader,
)
from fuscore_training.large.predict_images import predict_images
from fuscore_training.pair_images import by_pair
from fuscore_training.ratings import RatingsTable, read_ratings
from fuscore_training.soft_labels import LabelOptions
from fuscore_training.trainer import LevelReader

from benchmarks.tiny_qwen import tiny_backbone
from fuscore_metric import FuScore, FuScoreSpec, InputError, predict
from fuscore_metric.images.convert import as_images
from tests.helpers.rated_scenes import write_rated_scenes

PLAIN = ImageBatchOptions(sub_scores=0, mirror=False, workers=0)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> RatingsTable:
    return read_ratings(write_rated_scenes(tmp_path_factory.mktemp("scenes")))


def make(table, rows, **options):
    return ImageBatchMaker(table, LabelOptions(), replace(PLAIN, **options))(rows)


def fused_in_order(batch) -> list[torch.Tensor]:
    return [image for group in batch["triples"] for image in group["fused"]]


def test_every_image_stands_beside_its_own_label_and_sources(table):
    rows = [9, 0, 8, 2, 21, 23]  # three scenes, of two sizes, mixed
    batch = make(table, rows)
    frame = table.frame
    order = [0, 2, 9, 8, 21, 23]  # by source pair, in the order of the batch within one
    assert batch["mu"].tolist() == [frame["overall"][order].tolist()]
    assert [len(group["fused"]) for group in batch["triples"]] == [2, 2, 2]
    for row, image in zip(order, fused_in_order(batch), strict=True):
        assert torch.equal(image, as_images(frame["fused"][row], "fused")[0])
    for row, group in zip(order[::2], batch["triples"], strict=True):
        for name in ("ir", "vis"):
            assert torch.equal(group[name][0], as_images(frame[name][row], name)[0])
            assert len(group[name]) == 1
    ids = batch["source_ids"]
    assert (ids[::2] == ids[1::2]).all()
    assert len(set(ids.tolist())) == 3


def test_sub_scores_have_their_own_labels(table):
    batch = make(table, [0, 1, 4, 5], sub_scores=2)
    assert batch["aspects"][0] == "overall"
    assert len(set(batch["aspects"])) == 3
    for aspect, mu in zip(batch["aspects"], batch["mu"], strict=True):
        assert mu.tolist() == table.frame[aspect][[0, 1, 4, 5]].tolist()


def test_a_source_pair_is_mirrored_as_a_whole(table):
    seen = set()
    for first in range(0, 32, 4):
        rows = [first, first + 1]
        plain, shown = make(table, rows)["triples"], make(table, rows, mirror=True)["triples"]
        for one, other in zip(plain, shown, strict=True):
            flips = {
                name: not torch.equal(one[name], other[name]) for name in ("ir", "vis", "fused")
            }
            assert len(set(flips.values())) == 1
            seen.add(flips["ir"])
            expected = {name: x.flip(-1) if flips[name] else x for name, x in one.items()}
            assert all(torch.equal(other[name], x) for name, x in expected.items())
    assert seen == {True, False}


def test_twins_are_the_same_triples_mirrored(table):
    batch = make(table, [0, 1, 4, 5, 8, 9], consistency=3)
    images = fused_in_order(batch)
    assert len(images) == 6 + 3
    assert len(set(batch["repeated"].tolist())) == 3
    for place_again, image in zip(batch["repeated"].tolist(), images[6:], strict=True):
        assert torch.equal(image, images[place_again].flip(-1))
    assert batch["mu"].shape == (1, 6)


def test_what_is_drawn_depends_on_the_rows_alone(table):
    options = {"sub_scores": 1, "mirror": True, "consistency": 2}
    maker = ImageBatchMaker(table, LabelOptions(), replace(PLAIN, **options))
    first = maker([0, 1, 4, 5])
    maker([8, 9, 12, 13])
    again = maker([0, 1, 4, 5])
    assert first["aspects"] == again["aspects"]
    for one, other in zip(fused_in_order(first), fused_in_order(again), strict=True):
        assert torch.equal(one, other)


def test_reading_ahead_changes_nothing(table):
    options = replace(PLAIN, scenes_per_batch=2, methods_per_scene=2, mirror=True, sub_scores=1)
    for_both = [
        list(make_image_loader(table, LabelOptions(), replace(options, workers=workers)))
        for workers in (0, 2)
    ]
    assert len(for_both[0]) == 6
    for one, other in zip(*for_both, strict=True):
        assert one["aspects"] == other["aspects"]
        assert torch.equal(one["mu"], other["mu"])
        for ours, theirs in zip(fused_in_order(one), fused_in_order(other), strict=True):
            assert torch.equal(ours, theirs)


def test_rows_are_cut_where_the_pair_changes_and_at_most_so_long():
    pairs = np.array([0, 0, 0, 1, 1])
    rows = np.arange(5)
    assert [part.tolist() for part in by_pair(rows, pairs)] == [[0, 1, 2], [3, 4]]
    assert [part.tolist() for part in by_pair(rows, pairs, at_most=2)] == [[0, 1], [2], [3, 4]]
    assert by_pair(rows[:0], pairs) == []


def test_a_broken_image_is_named(table, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    frame = table.frame.copy()
    frame.loc[1, "fused"] = str(broken)
    with pytest.raises(InputError, match=r"broken\.png"):
        make(replace(table, frame=frame), [0, 1])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_predictions_are_the_public_scores_in_the_tables_order(table, batch_size):
    backbone = tiny_backbone("qwen3_vl").eval()
    shuffled = replace(table, frame=table.frame.sample(frac=1, random_state=0, ignore_index=True))
    aspects = ["overall", "artifacts"]
    score, std = predict_images(
        LevelReader(backbone),
        shuffled,
        aspects,
        device=torch.device("cpu"),
        batch_size=batch_size,
    )
    model = FuScore(backbone, FuScoreSpec("a", "qwen3_vl", backbone.preprocessing, "none"))
    files = [shuffled.frame[name].tolist() for name in ("ir", "vis", "fused")]
    for number, aspect in enumerate(aspects):
        expected = predict(*files, model=model, aspect=aspect)
        assert np.allclose(score[:, number], expected.score, atol=1e-5)
        assert np.allclose(std[:, number], expected.std, atol=1e-5)


def test_folder_of_scenes_has_two_sizes(table):
    shapes = {as_images(Path(path), "ir")[0].shape for path in set(table.frame["ir"])}
    assert len(shapes) == 2  # what the tests above rely on
