"""EVAFusion's importer: every door, planted faults with exact counts, leaks found and mended.

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
from fuscore_training import eva_fusion
from fuscore_training.cli import app
from fuscore_training.dataset_columns import find_columns
from fuscore_training.eva_fusion import load_ratings
from fuscore_training.import_report import read_report
from fuscore_training.imported_images import perceptual_hash
from fuscore_training.ratings import (
    SCORE_COLUMNS,
    RatingsError,
    RatingsTable,
    read_ratings,
    split_by_scene,
    write_ratings,
)
from fuscore_training.scene_groups import NEAR_BITS, near_pairs
from PIL import Image
from typer.testing import CliRunner

from fuscore_metric.images import as_images
from tests.conftest import synthetic_pair

SCORE_NAMES = [
    "Thermal Retention",
    "Texture Preservation",
    "Artifacts",
    "Sharpness",
    "Overall Score",
]
GOOD = dict(zip(SCORE_NAMES, [4.0, 3.0, 2.0, 5.0, 3.5], strict=True))
METHODS = 3
SCENES = 6


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def triple(scene, method, **changes):
    """A row of the schema: sources by scene, a fusion by scene and method."""
    ir, vis = synthetic_pair(scene, 64, 80)
    share = (method + 1) / (METHODS + 1)
    images = {
        "fused": encode(share * ir + (1 - share) * vis),
        "infrared": encode(ir),
        "visible": encode(vis),
        "artifact_heatmap": encode(ir * 0),
    }
    files = {name: {"bytes": data, "path": f"{scene}.png"} for name, data in images.items()}
    return {**files, "scores": GOOD} | changes


def clean_rows():
    return [triple(scene, method) for scene in range(SCENES) for method in range(METHODS)]


def features(**more):
    image, number = datasets.Image(), datasets.Value("float32")
    images = dict.fromkeys(("fused", "infrared", "visible", "artifact_heatmap"), image)
    return datasets.Features(images | {"scores": dict.fromkeys(SCORE_NAMES, number)} | more)


def dataset(rows, **more):
    return datasets.Dataset.from_list(rows, features=features(**more))


def leaky(rows):
    """Splits cut without regard to scenes: 10, 4 and 4 rows of 6 scenes by 3 methods."""
    return datasets.DatasetDict(
        train=dataset(rows[:10]), validation=dataset(rows[10:14]), test=dataset(rows[14:])
    )


def report_of(work):
    return read_report(work / "import_report.json")


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
    folder, rows = tmp_path_factory.mktemp("doors"), clean_rows()
    dataset(rows).save_to_disk(str(folder / "single"))
    leaky(rows).save_to_disk(str(folder / "several"))
    dataset(rows).to_parquet(str(folder / "train.parquet"))
    dataset(rows).to_parquet(str(folder / "ratings.parquet"))
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
    assert frame["source_pair"].nunique() == frame["scene"].nunique() == SCENES
    assert list(frame["method"]) == ["unnamed-01", "unnamed-02", "unnamed-03"] * SCENES
    expected = {"overall": 3.5, "thermal_retention": 4, "texture_preservation": 3}
    expected |= {"artifacts": 2, "sharpness": 5}
    assert frame[list(SCORE_COLUMNS)].drop_duplicates().to_dict("records") == [expected]
    assert frame.groupby("source_pair")["split"].nunique().eq(1).all()
    assert set(frame["split"]) == {"train", "val", "test"}
    # Original bytes, each content once.
    assert len(list((tmp_path / "images").rglob("*.png"))) == 18 + 2 * SCENES
    row = triple(2, 1)
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
        return leaky(clean_rows())

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
    dataset(clean_rows()[:9]).to_parquet(str(source))
    assert len(load_ratings(source, work=work)) == 9
    assert len(opened) == 3


def test_a_ratings_table_is_just_read(tmp_path, doors):
    table = load_ratings(doors / "single", work=tmp_path / "work")
    for name in ("ratings.csv", "other.parquet"):
        write_ratings(RatingsTable(table.frame, "human", "ours"), tmp_path / name)
        again = load_ratings(tmp_path / name, work=tmp_path / "unused")
        assert (again.label_kind, len(again)) == ("human", 18)
    assert not (tmp_path / "unused").exists()


def faulty_splits(gone):
    """Every fault once or more, among good rows; scene 5 is only near-duplicates of scene 0."""
    rows = {key: triple(*key) for key in ((s, m) for s in range(5) for m in range(METHODS))}
    ir, vis = synthetic_pair(0, 64, 80)
    cut = rows[1, 0]["fused"]["bytes"]
    wide = encode(np.full((64, 96), 0.5))
    copy = {
        "infrared": {"bytes": encode(ir, "JPEG", quality=90), "path": None},
        "visible": {"bytes": encode(vis, "JPEG", quality=90), "path": None},
    }
    lossless = {"infrared": {"bytes": encode(ir, "BMP"), "path": None}}
    bad = [
        triple(1, 0, visible=None),
        triple(1, 0, fused={"bytes": None, "path": str(gone)}),
        triple(1, 0, fused={"bytes": cut[: len(cut) // 2], "path": None}),
        triple(1, 0, infrared={"bytes": b"no image", "path": None}),
        triple(1, 0, scores=GOOD | {"Sharpness": float("nan")}),
        triple(1, 0, scores=GOOD | {"Overall Score": None}),
        triple(1, 0, scores=GOOD | {"Artifacts": 7.0}),
        triple(1, 0, scores=GOOD | {"Artifacts": 0.5}),
        triple(1, 0, fused={"bytes": wide, "path": None}),
        rows[2, 0],
    ]
    train = [rows[s, m] for s in (0, 1, 2) for m in range(METHODS)] + bad
    val = [rows[3, m] for m in range(METHODS)] + [triple(0, 1) | copy]
    test = [rows[4, m] for m in range(METHODS)] + [triple(0, 2) | lossless, rows[3, 0]]
    return {"train": train, "validation": val, "test": test}


def test_faults_are_skipped_counted_and_listed(tmp_path, caplog):
    source, gone = tmp_path / "faulty", tmp_path / "gone.png"
    gone.touch()
    parts = {name: dataset(rows) for name, rows in faulty_splits(gone).items()}
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


def assert_no_leak(frame):
    for column in ("scene", "source_pair", "ir", "vis"):
        assert frame.groupby(column)["split"].nunique().eq(1).all()
    split_by_scene(RatingsTable(frame, "model"))  # obeys `split`, and raises if sources are shared


def test_our_split_keeps_the_data_sets_proportions(tmp_path):
    rows = [triple(scene, method) for scene in range(20) for method in range(2)]
    parts = {"train": rows[:20], "valid": rows[20:30], "test": rows[30:]}
    source = tmp_path / "source"
    datasets.DatasetDict({k: dataset(v) for k, v in parts.items()}).save_to_disk(str(source))
    own = load_ratings(source, work=tmp_path / "a").frame["split"].value_counts().to_dict()
    assert own == {"train": 20, "val": 10, "test": 10}
    shares = {"train": 0.9, "test": 0.1}
    given = load_ratings(source, work=tmp_path / "b", fractions=shares).frame["split"]
    assert given.value_counts().to_dict() == {"train": 36, "test": 4}


def test_scenes_methods_and_ids_of_the_data_set_are_used(tmp_path):
    text, number = datasets.Value("string"), datasets.Value("int32")
    named = [
        triple(s, m, scene_id=s // 2, Method="ABC"[m], id=f"{s}-{m}")
        for s in range(SCENES)
        for m in range(METHODS)
    ]
    named.append(triple(1, 1, scene_id=0, Method="A", id="again") | {"fused": named[8]["fused"]})
    part = dataset(named, scene_id=number, Method=text, id=text)
    part.to_parquet(str(tmp_path / "train.parquet"))
    frame = load_ratings(tmp_path / "train.parquet", work=tmp_path / "work").frame
    assert list(frame["method"]) == list("ABC") * SCENES
    assert list(frame["scene"].unique()) == ["0", "1", "2"]
    assert frame["source_pair"].nunique() == SCENES
    assert list(frame["original_id"])[:2] == ["0-0", "0-1"]
    assert_no_leak(frame)
    report = report_of(tmp_path / "work")
    assert report.skipped == {"repeated method": 1}
    assert report.notes == []


def test_pixels_alone_make_a_source_pair(tmp_path):
    """Grey or RGB, PNG or BMP: one pair, whose rows all name the first row's files."""
    ir, vis = synthetic_pair(0, 64, 80)
    rgb = {"bytes": encode(np.stack([vis] * 3, -1), "BMP"), "path": None}
    rows = [*clean_rows(), triple(0, 0, visible=rgb, fused={"bytes": encode(ir), "path": None})]
    dataset(rows).to_parquet(str(tmp_path / "train.parquet"))
    frame = load_ratings(tmp_path / "train.parquet", work=tmp_path / "work").frame
    assert frame["source_pair"].iloc[-1] == frame["source_pair"][0]
    assert frame["vis"].iloc[-1] == frame["vis"][0]


