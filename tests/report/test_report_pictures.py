"""The report's scenes: which are chosen, their pictures, and where each fusion lost score."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from fuscore_metric.checkpoints.locate import fingerprint, locate
from fuscore_metric.report.data import make_grid
from fuscore_metric.report.pictures import BEST, OTHER, SPREAD, WORST, Choice, choose, illustrate
from fuscore_metric.report.scorer import OtherWeightsError, load_scorer
from tests.helpers.report_tables import Page, fail, make_page, make_table
from tests.helpers.tiny_model import tiny_fuscore


def test_all_scenes_and_highlighted_methods_can_have_pictures():
    table = fail(make_table([f"s{n}" for n in range(8)], ["A", "B", "C", "D"]), 5)
    grid = make_grid(table, ["A", "B", "C", "D"])
    chosen = choose(grid, scenes=1, per_scene=2, others=True, highlight=["B"])
    assert sorted(one.scene for one in chosen) == list(range(8))
    assert sum(one.group == OTHER for one in chosen) >= 5
    for one in chosen:
        assert ({1} <= set(one.methods)) == ({1} <= set(one.mapped)) == (one.scene != 1)
        assert {one.methods[0], one.methods[-1]} <= set(one.mapped)
        assert list(grid.score[one.scene, list(one.methods)]) == sorted(
            grid.score[one.scene, list(one.methods)], reverse=True
        )
    exhibits = [illustrate(one, grid, model=None, aspect="overall") for one in chosen]
    page = make_page(table, exhibits=exhibits, pictures_wanted=True)
    assert page.count("<details ") == sum(one.group == OTHER for one in chosen)


def test_which_scenes_are_chosen():
    table = make_table([f"s{n}" for n in range(8)], ["A", "B", "C"])
    means = np.array([3.0, 4.5, 2.0, 3.5, 1.5, 4.0, 2.5, 3.2])
    spreads = np.array([0.1, 0.2, 1.4, 0.3, 0.4, 0.5, 1.5, 1.0])
    table["score"] = (means[:, None] + spreads[:, None] / 2 * np.array([1, 0, -1])).reshape(-1)
    grid = make_grid(table, ["A", "B", "C"])
    chosen = choose(grid, scenes=2, per_scene=2)
    names = {
        group: [grid.scenes[c.scene] for c in chosen if c.group == group]
        for group in (BEST, WORST, SPREAD)
    }
    assert names == {BEST: ["s1", "s5"], WORST: ["s4", "s2"], SPREAD: ["s6"]}
    assert [c.also for c in chosen if grid.scenes[c.scene] == "s2"] == [(SPREAD,)]
    assert all(c.methods == (0, 2) for c in chosen)
    assert choose(grid, scenes=0, per_scene=2) == []
    # A scene that one method lacks has another mean; it counts only if there is no better.
    assert "s1" not in {
        grid.scenes[c.scene]
        for c in choose(make_grid(fail(table, 5), ["A", "B", "C"]), scenes=2, per_scene=2)
    }


@pytest.mark.parametrize("scenes", [1, 2, 3])
def test_few_scenes_are_shown_once(scenes):
    grid = make_grid(make_table([f"s{n}" for n in range(scenes)], ["A", "B"]), ["A", "B"])
    chosen = choose(grid, scenes=3, per_scene=4)
    assert sorted(c.scene for c in chosen) == list(range(scenes))
    assert {c.group for c in chosen} == ({BEST, WORST} if scenes > 1 else {BEST})


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return tiny_fuscore(tmp_path_factory.mktemp("scorer"))


def test_pictures_maps_and_what_is_missing(pictures, scorer):
    grid = make_grid(pictures, list(pictures["method"]))
    done = []
    [choice] = choose(grid, scenes=1, per_scene=4)
    exhibit = illustrate(
        choice, grid, model=scorer, aspect="overall", side=64, progress=done.append
    )
    assert len(done) == 8
    shots = [(shot.role, shot.method) for shot in exhibit.shots]
    assert shots == [
        *[("ir", ""), ("vis", ""), ("fused", "mean"), ("lost", "mean"), ("fused", "broken")],
        *[("fused", "gone"), ("fused", "flat"), ("lost", "flat")],
    ]
    for shot in exhibit.shots:
        if shot.method in ("broken", "gone"):
            assert shot.uri == ""
            assert f"{shot.method}.png" in shot.note
        else:
            assert (shot.width, shot.height) == (64, 48)
            assert pixels_of(shot).std() > 5 or shot.method == "flat"
    infrared = pixels_of(exhibit.shots[0])
    assert infrared.min() < 40  # by its own range, not the high byte of the counts
    assert infrared.max() > 200
    page = make_page(pictures, exhibits=[exhibit], pictures_wanted=True)
    words = Page(page).words
    assert page.count("<img ") == 6
    assert words.count("No picture") == 2
    assert [f"where {name} lost score" in words for name in pictures["method"]] == [1, 0, 0, 1]
    assert "gone.png" in words


def pixels_of(shot):
    content = base64.b64decode(shot.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_map_of_a_broken_picture_is_no_crash(pictures, scorer):
    grid = make_grid(pictures, list(pictures["method"]))
    choice = Choice(0, BEST, (), (1, 2), (1, 2))
    exhibit = illustrate(choice, grid, model=scorer, aspect="overall")
    assert [shot.role for shot in exhibit.shots] == ["ir", "vis", "fused", "fused"]


def test_the_judge_is_the_one_that_scored():
    there = fingerprint(locate("embedded"))
    settings = {"source": "embedded", "weights_hash": there, "dtype": "float32"}
    assert load_scorer(settings).spec.name.startswith("fuscore")
    for changed, words in (
        ({"weights_hash": "sha256:1"}, "not those that gave the scores"),
        ({"weights_hash": None}, "does not say which"),
        ({"source": "/nowhere/to/be/found"}, "cannot load"),
    ):
        with pytest.raises(OtherWeightsError, match=words):
            load_scorer(settings | changed)
