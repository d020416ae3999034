"""EVAFusion's importer on planted faults: skipped, counted exactly and listed, or refused."""

import logging

import datasets
import numpy as np
import pytest
from fuscore_training.importers import eva_fusion
from fuscore_training.importers.eva_fusion import load_ratings
from fuscore_training.ratings import RatingsError

from tests.helpers.scenes import synthetic_pair
from tests.training.importers.conftest import (
    EVA_METHODS,
    EVA_SCORES,
    assert_no_leak,
    encode,
    eva_dataset,
    eva_row,
    report_of,
)


def faulty_splits(gone):
    """Every fault once or more, among good rows; scene 5 is only near-duplicates of scene 0."""
    rows = {key: eva_row(*key) for key in ((s, m) for s in range(5) for m in range(EVA_METHODS))}
    ir, vis = synthetic_pair(0, 64, 80)
    cut = rows[1, 0]["fused"]["bytes"]
    wide = encode(np.full((64, 96), 0.5))
    copy = {
        "infrared": {"bytes": encode(ir, "JPEG", quality=90), "path": None},
        "visible": {"bytes": encode(vis, "JPEG", quality=90), "path": None},
    }
    lossless = {"infrared": {"bytes": encode(ir, "BMP"), "path": None}}
    bad = [
        eva_row(1, 0, visible=None),
        eva_row(1, 0, fused={"bytes": None, "path": str(gone)}),
        eva_row(1, 0, fused={"bytes": cut[: len(cut) // 2], "path": None}),
        eva_row(1, 0, infrared={"bytes": b"no image", "path": None}),
        eva_row(1, 0, scores=EVA_SCORES | {"Sharpness": float("nan")}),
        eva_row(1, 0, scores=EVA_SCORES | {"Overall Score": None}),
        eva_row(1, 0, scores=EVA_SCORES | {"Artifacts": 7.0}),
        eva_row(1, 0, scores=EVA_SCORES | {"Artifacts": 0.5}),
        eva_row(1, 0, fused={"bytes": wide, "path": None}),
        rows[2, 0],
    ]
    train = [rows[s, m] for s in (0, 1, 2) for m in range(EVA_METHODS)] + bad
    val = [rows[3, m] for m in range(EVA_METHODS)] + [eva_row(0, 1) | copy]
    test = [rows[4, m] for m in range(EVA_METHODS)] + [eva_row(0, 2) | lossless, rows[3, 0]]
    return {"train": train, "validation": val, "test": test}


def test_faults_are_skipped_counted_and_listed(tmp_path, caplog):
    source, gone = tmp_path / "faulty", tmp_path / "gone.png"
    gone.touch()
    parts = {name: eva_dataset(rows) for name, rows in faulty_splits(gone).items()}
    datasets.DatasetDict(parts).save_to_disk(str(source))
    gone.unlink()
    with caplog.at_level(logging.WARNING):
        frame = load_ratings(source, work=tmp_path / "work").frame
    report = report_of(tmp_path / "work")
    assert report.rows == 28
    assert report.kept == len(frame) == 16
    assert report.skipped == {
        "repeated fused image": 3,  # once in its split, once across splits, once re-encoded sources
        "missing image": 2,
        "broken image": 2,
        "missing score": 2,
        "score out of range": 2,
        "unequal sizes": 1,
    }
    listed = [(row["split"], row["row"], row["reason"]) for row in report.skipped_rows]
    assert listed[:10] == [
        ("train", 9, "missing image"),
        ("train", 10, "missing image"),
        ("train", 11, "broken image"),
        ("train", 12, "broken image"),
        ("train", 13, "missing score"),
        ("train", 14, "missing score"),
        ("train", 15, "score out of range"),
        ("train", 16, "score out of range"),
        ("train", 17, "unequal sizes"),
        ("train", 18, "repeated fused image"),
    ]
    assert sorted(listed[10:]) == [
        ("test", 3, "repeated fused image"),
        ("test", 4, "repeated fused image"),
    ]
    details = [row["detail"] for row in report.skipped_rows]
    assert details[0] == "vis: no image"
    assert details[1] == "fused: no such file gone.png"  # all that datasets keeps
    assert "80" in details[8]
    assert "96" in details[8]
    # Scene 0 and its re-encoded copy are two source pairs of one scene.
    assert frame["source_pair"].nunique() == 6
    assert frame["scene"].nunique() == 5
    assert report.facts["source_pairs_with_a_near_duplicate"] == 2
    assert report.facts["leakage_of_its_own_splits"] == {
        "source_pairs": 6,
        "source_pairs_in_several_splits": 2,  # 0 (as BMP) and 3
        "scenes": 5,
        "scenes_in_several_splits": 2,
        "rows_of_a_train_scene": {"val": 1, "test": 1},
    }
    (warning,) = [one.getMessage() for one in caplog.records if one.name == eva_fusion.__name__]
    assert "share 2 of 5 scenes" in warning
    near = frame[frame["original_split"].eq("val")].iloc[-1]
    assert near["scene"] == frame["scene"][0]
    assert near["source_pair"] != frame["source_pair"][0]
    assert_no_leak(frame)


def bad_sources(folder):
    folder.mkdir()
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("x")
    eva_dataset([eva_row(s, 0, visible=None) for s in range(3)]).to_parquet(
        str(folder / "bad.parquet")
    )
    eva_dataset([eva_row(0, m) for m in range(EVA_METHODS)]).to_parquet(str(folder / "one.parquet"))
    return folder


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere.parquet", {}, "hub id"),
        ("no such/folder/at all", {}, "hub id"),
        ("empty", {}, "Parquet files"),
        ("file.txt", {}, "Parquet files"),
        ("bad.parquet", {"revision": "main"}, "revision"),
        ("bad.parquet", {}, "no row can be used.*'missing image': 3"),
        ("one.parquet", {}, "unrelated scenes"),
        ("one.parquet", {"fractions": {"train": 2.0}}, "sum 1"),
        ("none.csv", {}, "no such ratings table"),
    ],
)
def test_bad_sources(tmp_path, source, options, words):
    folder = bad_sources(tmp_path / "sources")
    with pytest.raises(RatingsError, match=words):
        load_ratings(folder / source, work=tmp_path / "work", **options)
    assert not (tmp_path / "work/import_key.json").exists()


def test_a_failed_import_still_leaves_its_report(tmp_path):
    source = bad_sources(tmp_path / "sources") / "bad.parquet"
    with pytest.raises(RatingsError):
        load_ratings(source, work=tmp_path / "work")
    assert report_of(tmp_path / "work").skipped == {"missing image": 3}
