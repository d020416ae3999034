"""Ratings tables: round trips, and every kind of bad input."""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from fuscore_training.ratings import (
    REQUIRED_COLUMNS,
    SCORE_COLUMNS,
    SCORE_MAX,
    SCORE_MIN,
    SUB_SCORE_COLUMNS,
    RatingsError,
    RatingsFileNotFoundError,
    RatingsTable,
    read_ratings,
    write_ratings,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.prompts import ASPECTS, IMAGE_ORDER
from tests.training.conftest import grid, make_images, row, table_of, write_raw

SUFFIXES = (".csv", ".parquet")
# Short of control characters, which a CSV file cannot hold, and of "/" that a path would resolve.
NAMES = st.text(string.ascii_letters + string.digits + " ,'\"é-_", min_size=1, max_size=6).filter(
    lambda name: name.strip() == name
)


def test_schema_agrees_with_the_runtime():
    assert SCORE_COLUMNS == ASPECTS
    assert SCORE_RANGE == (SCORE_MIN, SCORE_MAX)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_what_it_wrote(tmp_path, suffix):
    rows = [one | {"sigma": 0.25, "kind": "NA", "overall": 1.1} for one in grid(["001", "NA"])]
    make_images(tmp_path, rows)
    write_ratings(table_of(rows), tmp_path / f"ratings{suffix}")
    table = read_ratings(tmp_path / f"ratings{suffix}")
    assert (table.label_kind, table.description, len(table)) == ("human", "tests", 4)
    assert list(table.frame["scene"]) == ["001", "001", "NA", "NA"]
    assert list(table.frame["kind"]) == ["NA"] * 4
    assert list(table.frame["overall"]) == [1.1] * 4
    assert list(table.frame["sigma"]) == [0.25] * 4
    assert table.frame["ir"][0] == str(tmp_path / "ir" / "001.png")


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    names=st.lists(st.tuples(NAMES, NAMES), unique=True, min_size=1, max_size=5),
    score=st.floats(SCORE_MIN, SCORE_MAX),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_names_and_scores_survive(names, score, suffix):
    rows = [row(scene, method, artifacts=score) for scene, method in names]
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"ratings{suffix}"
        write_ratings(table_of(rows), path)
        frame = read_ratings(path, check_files=False).frame
    assert list(zip(frame["scene"], frame["method"], strict=True)) == names
    # pandas 2 may read the last bit otherwise.
    assert frame["artifacts"].to_numpy() == pytest.approx(score, rel=1e-15)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_inside_the_folder_move_with_it(tmp_path, suffix):
    rows = [one | {"vis": str(tmp_path / "else.png")} for one in grid(["s"])]
    old, new = tmp_path / "old", tmp_path / "new"
    make_images(old, rows)
    write_ratings(table_of(rows), old / f"ratings{suffix}")
    old.rename(new)
    frame = read_ratings(new / f"ratings{suffix}").frame
    assert frame["ir"][0] == str(new / "ir/s.png")
    assert frame["vis"][0] == str(tmp_path / "else.png")


def test_source_pair_is_the_scene_unless_a_column_says_otherwise():
    assert list(table_of([row("s", "a")]).source_pairs) == ["s"]
    assert list(table_of([row("s", "a", source_pair="s+blur")]).source_pairs) == ["s+blur"]


def test_a_scene_may_hold_several_source_pairs(tmp_path):
    blurred = row("s", "a", source_pair="s+blur", ir="blur/s.png")
    rows = [row("s", "a", source_pair="s"), blurred]
    make_images(tmp_path, rows)
    assert len(read_ratings(write_raw(tmp_path, rows))) == 2


def test_blank_lines_are_skipped_but_counted(tmp_path):
    path = write_raw(tmp_path, grid(["s"]))
    header, first, second = path.read_text().splitlines()
    path.write_text("\ufeff" + "\n".join([header, "", first, "", second, "", ""]), encoding="utf-8")
    assert len(read_ratings(path, check_files=False)) == 2
    path.write_text(path.read_text(encoding="utf-8").replace(second, second.replace("3.5", "7", 1)))
    with pytest.raises(RatingsError, match=r"row 5 .*'overall'"):
        read_ratings(path, check_files=False)


# Each: what is done to the second of three rows (row 3 of the sheet), and what the message holds.
BAD_CELLS = {
    "above the scale": ({"overall": 5.01}, ["row 3", "'overall'", "[1, 5]", "5.01"]),
    "below the scale": ({"sharpness": 0}, ["row 3", "'sharpness'", "[1, 5]", "0"]),
    "infinite": ({"artifacts": np.inf}, ["row 3", "'artifacts'", "inf"]),
    "empty score": ({"overall": None}, ["row 3", "'overall'"]),
    "nan": ({"thermal_retention": np.nan}, ["row 3", "'thermal_retention'"]),
    "negative sigma": ({"sigma": -0.1}, ["row 3", "'sigma'", ">= 0", "-0.1"]),
    "infinite sigma": ({"sigma": np.inf}, ["row 3", "'sigma'", "inf"]),
    "empty sigma": ({"sigma": None}, ["row 3", "'sigma'"]),
    "empty scene": ({"scene": None}, ["row 3", "'scene'", "empty"]),
    "blank method": ({"method": " "}, ["row 3", "'method'", "empty"]),
    "empty path": ({"vis": ""}, ["row 3", "'vis'", "empty"]),
    "repeated row": ({"method": "a"}, ["row 3", "'method'", "'s'", "'a'", "earlier"]),
    "other ir": ({"ir": "vis/s.png"}, ["row 3", "'ir'", "'s'", "vis/s.png", "ir/s.png"]),
    "other vis": ({"vis": "ir/s.png"}, ["row 3", "'vis'", "'s'", "ir/s.png", "vis/s.png"]),
    "two problems": ({"overall": 9, "sharpness": 9}, ["row 3", "'overall'", "and 1 more"]),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("change", "words"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_bad_cells(tmp_path, change, words, suffix):
    rows = [one | {"sigma": 0.5} for one in grid(["s"], "abc")]
    make_images(tmp_path, rows)
    rows[1] |= change
    path = write_raw(tmp_path, rows, suffix)
    with pytest.raises(RatingsError) as caught:
        read_ratings(path)
    assert [word for word in [str(path), *words] if word not in str(caught.value)] == []
    assert ("more" in str(caught.value)) == ("and 1 more" in words)


def test_a_bad_table_is_not_written(tmp_path):
    with pytest.raises(RatingsError, match=r"out\.csv: row 2 .*'overall'"):
        write_ratings(table_of([row("s", "a", overall=7)]), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["abc", "3,5", "", "nan", "True"])
def test_text_for_a_score(tmp_path, value):
    path = write_raw(tmp_path, [row("s", "a"), row("s", "b", overall=value)])
    with pytest.raises(ValueError, match=rf"row 3 .*'overall': .*{value or 'an empty cell'}"):
        read_ratings(path, check_files=False)


def test_truth_value_for_a_score_in_parquet(tmp_path):
    path = write_raw(tmp_path, [row("s", "a", overall=True)], ".parquet")
    with pytest.raises(RatingsError, match=r"row 2 .*'overall'.*True"):
        read_ratings(path, check_files=False)


@pytest.mark.parametrize("column", IMAGE_ORDER)
def test_missing_image(tmp_path, column):
    rows = grid(["s"], "a") + grid(["t"], "a")
    make_images(tmp_path, rows)
    (tmp_path / rows[1][column]).unlink()
    path = write_raw(tmp_path, rows)
    with pytest.raises(FileNotFoundError, match=rf"row 3 .*'{column}'.*{rows[1][column]}$"):
        read_ratings(path)
    assert len(read_ratings(path, check_files=False)) == 2


@pytest.mark.parametrize("column", REQUIRED_COLUMNS)
def test_missing_column(tmp_path, column):
    path = write_raw(tmp_path, [{k: v for k, v in row("s", "a").items() if k != column}])
    with pytest.raises(RatingsError, match=rf"ratings\.csv: missing column '{column}'$"):
        read_ratings(path)


def only_overall(**changes):
    kept = {k: v for k, v in row("s", "a").items() if k not in SUB_SCORE_COLUMNS}
    return [kept | changes]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sigma_stands_in_for_all_sub_scores(tmp_path, suffix):
    write_ratings(table_of(only_overall(sigma=0.5)), tmp_path / f"ratings{suffix}")
    table = read_ratings(tmp_path / f"ratings{suffix}", check_files=False)
    assert not table.has_sub_scores
    assert list(table.frame.columns) == ["scene", "method", *IMAGE_ORDER, "overall", "sigma"]
    assert table_of([row("s", "a")]).has_sub_scores
    assert table_of([row("s", "a", sigma=0.5)]).has_sub_scores


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            r"'thermal_retention', .*, 'sharpness'; 'sigma' may stand in for all four sub-scores$",
        ),
        ({"sigma": 0.5, "sharpness": 3}, r"missing column 'thermal_retention', .*'artifacts'$"),
        ({"sigma": None}, r"'sigma'.*a number >= 0"),
    ],
)
def test_some_sub_scores_or_no_sigma(tmp_path, changes, words):
    path = write_raw(tmp_path, only_overall(**changes))
    with pytest.raises(RatingsError, match=words):
        read_ratings(path, check_files=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_table_without_rows(tmp_path, suffix):
    path = write_raw(tmp_path, [], suffix, columns=list(REQUIRED_COLUMNS))
    with pytest.raises(RatingsError, match=f"ratings{suffix}: the table has no rows"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".csv", b""),
        (".csv", b"scene,method\n1,2,3\n"),
        (".csv", b"scene,method\n1,2\n1,2,3\n"),
        (".csv", b"scene\n\xff\xfe\n"),
        (".parquet", b"not parquet"),
    ],
)
def test_unreadable_table(tmp_path, suffix, content):
    path = write_raw(tmp_path, [row("s", "a")], suffix)
    path.write_bytes(content)
    with pytest.raises(RatingsError, match=f"ratings{suffix}: "):
        read_ratings(path)


