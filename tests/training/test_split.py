"""A fixed split: what is held out is never trained on, and impossible lists are refused."""

from dataclasses import replace

import pandas as pd
import pytest
from fuscore_training.ratings import SCORE_COLUMNS, RatingsError, RatingsTable
from fuscore_training.split import Split, read_split
from PIL import Image

SPLIT = Split(val=("s1",), test=("s2", "s3"), held_out_methods=("gone", "away"))
GOOD = "val: [s1]\ntest: [s2, s3]\nheld_out_methods: [gone, away]\n"


def row(scene, method, base=None, **changes):
    paths = {"ir": f"ir/{scene}.png", "vis": f"vis/{scene}.png", "fused": f"{method}/{scene}.png"}
    names = {"scene": scene, "method": method, "base": method if base is None else base}
    return names | paths | dict.fromkeys(SCORE_COLUMNS, 3.0) | changes


@pytest.fixture
def table() -> RatingsTable:
    rows = [
        one
        for number in range(6)
        for one in (
            row(f"s{number}", "kept"),
            row(f"s{number}", "gone"),
            row(f"s{number}", "gone+blur=2#0", "gone"),
            row(f"s{number}", "kept+blur=2#1", "kept"),
            row(f"s{number}", "foreign_0", "away"),
            row(f"s{number}", "copy_of_ir", ""),
        )
    ]
    return RatingsTable(pd.DataFrame(rows), "proxy", "tests")


def test_held_out_scenes_and_methods_are_for_the_test_only(table):
    parts = SPLIT.apply(table)
    scenes = {name: set(part.frame["scene"]) for name, part in parts.items()}
    assert scenes == {"train": {"s0", "s4", "s5"}, "val": {"s1"}, "test": {"s2", "s3"}}
    for name in ("train", "val"):
        seen = parts[name].frame
        assert set(seen["method"]) == {"kept", "kept+blur=2#1", "copy_of_ir"}
        assert list(seen.index) == list(range(len(seen)))
    assert len(parts["test"]) == 12
    whole = table.frame[table.frame["scene"].isin(SPLIT.test)]
    assert parts["test"].frame["method"].tolist() == whole["method"].tolist()


def test_where_no_test_scene_is_rated_nothing_is_for_the_test(table):
    """As in viewers' ratings, which have no held-out method either."""
    frame = table.frame[~table.frame["scene"].isin(SPLIT.test) & ~SPLIT.is_held_out(table.frame)]
    parts = SPLIT.apply(replace(table, frame=frame))
    assert len(parts["test"]) == 0
    assert set(parts["val"].frame["scene"]) == {"s1"}
    assert set(parts["train"].frame["scene"]) == {"s0", "s4", "s5"}


def test_parts_keep_what_the_table_says_of_itself(table):
    for part in SPLIT.apply(table).values():
        assert (part.label_kind, part.description) == ("proxy", "tests")


def test_the_table_is_left_as_it_was(table):
    before = table.frame.copy()
    SPLIT.apply(table)
    pd.testing.assert_frame_equal(table.frame, before)


def test_held_out_rows_are_those_made_from_a_held_out_method(table):
    held_out = SPLIT.is_held_out(table.frame.head(6))
    assert held_out.tolist() == [False, True, True, False, True, False]


def test_without_a_base_column_the_method_is_what_counts(table):
    """As in a table of human ratings, where nothing is made from anything."""
    plain = replace(table, frame=table.frame.drop(columns="base"))
    split = replace(SPLIT, held_out_methods=("gone",))
    seen = set(split.apply(plain)["train"].frame["method"])
    assert "gone" not in seen
    assert "gone+blur=2#0" in seen


def test_without_held_out_methods_all_rows_stay(table):
    parts = replace(SPLIT, held_out_methods=()).apply(table)
    assert sum(map(len, parts.values())) == len(table)


def test_unknown_scenes_are_refused(table):
    with pytest.raises(RatingsError, match=r"not there: \['s7', 's8'\]"):
        replace(SPLIT, val=("s1", "s8"), test=("s2", "s7")).apply(table)


