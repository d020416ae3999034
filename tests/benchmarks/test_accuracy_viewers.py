"""Agreement with viewers, on made-up tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fuscore_training.split import Split, read_split
from PIL import Image

from benchmarks.accuracy import results, trust, viewer_results, viewers
from benchmarks.accuracy.panel import TABLES, read_panel
from benchmarks.accuracy.viewer_results import (
    MEASURES,
    RESULTS,
    VIEWERS,
    agree,
    fuscore_column,
    order_tau,
    published_ranks,
    what_is_kept,
)
from benchmarks.accuracy.viewer_tables import write_tables
from fuscore_metric.prompts import ASPECTS

SCENES = ("00", "01", "02", "03")
METHODS = ("m0", "m1", "m2", "m3", "m4", "held")
SINGLE = {
    "drawn": {"method": "drawn", "kind": "none", "image": "01_drawn_7.png", "seed": 7},
    "copies": {"method": "copy_of_ir", "kind": "copy", "image": "", "seed": -1},
}
"""Tables of one picture of scene 01, which is made from its seed or is a source itself."""
FULL = [table for table in TABLES if table not in SINGLE]
DAMAGED = ("damaged", "colour", "colour_and_targets")
SPLIT = {"val": ["VIFB/01"], "test": ["VIFB/03"], "held_out_methods": ["held"]}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    for module in (results, viewer_results, trust):
        monkeypatch.setattr(module, "DRAWS", 5)


def said(rng):
    """What a viewer said of a picture."""
    scores = dict(zip(ASPECTS[1:], rng.integers(2, 11, 4) / 2, strict=True))
    return {"overall_0_100": float(rng.integers(1, 101)), **scores}


def rating_lines(rng, table):
    """What viewers said of every scene and method, those that may not enter among them."""
    lines = []
    for scene in SCENES:
        for method in METHODS:
            for viewer in "A" if table == "colour" else "AB":
                line = {"set": "VIFB", "scene": scene, "method": method, "viewer": viewer}
                if table not in ("fusions", "modern"):
                    line["image"] = f"{scene}_{method}.png"
                if table in DAMAGED:
                    clean = table == "colour_and_targets" and method == "m0"
                    line |= {"kind": "none" if clean else "blur", "strength": 1.5}
                lines.append(line | said(rng))
    return lines


def save(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (32, 40), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "ratings").mkdir()
    for table in TABLES:
        scene = {"set": "VIFB", "scene": "01", "viewer": "A", "strength": 0.0, "part": 0}
        single = [scene | SINGLE[table] | said(rng)] if table in SINGLE else None
        lines = pd.DataFrame(single or rating_lines(rng, table))
        lines.to_csv(root / "ratings" / f"{table}.csv", index=False)
    for table in FULL:
        folder = {"fusions": root / "VIFB", "modern": root / "modern" / "VIFB"}.get(table)
        for scene in SCENES:
            for method in METHODS:
                where = folder and folder / "fused" / method / f"{scene}.png"
                save(where or root / "panel" / table / f"{scene}_{method}.png", rng)
    for scene in SCENES:
        for source in ("ir", "vis"):
            save(root / "VIFB" / source / f"{scene}.png", rng)
    metrics = [(s, m, k) for s in SCENES for m in METHODS for k in ("Entropy", "Rmse")]
    published = pd.DataFrame(metrics, columns=["scene", "method", "metric"])
    published["value"] = rng.random(len(published))
    (root / "VIFB" / "published_metrics").mkdir()
    published.to_csv(root / "VIFB" / "published_metrics" / "per_image.csv", index=False)
    (root / "split.yaml").write_text(yaml.safe_dump(SPLIT))
    return root


@pytest.fixture(scope="module")
def pictures(data):
    """All that may enter."""
    split = read_split(data / "split.yaml")
    return read_panel(data / "ratings", data, data / "made", split, whole=TABLES)


def test_test_scenes_and_held_out_methods_never_enter(data, pictures):
    split = Split(val=(), test=())
    there = read_panel(data / "ratings", data, data / "made", split, whole=TABLES)
    assert len(there) == len(FULL) * 4 * 6 + len(SINGLE)
    assert len(pictures) == len(FULL) * 3 * 5 + len(SINGLE)
    assert not pictures["scene"].isin(SPLIT["test"]).any()
    assert not pictures["method"].isin(SPLIT["held_out_methods"]).any()
    assert set(pictures.loc[pictures["validation"], "scene"]) == set(SPLIT["val"])


def test_only_validation_scenes_and_published_fusions_of_vifb_are_chosen(data, pictures):
    chosen = read_panel(data / "ratings", data, data / "made", read_split(data / "split.yaml"))
    wanted = pictures["validation"] | (pictures["table"] == "fusions")
    assert chosen.equals(pictures[wanted].reset_index(drop=True))
    assert 0 < (~chosen["validation"]).sum() < (~pictures["validation"]).sum()


def test_pictures_that_are_not_chosen_are_not_made(data, tmp_path):
    split = Split(val=("VIFB/02",), test=("VIFB/03",))
    for everything in (False, True):
        whole = TABLES if everything else ()
        found = read_panel(data / "ratings", data, tmp_path, split, whole=whole)
        assert len(list(tmp_path.iterdir())) == everything
        assert ("drawn" in set(found["table"])) == everything


def test_a_rating_is_the_mean_of_the_viewers(data, pictures):
    lines = pd.read_csv(data / "ratings" / "own.csv", dtype={"scene": str})
    lines = lines[lines["image"] == "02_m1.png"]
    row = pictures[(pictures["table"] == "own") & (pictures["picture"] == "02_m1.png")].iloc[0]
    assert row["overall"] == lines["overall_0_100"].mean()
    assert row["sharpness B"] == lines["sharpness"].iloc[1]
    alone = pictures[pictures["table"] == "colour"]
    assert (alone["overall"] == alone["overall A"]).all()
    assert alone["overall B"].isna().all()


def test_groups_are_methods_or_what_was_done(pictures):
    groups = pictures.groupby("table")["group"].agg(set)
    assert groups["fusions"] == {"m0", "m1", "m2", "m3", "m4"}
    assert groups["damaged"] == {"blur 1.5"}
    assert groups["colour_and_targets"] == {"none", "blur"}  # strengths are drawn at random
    assert (groups["drawn"], groups["copies"]) == ({"drawn"}, {"copy_of_ir"})


def test_pictures_are_found_or_made(data, pictures):
    first = pictures.groupby("table")[["ir", "fused"]].first()
    assert Path(first.loc["made", "fused"]).is_relative_to(data.resolve() / "panel" / "made")
    assert first.loc["copies", "fused"] == first.loc["copies", "ir"]
    made = Path(first.loc["drawn", "fused"])
    assert made == (data / "made" / "01_drawn_7.png").resolve()
    with Image.open(made) as picture:
        assert picture.size == (40, 32)


def scores(scene_part, method_part):
    """8 scenes x 6 methods: a rating is a part of the scene and a part of the method."""
    scene, method = np.divmod(np.arange(48), 6)
    rating = scene_part * scene + method_part * method
    return pd.DataFrame({"scene": scene, "group": method, "overall": rating.astype(float)})


def test_a_measure_that_equals_the_ratings_agrees_fully():
    frame = scores(10, 1)
    found = agree(frame.assign(same=frame["overall"]), "same", "overall")
    assert [number.value for number in found.values()] == pytest.approx([1, 1, 1])
    assert found["pooled"].low == pytest.approx(1)


def test_pooled_and_within_differ_where_only_one_of_them_is_right():
    frame = scores(10, 1)
    frame["knows scenes"] = 10.0 * frame["scene"] - frame["group"]
    frame["knows methods"] = frame["group"] - 10.0 * frame["scene"]
    scenes, methods = (agree(frame, f"knows {name}", "overall") for name in ("scenes", "methods"))
    assert scenes["pooled"].value > 0.9
    assert scenes["within"].value == scenes["by method"].value == pytest.approx(-1)
    assert methods["pooled"].value < -0.9
    assert methods["within"].value == methods["by method"].value == pytest.approx(1)


def test_small_scenes_count_only_where_they_are_pooled():
    frame = scores(10, 1)
    frame = frame[(frame["group"] < 4) | (frame["scene"] < 2)]
    frame["value"] = np.where(frame["scene"] < 2, frame["overall"], -frame["overall"])
    assert agree(frame, "value", "overall")["within"].value == pytest.approx(1)
    none = agree(frame[frame["scene"] > 1], "value", "overall")
    assert "within" not in none
    assert none["pooled"].value == pytest.approx(-1)


def test_order_of_means_over_scenes():
    viewers_said = np.add.outer([0.0, 5.0, 30.0], [3.0, 1.0, 2.0])  # (S, M)
    assert order_tau(viewers_said * 2, viewers_said).value == pytest.approx(1)
    assert order_tau(-viewers_said, viewers_said).high == pytest.approx(-1)


def test_published_ranks_know_which_measures_fall(tmp_path):
    lines = [("s", "a", "Entropy", 7), ("s", "b", "Entropy", 6), ("s", "c", "Entropy", 9)]
    lines += [("s", "a", "Rmse", 1), ("s", "b", "Rmse", 2), ("s", "c", "Rmse", 0)]
    table = pd.DataFrame(lines, columns=["scene", "method", "metric", "value"])
    table.to_csv(tmp_path / "published.csv", index=False)
    rows = pd.DataFrame({"scene": "VIFB/s", "method": ["b", "a"]}, index=[4, 5])
    found = published_ranks(tmp_path / "published.csv", rows)
    assert found.to_dict() == {4: -2, 5: -1}  # c is not among the rows


def test_what_is_kept_is_measured_from_the_undamaged_picture_of_the_scene():
    frame = pd.DataFrame(
        {
            "scene": ["a", "b", "a", "b"],
            "kind": ["none", "none", "blur", "blur"],
            "overall": [80.0, 50.0, 40.0, 50.0],
            "FuScore": [5.0, 3.0, 2.0, 2.5],
            "thermal_retention": [5.0, 4.0, 3.0, 4.0],
            "FuScore thermal_retention": [4.0, 4.0, 3.5, 3.5],
        }
    )
    found = what_is_kept(frame).to_dict("index")
    assert set(found) == {"blur"}  # the undamaged pictures are no kind of damage
    assert found["blur"] == {
        "kept, viewers": 0.75,
        "kept, FuScore": 0.5,
        "thermal lost, viewers": 1.0,
        "thermal lost, FuScore": 0.5,
        "pictures": 2,
    }


@pytest.fixture
def valued(pictures):
    """With a made-up value of every measure."""
    rng = np.random.default_rng(0)
    names = [*MEASURES, *(fuscore_column(aspect) for aspect in ASPECTS[1:])]
    values = pd.DataFrame(rng.uniform(1.1, 5, (len(pictures), len(names))), columns=names)
    return pictures.join(values)


def test_tables_of_all_pictures_and_of_the_undamaged_together(data, valued, tmp_path):
    text = write_tables(valued, data, tmp_path, "made up", everything=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["agreement"]) == set(found["aspects"]) == set(RESULTS)
    assert found["sizes"]["undamaged"] == {"validation": [21, 5], "all": [61, 13]}
    assert found["agreement"]["undamaged"]["validation"]["FuScore"]["within"]["value"] is not None
    assert found["kept"]["blur"]["pictures"] == 4
    assert "| blur | 4 |" in text
    assert "validation: pooled | validation: within | validation: by method | all: pooled" in text


def test_tables_of_validation_scenes_beside_a_leaderboard_of_all(data, valued, tmp_path):
    chosen = valued[valued["validation"] | (valued["table"] == "fusions")]
    chosen = chosen[chosen["table"] != "colour"]
    text = write_tables(chosen, data, tmp_path, "made up", everything=False)
    found = json.loads((tmp_path / "results.json").read_text())
    for part in ("sizes", "agreement", "aspects"):
        assert set(found[part]) == {*RESULTS} - {"colour"}  # it has no validation picture
        assert all(set(scopes) == {"validation"} for scopes in found[part].values())
    assert found["sizes"]["fusions"] == {"validation": [5, 1]}
    assert found["leaderboard"]["scenes"] == {"validation": 1, "all": 3}
    assert found["leaderboard"]["taus"]["all"]["FuScore"]["low"] is not None
    assert "ratings of 2 of them, all but the 1 validation scenes" in text
    assert "(`colour`)" not in text
    assert "all: " not in text


def test_order_of_conditions_by_their_means_over_scenes():
    opinions = np.array([1.0, 2.0, 3.0, 4.0])
    values = np.add.outer([0.0, 9.0, 4.0], opinions**2)  # (S, C)
    assert trust.order_srcc(values, opinions).value == pytest.approx(1)
    assert trust.order_srcc(-values, opinions).high == pytest.approx(-1)


def test_agreement_compares_fuscore_on_validation_scenes_only(valued):
    known = valued.assign(FuScore=valued["FuScore"].where(valued["validation"]))
    frame = viewer_results.undamaged(viewer_results.turned(known))
    people = valued[valued["table"] == "damaged"].assign(overall=valued["overall"] / 25)
    people["overall"] = people.groupby("method")["overall"].transform("first")
    found = trust.content(frame, people, {"weights": "made up"})
    assert list(found["measures"]) == list(MEASURES)
    assert found["viewers"]["pictures"] == 61
    assert found["fuscore"] == {"weights": "made up", "pictures": 21, "scenes": 5}
    assert (found["people"]["conditions"], found["people"]["scenes"]) == (5, 3)
    assert json.loads(trust.as_text(found)) == found
    tested = frame[frame["validation"]]
    expected = agree(tested, "FuScore", "overall")["within"].value
    assert found["measures"]["FuScore"]["within"][0] == round(expected, 4)


@pytest.mark.slow
def test_a_run_makes_tables(data, tmp_path):
    options = {"data": data, "ratings": data / "ratings", "split": data / "split.yaml"}
    options["out"] = tmp_path
    viewers.main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    found = json.loads((tmp_path / "results.json").read_text())
    row = found["agreement"]["fusions"]["validation"]
    assert set(row) == {VIEWERS, *MEASURES}
    assert row["FuScore"]["pooled"]["value"] is not None
    assert found["agreement"]["colour"]["validation"][VIEWERS] == {}
    assert found["sizes"]["fusions"] == {"validation": [5, 1]}
    assert len(list((tmp_path / "values" / "classic").rglob("*.parquet"))) == len(TABLES) + 2
    assert "fuscore-lite" in (tmp_path / "results.md").read_text()


def test_values_are_measured_once_and_stay_with_their_pictures(pictures, tmp_path):
    def number(rows):
        return pd.DataFrame({"value": rows.index.to_numpy()})

    found = viewers.measured(pictures, number, tmp_path)
    assert (found["value"] == pictures.index).all()
    again = viewers.measured(pictures, lambda _: pytest.fail("measured again"), tmp_path)
    assert again.equals(found)
    fewer = viewers.measured(pictures[1:], number, tmp_path)  # what changed is measured anew
    assert (fewer["value"] == pictures.index[1:]).all()
