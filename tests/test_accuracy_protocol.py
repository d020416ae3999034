"""The accuracy protocol: exact measures, published values, and its bookkeeping.

Published values of two benchmarks, recomputed on the files in ../shared/data. Where a benchmark
defines a measure otherwise, the test puts its definition in place and says so:

- EN, SCD, SF: TNO's to rounding (its SF is in [0, 1] units). EN of VIFB, a mean over the channels,
  was computed before the outputs were saved as JPEG: within 0.01 bits.
- SD: VIFB's within 0.02. TNO's squares 8-bit numbers, which saturate at 255.
- AG: TNO's, which divides the sum over all pixels by (H - 1)(W - 1), to rounding.
- MI: VIFB's is in nats: within 0.01. TNO's stretches each image to the full range: within 2 %.
- SSIM: VIFB's is the sum over both sources, ours the mean: within 0.002.
- VIF, Qabf: `test_classic_measures.py` explains; here only how alike the order is.
- Nabf: no values published for these files.
"""

import json
import math

import measures
import numpy as np
import pandas as pd
import protocol
import pytest
import results
import tables
import triples
import yaml
from fuscore_training.degradations import DEGRADATIONS, Sources
from fuscore_training.proxy_ratings import ProxyConfig, find_scenes, make_proxy_ratings
from fuscore_training.split import Split
from held_out_degradations import HELD_OUT
from PIL import Image
from scipy.stats import spearmanr

# --- measures


def pixels(image):
    return np.rint(np.asarray(image) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def triple(pair):
    return [pixels(image) for image in (*pair, np.maximum(*pair))]


def test_measures_of_a_known_image():
    """Half black, half 200: one bit, and one edge of 200 grey levels."""
    half = np.zeros((32, 64), dtype=np.uint8)
    half[:, 32:] = 200
    found = measures.classic(half, half, half)
    assert found["EN"] == pytest.approx(1)
    assert found["MI"] == pytest.approx(2)
    assert found["SD"] == pytest.approx(100)
    assert found["SF"] == pytest.approx(200 / math.sqrt(63))
    assert found["AG"] == pytest.approx(2 * 100 / math.sqrt(2) / 64)
    assert found["SCD"] == 0  # f - b is nothing
    assert found["VIF"] == pytest.approx(2, abs=1e-6)
    assert found["SSIM"] == pytest.approx(1)
    assert found["Nabf"] == 0


def test_sources_of_a_sum_correlate_fully_with_what_is_left(triple):
    ir, vis = (image // 2 for image in triple[:2])
    assert measures.classic(ir, vis, ir + vis)["SCD"] == pytest.approx(2)


def test_independent_images_share_no_information():
    first, second = np.meshgrid(np.arange(16.0), np.arange(16.0))
    assert measures.mutual_information(first, second) == pytest.approx(0, abs=1e-9)


def test_measures_read_luma(triple):
    grey = measures.classic(*triple)
    colour = measures.classic(*(np.repeat(image[..., None], 3, axis=2) for image in triple))
    assert list(grey) == list(measures.HIGHER_IS_BETTER)
    assert colour == pytest.approx(grey)


def read(path):
    return np.asarray(Image.open(path))


def published(folder, column):
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv", dtype={column: str})
    return table.set_index([column, "method", "metric"]).value.sort_index()


@pytest.fixture(scope="module")
def vifb(real_data):
    """Mean over the channels, as VIFB's toolbox does, beside its values."""
    folder, rows = real_data / "VIFB", []
    known = published(folder, "scene")
    for scene in ("carLight", "fight"):
        for method in ("ADF", "CBF", "DLF", "GFCE"):
            files = [folder / p / f"{scene}.jpg" for p in ("ir", "vis", f"fused/{method}")]
            colour = [np.atleast_3d(read(file)) + np.zeros((1, 1, 3), np.uint8) for file in files]
            channels = [measures.classic(*(x[..., c] for x in colour)) for c in range(3)]
            mean = pd.DataFrame(channels).mean().to_dict()
            rows.append(mean | known[scene, method].add_prefix("published ").to_dict())
    return pd.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.real_data
def test_published_values_of_vifb(vifb):
    for ours, theirs, scale, tolerance in (
        ("EN", "Entropy", 1, 0.01),
        ("SD", "Variance", 1, 0.02),
        ("MI", "Mutinf", math.log(2), 0.01),
        ("SSIM", "Ssim", 2, 0.002),
    ):
        assert np.abs(scale * vifb[ours] - vifb[f"published {theirs}"]).max() < tolerance, ours
    # Another count of pixels in the means, and JPEG.
    for ours, theirs in (("SF", "Spatial_frequency"), ("AG", "Avg_gradient")):
        assert np.abs(vifb[ours] / vifb[f"published {theirs}"] - 1).max() < 0.03, ours
        assert spearmanr(vifb[ours], vifb[f"published {theirs}"]).statistic > 0.99
    assert spearmanr(vifb["Qabf"], vifb["published Qabf"]).statistic > 0.9


@pytest.mark.slow
@pytest.mark.real_data
def test_published_values_of_tno(real_data):
    folder, rows = real_data / "TNO", []
    known = published(folder, "image")
    for scene in ("05", "41"):
        for method in ("DenseFuse", "FusionGAN", "IFCNN", "SeAFusion"):
            files = [folder / p / f"{scene}.png" for p in ("ir", "vis", f"fused/{method}")]
            images = [read(file) for file in files]
            ours, theirs = measures.classic(*images), known[scene, method]
            fused = measures.grey(images[2])
            height, width = fused.shape
            assert ours["EN"] == pytest.approx(theirs["EN"], abs=1e-9)
            assert ours["SCD"] == pytest.approx(theirs["SCD"], abs=1e-9)
            assert ours["SF"] / 255 == pytest.approx(theirs["SF"], abs=1e-9)
            more = height * width / ((height - 1) * (width - 1))
            assert more * ours["AG"] == pytest.approx(theirs["AG"], abs=1e-9)
            saturated = np.minimum(np.rint(np.maximum(fused - fused.mean(), 0)) ** 2, 255)
            assert math.sqrt(saturated.mean()) == pytest.approx(theirs["SD"], abs=1e-9)
            assert ours["MI"] == pytest.approx(theirs["MI"], rel=0.02)
            rows.append({"ours": ours["VIF"], "theirs": theirs["VIF"]})
    table = pd.DataFrame(rows)
    assert spearmanr(table["ours"], table["theirs"]).statistic > 0.7


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
                "sha256": options.weights,
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
    families = ["--measures", "fuscore,classic", "--classic-scenes", "2", "--weights", "w"]
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
    protocol.main([*once, "--weights", "w"])
    with pytest.raises(SystemExit, match=r"Expected sha256 w as in .*weights\.json, got other"):
        protocol.main([*once, "--weights", "other"])
    pinned = tmp_path / "out" / "ratings.json"
    pinned.write_text('{"sha256": "of another file"}')
    with pytest.raises(SystemExit, match="Expected sha256 of another file"):
        protocol.main([*once, "--weights", "w"])


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

    from no_reference import NoReference

    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(SystemExit, match="pip install pyiqa"):
        NoReference()


@pytest.mark.parametrize("options", [[], ["--measures", "classics"], ["--parts", "all"]])
def test_bad_options_are_refused(options, tmp_path):
    with pytest.raises(SystemExit):
        protocol.parse(["--out", str(tmp_path), *options])