SPELLINGS = [
    {"scores": dict.fromkeys(SCORE_NAMES)},
    {"Scores": {name.lower().replace(" ", "_"): None for name in SCORE_NAMES}},
    {"scores." + name: None for name in SCORE_NAMES},
    {"scores_" + name.replace(" ", "") for name in SCORE_NAMES},
    dict.fromkeys(["OVERALL", "thermal-retention", "texturePreservation", "artifact", "Sharpness"]),
]
IMAGE_COLUMNS = [
    ["fused", "infrared", "visible"],
    ["Fused Image", "IR", "VIS"],
    ["fusion", "infrared_image", "visible_image"],
]


@pytest.mark.parametrize("scores", SPELLINGS)
@pytest.mark.parametrize("images", IMAGE_COLUMNS)
def test_spellings(scores, images):
    scores = scores if isinstance(scores, dict) else dict.fromkeys(scores)
    found = find_columns(dict.fromkeys(images) | {"artifact_heatmap": None} | scores)
    assert list(found.images.values()) == [(images[1],), (images[2],), (images[0],)]
    assert list(found.scores) == list(SCORE_COLUMNS)
    assert len(set(found.scores.values())) == 5
    assert "artifact_heatmap" not in found.top_level


def test_scores_flattened_and_images_without_a_type(tmp_path):
    """What is left of the schema in a Parquet file that another tool wrote."""
    flat = [row | {f"scores_{name}": score for name, score in GOOD.items()} for row in clean_rows()]
    for row in flat:
        del row["scores"]
    pd.DataFrame(flat).to_parquet(tmp_path / "test.parquet")
    assert len(load_ratings(tmp_path / "test.parquet", work=tmp_path / "work")) == 18


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("visible"), ["'visible'", "there: fused, infrared", "scores.Sharpness"]),
        (lambda f: f["scores"].pop("Sharpness"), ["'sharpness'", "scores.Overall Score"]),
        (lambda f: f.update(overall=None), ["'overall'", "several", "scores.Overall Score"]),
        (lambda f: f.clear(), ["'infrared'", "there: none"]),
    ],
)
def test_bad_columns(change, words):
    there = dict.fromkeys(["fused", "infrared", "visible"]) | {"scores": dict.fromkeys(SCORE_NAMES)}
    change(there)
    with pytest.raises(RatingsError) as caught:
        find_columns(there)
    assert [word for word in words if word not in str(caught.value)] == []


