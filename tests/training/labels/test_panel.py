"""Viewers' opinions and pictures on disk -> a ratings table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuscore_training.fusions.drawn import MAKERS
from fuscore_training.labels.change_curves import read_curves
from fuscore_training.labels.panel import PANELS, read_panel
from fuscore_training.labels.viewer_ladders import (
    DAMAGE,
    LadderOptions,
    make_ladders,
)
from fuscore_training.labels.viewer_pictures import make_picture
from fuscore_training.ratings import RatingsError, write_ratings
from fuscore_training.split import read_split
from PIL import Image

from tests.helpers import ROOT

RATINGS = ROOT / "training" / "ratings"
SEEDED = ("made", "drawn", "copies", "colour_and_targets")
SUB = {"thermal_retention": 4.0, "texture_preservation": 3.0, "artifacts": 2.0, "sharpness": 3.5}


@pytest.fixture
def study(tmp_path):
    """A scene with a method that two viewers saw, damaged too, and a scene of drawn fusions."""
    rng = np.random.default_rng(0)
    data, ratings = tmp_path / "data", tmp_path / "ratings"
    scene = np.kron(rng.random((6, 8)), np.ones((16, 16)))
    sources = [f"S/{name}/{scene}.png" for name in ("ir", "vis") for scene in (1, 2)]
    for place in (*sources, "S/fused/A/1.png", "panel/damaged/a.png"):
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        picture = np.rint(255 * np.clip(scene + 0.1 * rng.random(scene.shape), 0, 1))
        Image.fromarray(picture.astype(np.uint8)).save(data / place)
    ratings.mkdir()
    item = {"set": "S", "scene": "1", "method": "A"}
    seen = [{**item, "viewer": v, "overall_0_100": o, **SUB} for v, o in (("A", 40), ("B", 60))]
    hurt = {**item, "image": "a.png", "kind": "blur", "strength": 1.5, "viewer": "A"}
    tables = dict.fromkeys(PANELS, seen[:0]) | {"fusions": seen}
    tables["damaged"] = [{**hurt, "overall_0_100": 25, **SUB}]
    drawn = {**hurt, "image": "b.png", "part": 1, "seed": 7}
    tables["colour_and_targets"] = [{**drawn, "overall_0_100": 30, **SUB}]
    both = {**item, "scene": "2", "method": "drawn", "kind": "none", "strength": 0, "part": 0}
    tables["drawn"] = [
        {**both, "image": f"{seed}.png", "seed": seed, "viewer": "A", "overall_0_100": 50, **SUB}
        for seed in (3, 4)
    ]
    for name, rows in tables.items():
        columns = [*hurt, "overall_0_100", *SUB] if name != "fusions" else [*seen[0]]
        columns += ["part", "seed"] if name in SEEDED else []
        pd.DataFrame(rows, columns=columns).to_csv(ratings / f"{name}.csv", index=False)
    (ratings / "visible_change.csv").write_bytes((RATINGS / "visible_change.csv").read_bytes())
    return ratings, data


def test_viewers_are_averaged_and_pictures_found(study, tmp_path):
    table = read_panel(*study, tmp_path / "viewed")
    clean, made, other, hurt, drawn = table.frame.to_dict("records")
    assert table.label_kind == "model"
    assert (clean["overall"], clean["viewers"]) == (3.0, 2)
    assert clean["spread"] == pytest.approx(0.4)
    assert clean["artifacts"] == 2.0
    assert (hurt["overall"], hurt["kind"], hurt["method"]) == (2.0, "blur", "A+blur=1.5")
    assert clean["scene"] == hurt["scene"] == "S/1"
    assert clean["source_pair"] != hurt["source_pair"]  # groups have scales of their own
    assert (made["method"], other["method"]) == ("drawn#3", "drawn#4")
    assert (drawn["overall"], drawn["method"]) == (pytest.approx(2.2), "A+blur=1.5#7")
    write_ratings(table, tmp_path / "table.csv")  # follows every rule of a ratings table


def test_a_missing_picture_is_named(study, tmp_path):
    (study[1] / "panel/damaged/a.png").unlink()
    with pytest.raises(RatingsError, match=r"a\.png"):
        read_panel(*study, tmp_path / "viewed")


def test_pictures_with_a_seed_are_made_alike(study, tmp_path):
    files = [
        Path(read_panel(*study, tmp_path / name).frame["fused"].iloc[-1]) for name in ("one", "two")
    ]
    assert files[0] == (tmp_path / "one" / "b.png").resolve()
    one, two = (np.asarray(Image.open(file)) for file in files)
    assert (one == two).all()
    changed = one != np.asarray(Image.open(study[1] / "S/fused/A/1.png"))
    assert 0.02 < changed.mean() < 0.6  # in a part


@pytest.mark.parametrize("method", MAKERS)
def test_made_fusions_are_drawn_from_their_sources(study, method):
    item = {"set": "S", "scene": "1", "method": method, "kind": "none"}
    made = [make_picture({**item, "seed": seed}, study[1]) for seed in range(12)]
    assert {picture.shape for picture in made} == {(96, 128)}
    assert all(0 <= picture.min() < picture.max() <= 1 for picture in made)
    assert (made[3] == make_picture({**item, "seed": 3}, study[1])).all()
    # Both sources are one scene here: fusions follow it, and differ from each other.
    plain = make_picture({**item, "method": "A", "seed": 0}, study[1])
    alike = [np.corrcoef(plain.ravel(), picture.ravel())[0, 1] for picture in made]
    assert min(alike) > 0.5
    assert len({round(float(picture.std()), 4) for picture in made}) == 12


def test_damage_lowers_what_viewers_said(study, tmp_path):
    options = LadderOptions(share=1.0, foreign=2, sources=1.0, workers=1)
    panel = read_panel(*study, tmp_path / "viewed")
    rows = make_ladders(panel, study[0], tmp_path / "made", options).frame
    assert all(Path(file).exists() for file in rows["fused"])
    assert not rows.duplicated(["source_pair", "method"]).any()
    ladders, controls = rows[rows["kind"] == "ladder"], rows[rows["kind"] == "control"]
    assert ladders["overall"].between(1, 3 - 1e-6).all()
    # Each drawn fusion was drawn again from damaged sources, the same for all of a scene.
    again = ladders[ladders["method"].str.contains("of sources")]
    assert sorted(again["method"].str.partition(" ")[0]) == ["drawn#3", "drawn#4"]
    assert again["ir"].nunique() == again["source_pair"].nunique() == 1
    assert (controls["overall"] == 1.1).all()
    assert (controls["other_scene"] != controls["scene"]).all()


def test_no_damaged_pictures_where_none_are_asked_for(study, tmp_path):
    options = LadderOptions(share=0.0, foreign=2, sources=0.0, workers=1)
    panel = read_panel(*study, tmp_path / "viewed")
    rows = make_ladders(panel, study[0], tmp_path / "made", options).frame
    assert set(rows["kind"]) == {"control"}


def test_what_is_committed_shows_no_test_scene_and_no_held_out_method():
    split = read_split(ROOT / "training" / "recipes" / "split.yaml")
    for name in PANELS:
        table = pd.read_csv(RATINGS / f"{name}.csv", dtype={"scene": str}, keep_default_na=False)
        assert not set(table["set"] + "/" + table["scene"]) & set(split.test)
        assert not set(table["method"]) & set(split.held_out_methods)


def test_every_kind_of_damage_has_a_curve_that_falls():
    curves = read_curves(RATINGS)
    for kind in DAMAGE:
        kept = curves[kind].kept([0, 0.05, 0.2, 0.4])
        assert kept[0] == 1
        assert (np.diff(kept) < 0).all()
