"""EVAFusion's importer: every door gives the same table, is resumed, and never leaks.

The data sets have EVAFusion's schema and are made here, from synthetic or from real scenes.
"""

import io
import json
import logging
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from fuscore_training.cli import app
from fuscore_training.importers import eva_fusion
from fuscore_training.importers.eva_fusion import load_ratings
from fuscore_training.ratings import (
    SCORE_COLUMNS,
    RatingsError,
    RatingsTable,
    read_ratings,
    write_ratings,
)
from PIL import Image
from typer.testing import CliRunner

from tests.helpers.scenes import synthetic_pair
from tests.training.importers.conftest import (
    EVA_METHODS,
    EVA_SCENES,
    EVA_SCORES,
    SCORE_NAMES,
    assert_no_leak,
    encode,
    eva_dataset,
    eva_row,
    eva_rows,
    real_scenes,
    report_of,
)


def leaky(rows):
    """Splits cut without regard to scenes: 10, 4 and 4 rows of 6 scenes by 3 methods."""
    return datasets.DatasetDict(
        train=eva_dataset(rows[:10]),
        validation=eva_dataset(rows[10:14]),
        test=eva_dataset(rows[14:]),
    )


def save_parquet_folder(parts, folder):
    for name, part in parts.items():
        half = len(part) // 2
        for shard, rows in enumerate((range(half), range(half, len(part)))):
            path = folder / "data" / f"{name}-{shard:05d}-of-00002.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            part.select(rows).to_parquet(str(path))


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """The same rows as each kind of source, and the splits that each has."""
    datasets.disable_progress_bars()
    folder, rows = tmp_path_factory.mktemp("doors"), eva_rows()
    eva_dataset(rows).save_to_disk(str(folder / "single"))
    leaky(rows).save_to_disk(str(folder / "several"))
    eva_dataset(rows).to_parquet(str(folder / "train.parquet"))
    eva_dataset(rows).to_parquet(str(folder / "ratings.parquet"))
    save_parquet_folder(leaky(rows), folder / "parquet")
    return folder


@pytest.mark.parametrize(
    ("door", "splits"),
    [
        ("single", {"all": 18}),
        ("several", {"train": 10, "val": 4, "test": 4}),
        ("train.parquet", {"train": 18}),
        ("ratings.parquet", {"all": 18}),
        ("parquet", {"train": 10, "val": 4, "test": 4}),
    ],
)
def test_every_door_gives_the_same_table(doors, tmp_path, door, splits):
    table = load_ratings(doors / door, work=tmp_path)
    frame = table.frame
    assert (table.label_kind, len(table), table.has_sub_scores) == ("model", 18, True)
    assert frame["original_split"].value_counts().to_dict() == splits
    assert frame["source_pair"].nunique() == frame["scene"].nunique() == EVA_SCENES
    assert list(frame["method"]) == ["unnamed-01", "unnamed-02", "unnamed-03"] * EVA_SCENES
    expected = {"overall": 3.5, "thermal_retention": 4, "texture_preservation": 3}
    expected |= {"artifacts": 2, "sharpness": 5}
    assert frame[list(SCORE_COLUMNS)].drop_duplicates().to_dict("records") == [expected]
    assert frame.groupby("source_pair")["split"].nunique().eq(1).all()
    assert set(frame["split"]) == {"train", "val", "test"}
    # Original bytes, each content once.
    assert len(list((tmp_path / "images").rglob("*.png"))) == 18 + 2 * EVA_SCENES
    row = eva_row(2, 1)
    for column, name in (("ir", "infrared"), ("vis", "visible"), ("fused", "fused")):
        assert Path(frame[column][7]).read_bytes() == row[name]["bytes"]
    assert not list(tmp_path.rglob("*.part"))
    assert report_of(tmp_path).skipped == {}


def test_table_on_disk_is_the_result_and_moves(doors, tmp_path):
    table = load_ratings(doors / "several", work=tmp_path / "old")
    pd.testing.assert_frame_equal(read_ratings(tmp_path / "old/ratings.parquet").frame, table.frame)
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(read_ratings(tmp_path / "new/ratings.parquet")) == 18


def test_hub_id_goes_to_datasets_as_given(monkeypatch, tmp_path):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return leaky(eva_rows())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = "HHOODD/EVAFusion_dataset"
    table = load_ratings(source, work=tmp_path, revision="abc", local_files_only=True)
    ((args, options),) = calls
    assert args == (source,)
    assert set(options) == {"revision", "download_config"}  # never trust_remote_code
    assert options["revision"] == "abc"
    assert options["download_config"].local_files_only is True
    assert "HHOODD/EVAFusion_dataset abc" in table.description
    load_ratings(source, work=tmp_path, revision="abc")
    assert len(calls) == 1
    load_ratings(source, work=tmp_path, revision="def")
    assert len(calls) == 2
    assert calls[1][1]["download_config"].local_files_only is False


