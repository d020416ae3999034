"""Splits by scene never leak, whatever the table and however they are asked for."""

import pytest
from fuscore_training.ratings import RatingsError, read_ratings, split_by_scene
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import grid, make_images, row, table_of, write_raw


def scenes_of(splits):
    return {name: set(table.frame["scene"]) for name, table in splits.items()}


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    methods=st.lists(st.integers(1, 4), max_size=10),
    shared=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=4),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_split_never_leaks_and_ignores_row_order(methods, shared, seed, data):
    rows = [row(f"s{s}", f"m{m}") for s, count in enumerate(methods) for m in range(count)]
    rows += grid(["x", "y"])  # tied to nothing, so that both splits can be filled
    for one, other in shared:  # scene `one` takes the ir of `other`, or its vis as ir
        for this in rows:
            if this["scene"] == f"s{one}":
                this["ir"] = f"{'ir' if one % 2 else 'vis'}/s{other}.png"
    fractions = {"train": 0.6, "val": 0.4}
    splits = split_by_scene(table_of(rows), fractions=fractions, seed=seed)
    assert sum(map(len, splits.values())) == len(rows)
    assert len(splits["train"]) > 0
    assert len(splits["val"]) > 0
    assert len(splits["test"]) == 0
    train, val = splits["train"].frame, splits["val"].frame
    assert not {*train["scene"]} & {*val["scene"]}
    assert not {*train["ir"], *train["vis"]} & {*val["ir"], *val["vis"]}
    shuffled = table_of(data.draw(st.permutations(rows)))
    assert scenes_of(split_by_scene(shuffled, fractions=fractions, seed=seed)) == scenes_of(splits)


def test_split_meets_the_fractions_and_follows_the_seed():
    table = table_of(grid([f"s{n:03}" for n in range(100)]))
    splits = split_by_scene(table)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 160,
        "val": 20,
        "test": 20,
    }
    assert splits["train"].label_kind == "human"
    assert scenes_of(splits) == scenes_of(split_by_scene(table, seed=0))
    assert scenes_of(splits) != scenes_of(split_by_scene(table, seed=1))


def test_byte_identical_sources_stay_together(tmp_path):
    rows = grid([f"s{n}" for n in range(8)])
    make_images(tmp_path, rows)
    (tmp_path / "vis/s7.png").write_bytes((tmp_path / "ir/s0.png").read_bytes())
    table = read_ratings(write_raw(tmp_path, rows))
    halves = {"train": 0.5, "test": 0.5}
    for seed in range(8):  # by chance, all eight would keep the two together once in 256 or so
        parts = scenes_of(split_by_scene(table, fractions=halves, seed=seed)).values()
        assert any({"s0", "s7"} <= part for part in parts)
    lists = {"train": ["s0", "s1", "s2", "s3"], "test": ["s4", "s5", "s6", "s7"]}
    with pytest.raises(RatingsError, match=r"scene 's7' in 'test', scene 's0' in 'train'"):
        split_by_scene(table, scenes=lists)


def test_one_source_pair_of_two_scenes_stays_together():
    rows = [row(s, "a", source_pair=p) for s, p in (("s", "p"), ("t", "p"), ("u", "q"))]
    with pytest.raises(RatingsError, match=r"scene 't' in 'test', scene 's' in 'train'"):
        split_by_scene(table_of(rows), scenes={"train": ["s", "u"], "test": ["t"]})


def test_explicit_lists():
    table = table_of(grid("stu"))
    splits = split_by_scene(table, scenes={"train": ["s", "u"], "val": ["t"]})
    assert scenes_of(splits) == {"train": {"s", "u"}, "val": {"t"}, "test": set()}
    assert list(splits["train"].frame["method"]) == ["a", "b", "a", "b"]
    assert list(splits["train"].frame.columns) == list(table.frame.columns)


def test_split_column_is_obeyed():
    rows = [row(s, m, split=n) for s, n in (("s", "train"), ("t", "test")) for m in "ab"]
    assert scenes_of(split_by_scene(table_of(rows))) == {
        "train": {"s"},
        "val": set(),
        "test": {"t"},
    }


def test_split_column_that_leaks_is_refused():
    rows = [row("s", "a", split="train"), row("s", "b", split="val"), row("t", "a", split="test")]
    for options in ({}, {"fractions": {"train": 1.0}}):
        with pytest.raises(RatingsError, match=r"scene 's' in 'train', scene 's' in 'val'$"):
            split_by_scene(table_of(rows), **options)


TRAIN = {"split": "train"}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"split": "training"}, {}, "train, val, test.*'training'"),
        ({"split": None}, {}, "train, val, test"),
        (TRAIN, {"fractions": {"train": 1.0}}, "only one of"),
        (TRAIN, {"scenes": {"train": "stu"}}, "only one of"),
        ({}, {"fractions": {"train": 1.0}, "scenes": {"train": "stu"}}, "only one of"),
        ({}, {"fractions": {"train": 0.5, "val": 0.4}}, "sum 1"),
        ({}, {"fractions": {"train": 1.5, "val": -0.5}}, ">= 0"),
        ({}, {"fractions": {"train": float("nan")}}, "sum 1"),
        ({}, {"fractions": {"train": 0.5, "dev": 0.5}}, "train.*'dev'"),
        ({}, {"fractions": {}}, "sum 1"),
        ({}, {"scenes": {"train": ["s", "t"]}}, "listed once.*'u'"),
        ({}, {"scenes": {"train": ["s", "t", "u", "v"]}}, "listed once.*'v'"),
        ({}, {"scenes": {"train": ["s", "t"], "val": ["t", "u"]}}, "listed once.*'t'"),
        ({}, {"scenes": {"train": ["s"], "dev": ["t", "u"]}}, "train, val, test.*'dev'"),
        ({"ir": "same.png"}, {}, "unrelated scenes.*got 1 in all"),
    ],
)
def test_bad_split_arguments(change, options, words):
    rows = [one | change for one in grid("stu")]
    with pytest.raises(ValueError, match=words):
        split_by_scene(table_of(rows), **options)
