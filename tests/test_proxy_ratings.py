"""Proxy ratings of a tiny data folder: which rows there are, how they are rated, determinism."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuscore_training.classic_fusions import CLASSIC_FUSIONS
from fuscore_training.degradations import DEGRADATIONS
from fuscore_training.proxy_ratings import (
    HITS,
    SOURCE_KINDS,
    ProxyConfig,
    find_scenes,
    make_proxy_ratings,
    read_image,
)
from fuscore_training.ratings import SCORE_COLUMNS, read_ratings, split_by_scene
from fuscore_training.severity import ANCHORS, HUMAN_KINDS
from fuscore_training.sub_scores import SubScores
from PIL import Image

CONFIG = ProxyConfig(degraded=12, source_degraded=2, foreign=2, seed=0, workers=1)
SCENES = ["TNO/01", "VIFB/00", "VIFB/02"]
PLAIN = [f"plain_{name}" for name in CLASSIC_FUSIONS]


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_data) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture(scope="module")
def out(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("out")
    make_proxy_ratings(data, folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def table(out):
    return read_ratings(out / "ratings.parquet")


@pytest.fixture(scope="module")
def frame(table) -> pd.DataFrame:
    return table.frame


def of_kind(frame, kind):
    return frame[frame.kind == kind]


def test_kinds_of_damage_agree_across_the_modules():
    assert set(HITS) == set(DEGRADATIONS) == {*HUMAN_KINDS, *ANCHORS}
    assert set(SOURCE_KINDS) <= set(HUMAN_KINDS)


def test_scenes_are_found_with_the_methods_that_were_run(data):
    scenes = {scene.name: scene for scene in find_scenes(data)}
    assert sorted(scenes) == SCENES
    assert sorted(scenes["VIFB/00"].fused) == ["good", "soft"]
    assert sorted(scenes["TNO/01"].fused) == ["good"]
    assert scenes["TNO/01"].vis == data / "TNO" / "vis" / "01.png"


def test_no_scenes(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        find_scenes(tmp_path)


def test_the_table_says_that_it_is_proxy(table):
    assert table.label_kind == "proxy"
    assert "not human" in table.description


def test_rows_of_each_kind(frame):
    counts = frame.groupby(["scene", "kind"]).size().unstack()
    assert list(counts.index) == SCENES
    assert counts["method"].tolist() == [1, 2, 1]
    assert (counts["plain"] == len(CLASSIC_FUSIONS)).all()
    assert (counts["degraded"] == CONFIG.degraded).all()
    assert (counts["degraded_sources"] == 2 * CONFIG.source_degraded).all()
    assert (counts["control"] == 2 + CONFIG.foreign).all()
    assert set(of_kind(frame, "plain").method) == set(PLAIN)


def test_triples_share_one_size_and_images_exist(frame):
    for row in frame.itertuples():
        sizes = {Image.open(path).size for path in (row.ir, row.vis, row.fused)}
        assert sizes == {(64, 48)}


def test_existing_images_are_referred_to_not_copied(frame, data, out):
    kinds = of_kind(frame, "method")
    assert all(Path(path).is_relative_to(data) for path in kinds.fused)
    assert all(Path(path).is_relative_to(out) for path in of_kind(frame, "degraded").fused)


def test_source_pairs(frame):
    """A degraded source pair is a pair of its own, of the same scene, in the same split."""
    damaged = of_kind(frame, "degraded_sources")
    for scene in SCENES:
        own = frame[frame.scene == scene]
        pairs = {scene, *(f"{scene}#{number}" for number in range(CONFIG.source_degraded))}
        assert set(own.source_pair) == pairs
        rest = own.drop(damaged.index, errors="ignore")
        assert set(rest.source_pair) == {scene}
        assert own.groupby("source_pair")[["ir", "vis"]].nunique().eq(1).all(axis=None)
    assert damaged.groupby("source_pair").size().eq(2).all()


def test_degraded_sources_differ_from_the_clean_ones(frame):
    clean = frame[frame.kind == "plain"].groupby("scene").first()
    for row in of_kind(frame, "degraded_sources").itertuples():
        for name in ("ir", "vis"):
            before, after = read_image(Path(clean.loc[row.scene, name])), getattr(row, name)
            assert not np.array_equal(before, read_image(Path(after)))


def test_the_overall_rating_of_pristine_images_follows_from_their_sub_scores(frame):
    for row in frame[frame.kind.isin(["method", "plain"])].itertuples():
        four = (getattr(row, name) for name in SCORE_COLUMNS[1:])
        assert row.overall == pytest.approx(SubScores(*four).overall)


def test_damage_lowers_every_score_of_its_base(frame):
    bases = frame[frame.kind.isin(["method", "plain"])].set_index(["scene", "method"])
    damaged = frame[frame.kind.isin(["degraded", "degraded_sources"])]
    assert len(damaged) == 3 * (CONFIG.degraded + 2 * CONFIG.source_degraded)
    for row in damaged.itertuples():
        base = bases.loc[(row.scene, row.method.split("+")[0].removesuffix(" of sources"))]
        assert row.overall < base.overall
        for name in SCORE_COLUMNS[1:]:
            # A sub-score of 1 can't fall.
            assert getattr(row, name) < base[name] or base[name] == 1


def test_one_or_two_kinds_of_damage_with_their_strengths(frame):
    numbers = []
    for method in of_kind(frame, "degraded").method:
        _, *kinds = method.split("#")[0].split("+")
        numbers.append(len(kinds))
        for kind in kinds:
            name, strength = kind.split("=")
            _, low, high = DEGRADATIONS[name]
            assert 0.99 * low <= float(strength) <= 1.01 * high
    assert set(numbers) == {1, 2}


def test_controls_are_rated_low(frame):
    controls = of_kind(frame, "control").set_index("method")
    assert (controls.filter(like="foreign", axis=0).overall == 1.1).all()
    assert (controls.loc["copy_of_ir", "texture_preservation"] == 1).all()
    assert (controls.loc["copy_of_vis", "thermal_retention"] == 1).all()
    copies = controls.filter(like="copy", axis=0)
    assert len(copies) == 6
    assert (copies.overall <= 2.5).all()
    for name, path in (("copy_of_ir", "ir"), ("copy_of_vis", "vis")):
        assert (controls.loc[name, "fused"] == controls.loc[name, path]).all()


def test_foreign_images_are_of_another_scene(frame):
    own = frame[frame.kind.isin(["method", "plain"])]
    for row in frame[frame.method.str.startswith("foreign")].itertuples():
        foreign = Image.open(row.fused).convert("L").tobytes()
        same = {Image.open(p).convert("L").tobytes() for p in own[own.scene == row.scene].fused}
        assert foreign not in same


def test_the_same_seed_gives_the_same_table_and_pixels(data, out, frame, tmp_path):
    make_proxy_ratings(data, tmp_path, CONFIG)
    again = read_ratings(tmp_path / "ratings.parquet").frame
    paths = ["ir", "vis", "fused"]
    pd.testing.assert_frame_equal(again.drop(columns=paths), frame.drop(columns=paths))
    for column in paths:
        for one, other in zip(frame[column], again[column], strict=True):
            assert Path(one).read_bytes() == Path(other).read_bytes()


def test_another_seed_gives_other_damage(data, frame, tmp_path):
    make_proxy_ratings(data, tmp_path, ProxyConfig(4, 1, 1, seed=1, workers=1))
    other = read_ratings(tmp_path / "ratings.parquet").frame
    assert not set(of_kind(other, "degraded").method) & set(of_kind(frame, "degraded").method)
    pristine = ["method", "plain"]
    columns = ["scene", "method", *SCORE_COLUMNS]
    pd.testing.assert_frame_equal(
        other[other.kind.isin(pristine)][columns].reset_index(drop=True),
        frame[frame.kind.isin(pristine)][columns].reset_index(drop=True),
    )


def test_a_scene_stays_in_one_split(table):
    parts = split_by_scene(table, fractions={"train": 0.34, "val": 0.33, "test": 0.33})
    scenes = [set(part.frame["scene"]) for part in parts.values()]
    assert sorted(map(len, scenes)) == [1, 1, 1]


@pytest.mark.parametrize("place", ["ir", "vis"])
def test_a_missing_source_is_named(make_data, tmp_path, place):
    data = make_data(tmp_path, 2)
    (data / "VIFB" / place / "00.png").unlink()
    if place == "ir":  # a visible image without an infrared one is no scene
        assert [scene.name for scene in find_scenes(data)] == ["TNO/01"]
        return
    with pytest.raises(ValueError, match=r"00\.png"):
        find_scenes(data)