def test_unknown_methods_are_refused(table):
    """A misspelt method would else be trained on in silence."""
    with pytest.raises(RatingsError, match=r"methods in the ratings, not there: \['Gone'\]"):
        replace(SPLIT, held_out_methods=("Gone", "away")).apply(table)


def test_images_of_later_parts_are_not_shown_in_the_place_of_others(table):
    """A foreign fusion of a test scene, rated in a training scene, would show the test's pixels."""
    others = {"s0": "s2", "s4": "s1", "s5": "s0", "s1": "s3", "s2": "s0", "s3": "nowhere"}
    foreign = [
        row(scene, "foreign_1", "kept", other_scene=other) for scene, other in others.items()
    ]
    frame = pd.concat([table.frame.assign(other_scene=""), pd.DataFrame(foreign)])
    parts = SPLIT.apply(replace(table, frame=frame.reset_index(drop=True)))
    kept = {
        name: set(part.frame.loc[part.frame["method"] == "foreign_1", "scene"])
        for name, part in parts.items()
    }
    assert kept == {"train": {"s5"}, "val": set(), "test": {"s2", "s3"}}


def test_a_scene_in_two_parts_is_refused(table):
    with pytest.raises(RatingsError, match=r"listed once, not so: \['s1'\]"):
        replace(SPLIT, test=("s1", "s2")).apply(table)


def test_a_scene_listed_twice_is_refused(table):
    with pytest.raises(RatingsError, match=r"listed once, not so: \['s3'\]"):
        replace(SPLIT, test=("s2", "s3", "s3")).apply(table)


def test_a_source_image_in_two_parts_is_refused(table, tmp_path):
    """The same picture under two names: one copy in a test scene, one left for training."""
    frame = table.frame.copy()
    for place, name in (("ir", "s3"), ("vis", "s5")):
        path = tmp_path / f"{name}.png"
        Image.new("L", (2, 2), 7).save(path)
        frame.loc[frame["scene"] == name, place] = str(path)
    with pytest.raises(
        RatingsError, match=r"no source in common.* 's3' in 'test'.* 's5' in 'train'"
    ):
        SPLIT.apply(replace(table, frame=frame))


def test_a_degraded_source_pair_stays_with_its_scene(table):
    extra = row(
        "s2", "fusion of noisy sources", "kept", source_pair="s2#0", ir="n.png", vis="v.png"
    )
    frame = table.frame.assign(source_pair=table.frame["scene"])
    whole = replace(table, frame=pd.concat([frame, pd.DataFrame([extra])], ignore_index=True))
    parts = SPLIT.apply(whole)
    assert "s2#0" in set(parts["test"].frame["source_pair"])
    assert "s2#0" not in set(parts["train"].frame["source_pair"])


# Files


def test_a_split_file_is_read(tmp_path):
    path = tmp_path / "split.yaml"
    path.write_text(GOOD)
    assert read_split(path) == SPLIT
    path.write_text("val: [s1]\ntest: [s2]\n")
    assert read_split(path) == Split(("s1",), ("s2",), ())
    path.write_text("val: [1]\ntest: [02x]\n")
    assert read_split(path) == Split(("1",), ("02x",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "got none"),
        ("val: [a\ntest: ]b", "split.yaml"),
        ("- s1\n- s2\n", "expected keys `val`, `test`"),
        ("val: [s1]\n", "got val"),
        ("test: [s2]\nheld_out_methods: [gone]\n", "got held_out_methods, test"),
        (GOOD + "held_out_method: [more]\n", "got held_out_method, held_out_methods, test, val"),
        ("val: s1\ntest: [s2]\n", "expected a list of names as `val`"),
        ("val: [s1]\ntest:\n", "expected a list of names as `test`"),
        (GOOD.replace("[gone, away]", "gone"), "expected a list of names as `held_out_methods`"),
        (GOOD.replace("[s1]", "{s1: 1}"), "expected a list of names as `val`"),
    ],
)
def test_a_bad_split_file_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "split.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RatingsError) as caught:
        read_split(path)
    message = str(caught.value)
    assert words in message
    assert "split.yaml" in message
    assert len(message.splitlines()) == 1
