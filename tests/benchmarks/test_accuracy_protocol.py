"""The accuracy protocol: its images, numbers and bookkeeping."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from fuscore_training.labels.degradations import DEGRADATIONS, Sources
from fuscore_training.labels.proxy_ratings import ProxyConfig, find_scenes, make_proxy_ratings
from fuscore_training.split import Split

from benchmarks.accuracy import protocol, results, tables, triples
from benchmarks.accuracy.held_out_degradations import HELD_OUT

# --- damage


@pytest.mark.parametrize("kind", HELD_OUT)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_held_out_damage_grows(kind, colour, pair):
    image = np.repeat(pair[1][..., None], 3, axis=2) if colour else pair[1]
    function, strengths = HELD_OUT[kind]
    assert kind not in DEGRADATIONS
    assert len(strengths) == triples.STEPS
    errors = []
    for strength in strengths:
        worse = function(image, strength, Sources(*pair), np.random.default_rng(0))
        assert worse.shape == image.shape
        errors.append(np.abs(worse - image).mean())
    assert errors[0] > 0.001
    assert (np.diff(errors) > 0).all(), errors


def test_motion_blur_keeps_the_mean_and_a_constant(pair):
    function, _ = HELD_OUT["motion_blur"]
    for image in (np.full((20, 30), 0.4), np.full((20, 30, 3), 0.4)):
        blurred = function(image, 9, Sources(*pair), np.random.default_rng(1))
        assert blurred == pytest.approx(image)


# --- triples


SPLIT = Split(val=(), test=("VIFB/00", "TNO/01", "VIFB/02"), held_out_methods=("soft",))


@pytest.fixture(scope="module")
def data(make_data, tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), 4)


@pytest.fixture(scope="module")
def scenes(data):
    return {scene.name: scene for scene in find_scenes(data)}


def test_ladders_are_complete_and_repeatable(scenes):
    here = triples.load(scenes["VIFB/00"])
    items = list(triples.ladders(here, SPLIT))
    kinds = {*DEGRADATIONS, *HELD_OUT}
    assert {item.group for item in items} == {"soft", "good"}
    assert len(items) == 2 * (1 + triples.STEPS * len(kinds))
    again = list(triples.ladders(here, SPLIT))
    assert all((a.fused == b.fused).all() for a, b in zip(items, again, strict=True))
    plain = triples.ladders(triples.load(scenes["TNO/01"]), SPLIT)
    assert {item.group for item in plain} == {"plain_laplacian_pyramid", "good"}


def test_ladders_of_seen_kinds_span_what_training_draws():
    assert triples.ladder_strengths("noise") == pytest.approx(np.geomspace(0.008, 0.12, 5))
    assert triples.ladder_strengths("jpeg") == pytest.approx(np.linspace(40, 97, 5))


def test_controls_are_not_good_fusions(scenes):
    here = triples.load(scenes["VIFB/00"])
    items = list(triples.controls(here, scenes["TNO/01"]))
    good = [item for item in items if item.name == triples.UNDAMAGED]
    assert 1 <= len(good) <= triples.MOST_GOOD
    assert "plain_average" not in {item.group for item in good}
    assert {item.name for item in items} == {triples.UNDAMAGED, *results.CONTROLS}
    swapped = {item.group: item for item in items if item.name == "sources swapped"}
    for item in good:
        assert (swapped[item.group].fused == item.fused).all()
        assert (swapped[item.group].ir != item.ir).any()


def test_stability_changes_little(scenes):
    items = list(triples.stability(triples.load(scenes["VIFB/00"])))
    shapes = {item.name: item.fused.shape[:2] for item in items if item.group == items[0].group}
    assert set(shapes) == {triples.UNDAMAGED, *results.CHANGES}
    assert shapes["shift"] == (47, 63)
    assert shapes["resize 0.9"] == (43, 58)
    for item in items:
        assert item.ir.shape[:2] == item.vis.shape[:2] == item.fused.shape[:2]


def test_evenly_picks_the_ends():
    assert triples.evenly(range(10), 4) == [0, 3, 6, 9]
    assert triples.evenly(range(3), None) == triples.evenly(range(3), 5) == [0, 1, 2]


# --- results


def ladder_frame(scores):
    kinds = [*DEGRADATIONS, *HELD_OUT]
    lines = [("s", "m", triples.UNDAMAGED, 0, 5.0)]
    lines += [("s", "m", kind, level, scores[level - 1]) for kind in kinds for level in range(1, 6)]
    return pd.DataFrame(lines, columns=["scene", "group", "name", "level", "value"])


@pytest.mark.parametrize(
    ("scores", "tau"), [([4, 3, 2, 1, 0], 1), ([6, 7, 8, 9, 10], -1), ([5] * 5, 0)]
)
def test_tau_of_a_ladder(scores, tau):
    row = results.ladder_row(ladder_frame(scores))
    assert [number.value for number in row.values()] == pytest.approx([tau] * len(row))


def test_controls_count_ties_half():
    lines = [("s", "a", triples.UNDAMAGED, 4.0), ("s", "b", triples.UNDAMAGED, 2.0)]
    lines += [("s", "a", "sources swapped", 1.0), ("s", "b", "sources swapped", 2.0)]
    lines += [("s", "", name, 3.0) for name in results.CONTROLS[:-1]]
    row = results.control_row(pd.DataFrame(lines, columns=["scene", "group", "name", "value"]))
    assert row["ir copy"].value == 0.5
    assert row["sources swapped"].value == 0.75
    assert row["mean"].value == pytest.approx(0.55)


def test_stability_is_in_units_of_the_spread_between_fusions():
    rated = pd.DataFrame({"scene": "s", "name": "method", "value": [1.0, 3.0]})
    names = [triples.UNDAMAGED, *results.CHANGES]
    frame = pd.DataFrame({"scene": "s", "group": "m", "name": names, "value": [2.0] + [1.5] * 5})
    row = results.stability_row(frame, rated)
    assert row["shift"].value == pytest.approx(0.5 / math.sqrt(2))


def test_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    number = results.over_scenes(values)
    assert number.value == pytest.approx(values.mean())
    assert number.high - number.low == pytest.approx(4 * values.std() / 20, rel=0.15)
    assert math.isnan(results.over_scenes(values[:1]).low)


# --- the run


@pytest.fixture(scope="module")
def ratings(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("ratings")
    make_proxy_ratings(data, out, ProxyConfig(workers=1))
    return out / "ratings.parquet"


@pytest.fixture
def arguments(data, ratings, tmp_path, monkeypatch):
    """A run with a stand-in that measures the difference of the fused image from the sources."""

    def stand_in(options):
        protocol.pin(
            options.out / "weights.json",
            {
                "sha256": options.model,
                "name": "stand-in",
                "labels": "trained on nothing",
                "held_out_scenes": ["VIFB/00", "TNO/01"],
                "held_out_methods": ["soft"],
            },
        )
        return lambda items: [
            {"FuScore": -float(np.abs(item.fused.mean() - item.ir.mean()))} for item in items
        ]

    def cheap(options):
        return lambda items: [{"SD": float(item.fused.std()), "Nabf": 0.5} for item in items]

    monkeypatch.setitem(protocol.MAKERS, "fuscore", stand_in)
    monkeypatch.setitem(protocol.MAKERS, "classic", cheap)
    split = tmp_path / "split.yaml"
    content = {"val": [], "test": list(SPLIT.test), "held_out_methods": ["soft"]}
    split.write_text(yaml.safe_dump(content))
    options = {"data": data, "ratings": ratings, "split": split, "out": tmp_path / "out"}
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


@pytest.mark.slow
def test_a_run_resumes_and_makes_tables(arguments, tmp_path, capsys):
    families = ["--measures", "fuscore,classic", "--classic-scenes", "2", "--model", "w"]
    protocol.main([*arguments, *families])
    printed = capsys.readouterr().out
    assert printed.count(" images in ") == 2 * 4 * 3 - 1
    protocol.main([*arguments, *families])
    assert capsys.readouterr().out.count(" images in ") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(found["main"]) == ["FuScore", results.SAME_SCENES, "SD", "Nabf"]
    assert set(found["main"]["FuScore"]) == set(tables.MAIN_COLUMNS)
    assert found["ladders"]["Nabf"]["mean seen"]["value"] == 0
    assert found["controls"]["SD"]["sources swapped"]["value"] == 0.5
    assert {f"SD: {subset}" for subset in results.SUBSETS} <= set(found["agreement"])
    text = (tmp_path / "out" / "results.md").read_text()
    assert "WARNING: the weights do not list these scenes as held out: ['VIFB/02']" in text
    assert "do not list these methods" not in text


def test_other_weights_and_ratings_are_refused(arguments, tmp_path):
    once = [*arguments, "--measures", "fuscore", "--scenes", "1", "--parts", "agreement"]
    protocol.main([*once, "--model", "w"])
    with pytest.raises(SystemExit, match=r"Expected sha256 w as in .*weights\.json, got other"):
        protocol.main([*once, "--model", "other"])
    pinned = tmp_path / "out" / "ratings.json"
    pinned.write_text('{"sha256": "of another file"}')
    with pytest.raises(SystemExit, match="Expected sha256 of another file"):
        protocol.main([*once, "--model", "w"])


def test_measures_in_one_folder_are_of_the_same_rows(ratings):
    frame = pd.read_parquet(ratings)
    chosen = triples.rated_rows(frame)
    undamaged = frame["kind"].isin(triples.UNDAMAGED_KINDS)
    assert undamaged.sum() == chosen["kind"].isin(triples.UNDAMAGED_KINDS).sum()
    assert len(chosen) - undamaged.sum() == pytest.approx((~undamaged).sum() / 4, rel=0.5)
    shuffled = triples.rated_rows(frame.sample(frac=1, random_state=0))
    assert set(shuffled.index) == set(chosen.index)


def test_pyiqa_is_named_where_it_is_missing(monkeypatch):
    import sys

    from benchmarks.accuracy.no_reference import NoReference

    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(SystemExit, match="pip install pyiqa"):
        NoReference()


@pytest.mark.parametrize("options", [[], ["--measures", "classics"], ["--parts", "all"]])
def test_bad_options_are_refused(options, tmp_path):
    with pytest.raises(SystemExit):
        protocol.parse(["--out", str(tmp_path), *options])
