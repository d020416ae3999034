"""Agreement with viewers, on made-up tables."""

import json

import numpy as np
import pandas as pd
import pytest
import viewer_results
import viewers
import yaml
from fuscore_training.split import Split, read_split
from panel import TABLES, read_panel
from PIL import Image
from viewer_results import MEASURES, VIEWERS, agree, order_tau, published_ranks

from fuscore_metric.prompts import ASPECTS

SCENES = ("00", "01", "02", "03")
METHODS = ("m0", "m1", "m2", "m3", "m4", "held")
SPLIT = {"val": ["VIFB/01"], "test": ["VIFB/03"], "held_out_methods": ["held"]}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(viewer_results, "DRAWS", 5)


def rating_lines(rng, *, viewers_of, kind=False):
    """What viewers said of every scene and method, those that may not enter among them."""
    lines = []
    for scene in SCENES:
        for method in METHODS:
            for viewer in viewers_of:
                line = {"set": "VIFB", "scene": scene, "method": method, "viewer": viewer}
                line["image"] = f"{scene}_{method}.png"
                line |= {"kind": "blur", "strength": 1.5} if kind else {}
                scores = dict(zip(ASPECTS[1:], rng.integers(2, 11, 4) / 2, strict=True))
                lines.append(line | {"overall_0_100": float(rng.integers(0, 101))} | scores)
    return pd.DataFrame(lines)


def save(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (32, 40), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "panel").mkdir()
    for table in TABLES:
        changed, beside = table in ("damaged", "colour"), table in ("own", "damaged", "colour")
        lines = rating_lines(rng, viewers_of="A" if table == "colour" else "AB", kind=changed)
        lines = lines if beside else lines.drop(columns="image")
        lines.to_csv(root / "panel" / f"{table}.csv", index=False)
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
    return read_panel(data, read_split(data / "split.yaml"))


def test_test_scenes_and_held_out_methods_never_enter(data, pictures):
    assert len(read_panel(data, Split(val=(), test=()))) == len(TABLES) * 4 * 6  # they are there
    assert len(pictures) == len(TABLES) * 3 * 5
    assert not pictures["scene"].isin(SPLIT["test"]).any()
    assert not pictures["method"].isin(SPLIT["held_out_methods"]).any()
    assert set(pictures.loc[pictures["validation"], "scene"]) == set(SPLIT["val"])


def test_a_rating_is_the_mean_of_the_viewers(data, pictures):
    said = pd.read_csv(data / "panel" / "own.csv", dtype={"scene": str})
    said = said[said["image"] == "02_m1.png"]
    row = pictures[(pictures["table"] == "own") & (pictures["picture"] == "02_m1.png")].iloc[0]
    assert row["overall"] == said["overall_0_100"].mean()
    assert row["sharpness B"] == said["sharpness"].iloc[1]
    alone = pictures[pictures["table"] == "colour"]
    assert (alone["overall"] == alone["overall A"]).all()
    assert alone["overall B"].isna().all()
    assert set(alone["group"]) == {"blur 1.5"}


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


@pytest.mark.slow
def test_a_run_makes_tables(data, tmp_path):
    arguments = ["--data", str(data), "--split", str(data / "split.yaml"), "--out", str(tmp_path)]
    viewers.main(arguments)
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["agreement"]) == set(TABLES)
    row = found["agreement"]["fusions"]["validation"]
    assert set(row) == {VIEWERS, *MEASURES}
    assert row["FuScore"]["pooled"]["value"] is not None
    assert found["agreement"]["colour"]["all"][VIEWERS] == {}
    assert found["sizes"]["fusions"] == {"validation": [5, 1], "all": [15, 3]}
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