def test_hub_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    def load_dataset(*_, **__):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(RatingsError, match=r"'a/b': no route$"):
        load_ratings("a/b", work=tmp_path)


def test_import_is_resumed_until_source_or_options_change(doors, tmp_path, monkeypatch):
    source, opened = tmp_path / "source.parquet", []
    source.write_bytes((doors / "train.parquet").read_bytes())
    real = eva_fusion.open_source
    monkeypatch.setattr(
        eva_fusion, "open_source", lambda *a, **k: opened.append(a) or real(*a, **k)
    )
    monkeypatch.chdir(tmp_path)
    work = "work"  # as a user would say it
    first = load_ratings(source, work=work)
    pd.testing.assert_frame_equal(load_ratings(source, work=work).frame, first.frame)
    assert len(opened) == 1
    human = load_ratings(source, work=work, label_kind="human")
    assert (human.label_kind, first.label_kind) == ("human", "model")
    assert "given by people" in human.description
    opened.pop()
    with pytest.raises(RatingsError, match="Expected `label_kind` in"):
        load_ratings(source, work=work, label_kind="people")
    other = load_ratings(source, work=work, seed=5)
    assert len(opened) == 2
    assert list(other.frame["split"]) != list(first.frame["split"])
    eva_dataset(eva_rows()[:9]).to_parquet(str(source))
    assert len(load_ratings(source, work=work)) == 9
    assert len(opened) == 3


def test_a_ratings_table_is_just_read(tmp_path, doors):
    table = load_ratings(doors / "single", work=tmp_path / "work")
    for name in ("ratings.csv", "other.parquet"):
        write_ratings(RatingsTable(table.frame, "human", "ours"), tmp_path / name)
        again = load_ratings(tmp_path / name, work=tmp_path / "unused")
        assert (again.label_kind, len(again)) == ("human", 18)
    assert not (tmp_path / "unused").exists()


def test_our_split_keeps_the_data_sets_proportions(tmp_path):
    rows = [eva_row(scene, method) for scene in range(20) for method in range(2)]
    parts = {"train": rows[:20], "valid": rows[20:30], "test": rows[30:]}
    source = tmp_path / "source"
    datasets.DatasetDict({k: eva_dataset(v) for k, v in parts.items()}).save_to_disk(str(source))
    own = load_ratings(source, work=tmp_path / "a").frame["split"].value_counts().to_dict()
    assert own == {"train": 20, "val": 10, "test": 10}
    shares = {"train": 0.9, "test": 0.1}
    given = load_ratings(source, work=tmp_path / "b", fractions=shares).frame["split"]
    assert given.value_counts().to_dict() == {"train": 36, "test": 4}