def bad_sources(folder):
    folder.mkdir()
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("x")
    dataset([triple(s, 0, visible=None) for s in range(3)]).to_parquet(str(folder / "bad.parquet"))
    dataset([triple(0, m) for m in range(METHODS)]).to_parquet(str(folder / "one.parquet"))
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


@pytest.mark.parametrize("package", ["datasets", "imagehash"])
def test_a_missing_package_names_the_extra(doors, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"`{package}` .*'fuscore-metric\[train\]'"):
        load_ratings(doors / "single", work=tmp_path)


def test_a_failed_import_still_leaves_its_report(tmp_path):
    source = bad_sources(tmp_path / "sources") / "bad.parquet"
    with pytest.raises(RatingsError):
        load_ratings(source, work=tmp_path / "work")
    assert report_of(tmp_path / "work").skipped == {"missing image": 3}


def test_near_pairs_are_those_within_the_bits_in_both():
    rng = np.random.default_rng(0)
    ir, vis = rng.random((2, 1500, 256)) > 0.5  # more than one block
    for copy, (flips_ir, flips_vis) in {
        3: (NEAR_BITS, 0),
        1100: (0, NEAR_BITS),
        1200: (NEAR_BITS + 1, 0),
        1400: (0, NEAR_BITS + 1),
    }.items():
        ir[copy], vis[copy] = ir[2], vis[2]
        ir[copy, :flips_ir] ^= True
        vis[copy, :flips_vis] ^= True
    found = {tuple(pair) for pair in near_pairs(ir, vis)}
    differ = [(one[:, None] != one[None]).sum(-1, dtype=np.int16) for one in (ir, vis)]
    close = np.triu(np.maximum(*differ) <= NEAR_BITS, 1)
    assert found == set(zip(*np.nonzero(close), strict=True))
    assert {(2, 3), (2, 1100)} <= found
    assert not {(2, 1200), (2, 1400)} & found
    assert near_pairs(ir[:0], vis[:0]).shape == (0, 2)


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


