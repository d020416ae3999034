"""Proxy ratings of a tiny data folder: which rows there are, how they are rated, determinism."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuscore_training.fusions.classic import CLASSIC_FUSIONS
from fuscore_training.labels.degradations import DEGRADATIONS
from fuscore_training.labels.proxy_ratings import (
    LADDER_STEPS,
    SOURCE_KINDS,
    ProxyConfig,
    find_scenes,
    make_proxy_ratings,
    read_image,
)
from fuscore_training.labels.severity import ANCHORS, HITS, HUMAN_KINDS, fit_severity
from fuscore_training.labels.sub_scores import SubScores
from fuscore_training.ratings import SCORE_COLUMNS, read_ratings, split_by_scene
from PIL import Image

CONFIG = ProxyConfig(ladders=4, mixed=4, local=4, source_degraded=2, foreign=2, seed=0, workers=1)
DEGRADED = LADDER_STEPS * CONFIG.ladders + CONFIG.mixed + CONFIG.local
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


DAMAGE = re.compile(r"(?P<base>\w+)\+(?P<kinds>[^ #]+)(?: on (?P<share>[\d.]+))?#(?P<number>\d+)")


@pytest.fixture(scope="module")
def degraded(frame) -> pd.DataFrame:
    """Damaged fusions with what their names say (`kinds`, ...) and their base's `base_overall`."""
    rows = of_kind(frame, "degraded")
    pristine = frame[frame.kind.isin(["method", "plain"])].set_index(["scene", "method"])
    named = rows.method.map(lambda name: DAMAGE.fullmatch(name).groupdict())
    parts = named.map(lambda name: [one.split("=") for one in name["kinds"].split("+")])
    return rows.assign(
        base_overall=[
            pristine.loc[key, "overall"] for key in zip(rows.scene, rows.base, strict=True)
        ],
        number=named.map(lambda name: int(name["number"])),
        share=named.map(lambda name: float(name["share"] or 1)),
        kinds=parts.map(lambda kinds: tuple(kind for kind, _ in kinds)),
        strengths=parts.map(lambda kinds: tuple(float(strength) for _, strength in kinds)),
    )


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
    assert (counts["degraded"] == DEGRADED).all()
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
    assert len(damaged) == 3 * (DEGRADED + 2 * CONFIG.source_degraded)
    for row in damaged.itertuples():
        assert row.method.split("+")[0].removesuffix(" of sources") == row.base
        base = bases.loc[(row.scene, row.base)]
        assert row.overall < base.overall
        for name in SCORE_COLUMNS[1:]:
            # A sub-score of 1 can't fall.
            assert getattr(row, name) < base[name] or base[name] == 1


def test_damage_is_named_with_its_strengths_in_ladders_mixtures_and_parts(degraded):
    for _, own in degraded.groupby("scene"):
        assert sorted(own.number) == list(range(DEGRADED))
        whole = own[own.share == 1].set_index("number").sort_index()
        kinds = whole.kinds.map(len).tolist()
        ladders = LADDER_STEPS * CONFIG.ladders
        assert kinds == [1] * ladders + [2] * CONFIG.mixed
        steps = whole.head(ladders)[["base", "kinds"]].agg(tuple, axis=1).to_numpy()
        for ladder in steps.reshape(CONFIG.ladders, LADDER_STEPS):
            assert len(set(ladder)) == 1
        local = own[own.share < 1]
        assert local.kinds.map(len).tolist() == [1] * CONFIG.local
        assert local.share.between(0.09, 0.51).all()
    for row in degraded.itertuples():
        assert len(set(row.kinds)) == len(row.kinds)
        for kind, strength in zip(row.kinds, row.strengths, strict=True):
            _, low, high = DEGRADATIONS[kind]
            assert 0.99 * low <= strength <= 1.01 * high