def test_missing_table(tmp_path):
    with pytest.raises(RatingsFileNotFoundError, match=r"none\.csv"):
        read_ratings(tmp_path / "none.csv")


def test_unsupported_suffix(tmp_path):
    with pytest.raises(RatingsError, match=r"ratings\.xlsx: .*\.csv or \.parquet"):
        write_ratings(table_of([row("s", "a")]), tmp_path / "ratings.xlsx")
    (tmp_path / "ratings.xlsx").touch()
    with pytest.raises(RatingsError, match=r"ratings\.xlsx: .*\.csv or \.parquet"):
        read_ratings(tmp_path / "ratings.xlsx")


def test_missing_sidecar_says_how_to_write_one(tmp_path):
    path = write_raw(tmp_path, [row("s", "a")])
    (tmp_path / "ratings.meta.json").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_ratings(path)
    message = str(caught.value)
    assert str(tmp_path / "ratings.meta.json") in message
    example = json.loads(message[message.index("{") : message.index("}") + 1])
    (tmp_path / "ratings.meta.json").write_text(json.dumps(example))
    assert read_ratings(path, check_files=False).label_kind == "human"


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        '{"label_kind": "human"}',
        '{"description": "x"}',
        '{"label_kind": "people", "description": "x"}',
        '{"label_kind": ["human"], "description": "x"}',
    ],
)
def test_bad_sidecar(tmp_path, content):
    path = write_raw(tmp_path, [row("s", "a")])
    (tmp_path / "ratings.meta.json").write_text(content)
    with pytest.raises(RatingsError, match=r"ratings\.meta\.json: .*label_kind"):
        read_ratings(path, check_files=False)


def test_bad_label_kind():
    with pytest.raises(ValueError, match=r"Expected label_kind in .*got 'people'"):
        RatingsTable(pd.DataFrame(), "people")