def test_scenes_methods_and_ids_of_the_data_set_are_used(tmp_path):
    text, number = datasets.Value("string"), datasets.Value("int32")
    named = [
        eva_row(s, m, scene_id=s // 2, Method="ABC"[m], id=f"{s}-{m}")
        for s in range(EVA_SCENES)
        for m in range(EVA_METHODS)
    ]
    named.append(eva_row(1, 1, scene_id=0, Method="A", id="again") | {"fused": named[8]["fused"]})
    part = eva_dataset(named, scene_id=number, Method=text, id=text)
    part.to_parquet(str(tmp_path / "train.parquet"))
    frame = load_ratings(tmp_path / "train.parquet", work=tmp_path / "work").frame
    assert list(frame["method"]) == list("ABC") * EVA_SCENES
    assert list(frame["scene"].unique()) == ["0", "1", "2"]
    assert frame["source_pair"].nunique() == EVA_SCENES
    assert list(frame["original_id"])[:2] == ["0-0", "0-1"]
    assert_no_leak(frame)
    report = report_of(tmp_path / "work")
    assert report.skipped == {"repeated method": 1}
    assert report.notes == []


def test_pixels_alone_make_a_source_pair(tmp_path):
    """Grey or RGB, PNG or BMP: one pair, whose rows all name the first row's files."""
    ir, vis = synthetic_pair(0, 64, 80)
    rgb = {"bytes": encode(np.stack([vis] * 3, -1), "BMP"), "path": None}
    rows = [*eva_rows(), eva_row(0, 0, visible=rgb, fused={"bytes": encode(ir), "path": None})]
    eva_dataset(rows).to_parquet(str(tmp_path / "train.parquet"))
    frame = load_ratings(tmp_path / "train.parquet", work=tmp_path / "work").frame
    assert frame["source_pair"].iloc[-1] == frame["source_pair"][0]
    assert frame["vis"].iloc[-1] == frame["vis"][0]


def test_scores_flattened_and_images_without_a_type(tmp_path):
    """What is left of the schema in a Parquet file that another tool wrote."""
    flat = [
        row | {f"scores_{name}": score for name, score in EVA_SCORES.items()} for row in eva_rows()
    ]
    for row in flat:
        del row["scores"]
    pd.DataFrame(flat).to_parquet(tmp_path / "test.parquet")
    assert len(load_ratings(tmp_path / "test.parquet", work=tmp_path / "work")) == 18


@pytest.mark.parametrize("package", ["datasets", "imagehash"])
def test_a_missing_package_names_the_extra(doors, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"`{package}` .*'fuscore-metric\[train\]'"):
        load_ratings(doors / "single", work=tmp_path)


def test_summary_on_the_command_line(tmp_path, doors):
    result = CliRunner().invoke(
        app, ["import", str(doors / "several"), "--work", str(tmp_path), "--seed", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "18 rows read, 18 ratings kept" in result.output
    assert "skipped: none" in result.output
    assert "scenes in several splits 2" in result.output
    assert "no method names" in result.output
    table = read_ratings(tmp_path / "ratings.parquet")
    assert json.loads((tmp_path / "ratings.meta.json").read_text())["label_kind"] == "model"
    assert len(table) == 18


REAL_METHODS = ["ADF", "CBF", "CNN", "GFF", "GTF", "IFCNN", "LatLRR", "MSVD", "SeAFusion"]
REAL_METHODS += ["SwinFusion", "U2Fusion"]


@pytest.mark.real_data
def test_real_scenes_with_leaks_like_the_original(real_data, tmp_path, caplog):
    """21 scenes by 11 methods, cut 7,350 : 1,000 : 1,000 without regard to scenes."""
    rng, rows = np.random.default_rng(0), []
    for ir, vis in real_scenes(real_data, "VIFB"):
        for method in REAL_METHODS:
            fused = real_data / "VIFB/fused" / method / ir.name
            scores = dict(zip(SCORE_NAMES, rng.integers(2, 11, 5) / 2, strict=True))
            files = {"fused": fused, "infrared": ir, "visible": vis, "artifact_heatmap": fused}
            rows.append({k: {"bytes": v.read_bytes(), "path": None} for k, v in files.items()})
            rows[-1]["scores"] = scores
    # One scene comes again as what a download in another format is: both sources re-encoded.
    for row in rows[33:36]:
        again = dict(row)
        for name in ("infrared", "visible"):
            buffer = io.BytesIO()
            Image.open(io.BytesIO(row[name]["bytes"])).save(buffer, "JPEG", quality=60)
            again[name] = {"bytes": buffer.getvalue(), "path": None}
        rows.append(again)
    ends = [round(len(rows) * share) for share in (7350 / 9350, 8350 / 9350)]
    parts = {"train": rows[: ends[0]], "val": rows[ends[0] : ends[1]], "test": rows[ends[1] :]}
    save_parquet_folder({k: eva_dataset(v) for k, v in parts.items()}, tmp_path / "source")
    with caplog.at_level(logging.WARNING):
        frame = load_ratings(tmp_path / "source", work=tmp_path / "work").frame
    report = report_of(tmp_path / "work")
    assert (report.rows, report.kept, report.skipped) == (234, 234, {})
    assert frame["source_pair"].nunique() == 22
    assert frame["scene"].nunique() == 21
    leaks = report.facts["leakage_of_its_own_splits"]
    assert leaks["source_pairs_in_several_splits"] == 1  # the cut after row 184 is inside a scene
    assert leaks["scenes_in_several_splits"] == 2  # and the scene that comes again
    assert leaks["rows_of_a_train_scene"] == {"val": 3, "test": 3}
    assert "share 2 of 21 scenes" in caplog.text
    assert_no_leak(frame)
    sizes = frame["split"].value_counts(normalize=True)
    assert sizes["train"] == pytest.approx(7350 / 9350, abs=0.06)


@pytest.mark.network
def test_the_original(tmp_path):
    """Never run on the build machines; the numbers are those that its authors state."""
    table = load_ratings("HHOODD/EVAFusion_dataset", work=tmp_path)
    report = report_of(tmp_path)
    assert report.rows == 9350
    assert report.kept + sum(report.skipped.values()) == report.rows
    assert table.frame["source_pair"].nunique() <= 850
    assert_no_leak(table.frame)