def test_ladders_fall_with_strength(degraded):
    """Of one base and one kind, the stronger damage is rated lower, in every respect."""
    whole = degraded[(degraded.share == 1) & (degraded.kinds.map(len) == 1)]
    ladders = [own for _, own in whole.groupby(["scene", "base", "kinds"])]
    assert 3 * 2 <= len(ladders) <= 3 * CONFIG.ladders
    assert len({own.kinds.iloc[0] for own in ladders}) > 4
    for own in ladders:
        steps = own.sort_values("strengths")
        assert len(steps) >= LADDER_STEPS
        assert (steps.overall.diff().dropna() < 0).all()
        for name in SCORE_COLUMNS[1:]:
            assert (steps[name].diff().dropna() <= 0).all()


def test_mixtures_keep_what_both_kinds_leave(degraded, data):
    severity = fit_severity(data / "human_severity.csv")
    mixed = degraded[degraded.kinds.map(len) == 2]
    assert len(mixed) == 3 * CONFIG.mixed
    for row in mixed.itertuples():
        each = zip(row.kinds, row.strengths, strict=True)
        kept = np.prod([severity.retention(kind, strength) for kind, strength in each])
        assert row.overall - 1 == pytest.approx((row.base_overall - 1) * kept, rel=5e-3)


def test_damage_to_a_part_counts_by_the_root_of_its_share(degraded, data):
    severity = fit_severity(data / "human_severity.csv")
    local = degraded[degraded.share < 1]
    assert len(local) == 3 * CONFIG.local
    for row in local.itertuples():
        lost = 1 - severity.retention(row.kinds[0], row.strengths[0])
        kept = 1 - lost * np.sqrt(row.share)
        assert row.overall - 1 == pytest.approx((row.base_overall - 1) * kept, rel=5e-3)


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


def test_damage_to_a_part_leaves_the_rest(degraded, frame):
    """What changed fits into a rectangle of the share named, but for 8 pixels of soft edge."""
    own = frame[frame.kind.isin(["method", "plain"])].set_index(["scene", "method"])
    local = degraded[degraded.share < 1]
    for row in local.itertuples():
        base = read_image(Path(own.loc[(row.scene, row.base), "fused"]))
        change = np.abs(read_image(Path(row.fused)) - base).reshape(48, 64, -1).max(-1)
        sides = [np.flatnonzero((change > 1.5 / 255).any(axis)) for axis in (1, 0)]
        height, width = (max(0, np.ptp(side) + 1 - 16) if len(side) else 0 for side in sides)
        assert height * width / change.size <= row.share + 0.01
    assert (local.share < 0.4).sum() > 3  # or the margins would leave nothing to see


def test_the_base_column_names_the_method_behind_the_pixels(frame):
    """It keeps held-out methods out of training: copies of a source come from none."""
    pristine = frame[frame.kind.isin(["method", "plain"])]
    assert (pristine.base == pristine.method).all()
    sources = of_kind(frame, "degraded_sources")
    assert set(sources.base) == {"plain_average", "plain_laplacian_pyramid"}
    copies = frame[frame.method.str.startswith("copy")]
    assert (copies.base == "").all()
    foreign = frame[frame.method.str.startswith("foreign")]
    assert set(foreign.base) <= {"good", "soft", "plain_laplacian_pyramid"}
    assert "plain_laplacian_pyramid" in set(foreign.base)
    assert {"good", "soft"} & set(foreign.base)
    assert set(of_kind(frame, "degraded").base) <= set(pristine.method)


def test_no_two_methods_of_a_source_pair_share_a_name(frame):
    """Two draws of a ladder may agree in every digit that is printed."""
    assert not frame.duplicated(["source_pair", "method"]).any()
    numbered = of_kind(frame, "degraded").method.str.contains(r"#\d+$")
    assert numbered.all()


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
    small = ProxyConfig(ladders=1, mixed=1, local=1, foreign=1, seed=1, workers=1)
    make_proxy_ratings(data, tmp_path, small)
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