def real_scenes(folder, name):
    for ir in sorted((folder / name / "ir").iterdir()):
        yield ir, next((folder / name / "vis").glob(f"{ir.stem}.*"))


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
    save_parquet_folder({k: dataset(v) for k, v in parts.items()}, tmp_path / "source")
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


@pytest.mark.real_data
def test_threshold_on_all_real_scenes(real_data):
    """What `NEAR_BITS` says of itself: 278 pairs, four neighbours found, no unrelated scenes."""
    sets = ("VIFB", "TNO", "RoadScene", "MSRS", "M3FD", "FMB")
    files = [pair for name in sets for pair in real_scenes(real_data, name)]
    hashes = [
        (perceptual_hash(as_images(ir, "ir")[0]), perceptual_hash(as_images(vis, "vis")[0]))
        for ir, vis in files
    ]
    ir, vis = (np.array(ones) for ones in zip(*hashes, strict=True))
    assert len(files) == 278
    found = {frozenset((files[i][0].stem, files[j][0].stem)) for i, j in near_pairs(ir, vis)}
    assert found == {
        frozenset(("FLIR_06099", "FLIR_06128")),
        frozenset(("FLIR_07119", "FLIR_07125")),
        frozenset(("FLIR_09437", "FLIR_video_02223")),
        frozenset(("FLIR_09465", "FLIR_video_02829")),
    }
    # The margin: the next is a neighbour too, at 100; the first unrelated pair is at 102.
    assert len(near_pairs(ir, vis, bits=100)) == 5
    assert len(near_pairs(ir, vis, bits=101)) == 5


@pytest.mark.network
def test_the_original(tmp_path):
    """Never run on the build machines; the numbers are those that its authors state."""
    table = load_ratings("HHOODD/EVAFusion_dataset", work=tmp_path)
    report = report_of(tmp_path)
    assert report.rows == 9350
    assert report.kept + sum(report.skipped.values()) == report.rows
    assert table.frame["source_pair"].nunique() <= 850
    assert_no_leak(table.frame)
