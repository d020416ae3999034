"""The gaming benchmark: tricks do what they say, the attack keeps its ball, the cheat's sums."""

import inspect

import numpy as np
import pandas as pd
import pytest
from fuscore_training.fusions.classic import luma
from fuscore_training.labels.degradations import Sources
from PIL import Image

from benchmarks.gaming import tricks
from benchmarks.gaming.adversary import as_batch, climb
from benchmarks.gaming.report import changes, chosen, interval, trick_results
from fuscore_metric import FuScore, TrustRegion
from fuscore_metric.prompts import ASPECTS
from tests.helpers import EXAMPLE

RNG = np.random.default_rng(0)
GREY = np.clip(0.5 + 0.15 * np.sin(np.arange(120) / 7) + RNG.normal(0, 0.03, (90, 120)), 0, 1)
COLOUR = np.clip(GREY[..., None] + np.array([0.05, 0.0, -0.05]), 0, 1)
SOURCES = Sources(np.clip(GREY + 0.2, 0, 1), 1 - GREY)
VARIANTS = {
    f"{trick}: {variant}": pair
    for trick, variants in tricks.TRICKS.items()
    for variant, pair in variants.items()
}


def apply(pair, image, strength=None):
    function, own = pair
    given = own if strength is None else strength
    return function(image, given, SOURCES, np.random.default_rng(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_strength_0_leaves_a_picture_alone(name):
    for image in (GREY, COLOUR):
        assert np.abs(apply(VARIANTS[name], image, 0.0) - image).max() < 1e-12


@pytest.mark.parametrize("name", VARIANTS)
def test_every_trick_changes_the_picture_and_grey_stays_grey(name):
    for image in (GREY, COLOUR):
        done = apply(VARIANTS[name], image)
        assert done.shape == image.shape
        assert -1e-9 <= done.min() <= done.max() <= 1 + 1e-9
        untouched = name.startswith("saturation") and image is GREY
        assert (np.abs(done - image).max() < 1e-12) == untouched
    three = apply(VARIANTS[name], np.repeat(GREY[..., None], 3, axis=2))
    assert np.ptp(three, axis=2).max() < 1e-9


def test_every_function_is_used():
    named = inspect.getmembers(tricks, inspect.isfunction)
    own = {f for name, f in named if f.__module__ == tricks.__name__ and name[0] != "_"}
    assert own == {getattr(function, "func", function) for function, _ in VARIANTS.values()}


def test_contrast_brightness_and_colour():
    stretched = tricks.stretch(GREY, 0.05, SOURCES, RNG)
    assert 0.03 < (stretched == 0).mean() < 0.07
    assert 0.03 < (stretched == 1).mean() < 0.07
    assert tricks.gain(GREY, 0.5, SOURCES, RNG).std() == pytest.approx(1.5 * GREY.std(), rel=0.02)
    assert tricks.brightness(GREY, 0.1, SOURCES, RNG).mean() == pytest.approx(GREY.mean() + 0.1)
    assert (tricks.gamma(GREY, -0.6, SOURCES, RNG) > GREY).all()
    assert tricks.equalise(GREY, 0.03, SOURCES, RNG).std() > GREY.std()
    colourless = tricks.saturation(COLOUR, -1, SOURCES, RNG)
    assert np.ptp(colourless, axis=2).max() < 1e-9
    assert np.abs(luma(colourless) - luma(COLOUR)).max() < 1e-9


def test_noise_dither_blur_and_halo():
    assert (tricks.noise(GREY, 4, SOURCES, RNG) - GREY).std() == pytest.approx(4 / 255, rel=0.05)
    pattern = tricks.dither(GREY, 4, SOURCES, RNG) - GREY
    assert np.ptp(pattern) == pytest.approx(4 / 255)
    assert pattern[:8].mean() == pytest.approx(0, abs=1e-9)
    step = np.repeat(np.where(np.arange(120) < 60, 0.3, 0.7)[None], 90, axis=0)
    halo = tricks.sharpen(step, 0.5, SOURCES, RNG, radius=2)
    assert halo.min() < 0.25
    assert halo.max() > 0.75
    assert halo[:, :40] == pytest.approx(0.3)
    assert np.diff(tricks.smooth(step, 0.7, SOURCES, RNG)).max() < 0.4


def test_text_frame_vignette_and_rectangle():
    written = np.abs(tricks.text(GREY, 0.9, SOURCES, RNG, across=True) - GREY) > 1e-9
    columns, rows = (np.flatnonzero(written.any(axis)) for axis in (0, 1))
    assert np.ptp(columns) / 120 == pytest.approx(0.9, abs=0.04)
    assert 35 < rows.mean() < 55
    small = np.abs(tricks.text(GREY, 0.25, SOURCES, RNG, box=0.0) - GREY) > 1e-9
    assert not small[:75].any()
    assert not small[:, 45:].any()
    framed = tricks.frame(GREY, 0.04, SOURCES, RNG, value=1.0)
    assert (framed[:4] == 1).all()
    assert (framed[4:-4, 4:-4] == GREY[4:-4, 4:-4]).all()
    dark = tricks.vignette(GREY, 0.4, SOURCES, RNG) / GREY
    assert dark[0, 0] == pytest.approx(0.6)
    assert dark[45, 60] == pytest.approx(1, abs=1e-3)
    shown = tricks.patch(GREY, 0.3, SOURCES, RNG, source="ir") == SOURCES.ir
    assert shown.mean() == pytest.approx(0.3, abs=0.02)
    assert shown[45, 60]


@pytest.fixture(scope="module")
def example():
    folder = EXAMPLE
    crop = (slice(100, 260), slice(100, 300))
    return [
        np.asarray(Image.open(folder / f"{name}.png").convert(mode))[crop]
        for name, mode in (("ir", "L"), ("vis", "RGB"), ("fused_average", "RGB"))
    ]


@pytest.fixture(scope="module")
def model():
    return FuScore.from_pretrained()


@pytest.mark.parametrize("grey", [False, True])
def test_the_attack_raises_the_score_and_keeps_its_ball(example, model, grey):
    ir, vis, fused = example
    fused = fused[..., 0] if grey else fused

    def score(picture):
        return model(*(as_batch([image]) for image in (ir, vis, picture))).score.item()

    before = fused.copy()
    raised = climb(model, ir, vis, fused, 2, steps=4)
    assert (fused == before).all()
    assert raised.shape == fused.shape
    assert raised.dtype == np.uint8
    assert np.abs(raised.astype(int) - fused).max() == 2
    assert score(raised) > score(fused) + 0.2


def test_a_guard_is_climbed_too(example, model):
    """Where only the reference counts, whoever climbs the reward stays nearer to it."""
    guard = TrustRegion(0, 0, 1e4, reference_radius=0)
    free, bound = (
        climb(model, *example, 4, steps=4, guard=given, with_reference=given is not None)
        for given in (None, guard)
    )
    moved = [np.abs(picture.astype(int) - example[2]).mean() for picture in (free, bound)]
    assert moved[1] < 0.7 * moved[0]


def row(method, trick, variant, overall, charge=0.0):
    names = {"scene": "s", "method": method, "trick": trick, "variant": variant}
    numbers = {"std": 0.5, "charge": charge, "charge_ref": charge}
    return names | dict.fromkeys(ASPECTS, overall) | numbers


def test_the_cheat_picks_the_best_strength_and_knows_the_guard():
    rows = [row("a", "", "", 2.0, 0.5), row("b", "", "", 2.5), row("c", "", "", 3.0)]
    rows += [row("a", "t", "weak", 2.6, 0.2), row("a", "t", "strong", 3.5, 2.5)]
    rows += [row("b", "t", "weak", 2.4), row("b", "t", "strong", 1.0)]
    rows = pd.DataFrame(rows)
    found = changes(rows, rows[rows["trick"] == ""])
    assert found["places"].tolist() == [1, 2, 0, -1]
    best = chosen(found)
    assert best["overall"].tolist() == [1.5, 0]  # b is left as it is
    assert best["places"].tolist() == [2, 0]
    guarded = chosen(found, "reward_charge")
    # The weak one saves a charge of 0.3, which is no gain of the trick.
    assert guarded["reward_charge"].tolist() == pytest.approx([0.6, 0])
    assert interval(best, "overall") == {"mean": 0.75, "low": 0.75, "high": 0.75}

    measured = rows[["scene", "method", "trick", "variant"]].assign(
        rating=[2, 3, 3, 2.5, 1.5, 3, 3], Qabf=0.5, VIF=0.5, SSIM=0.5, Nabf=[0.1] * 6 + [0.3]
    )
    labels = changes(measured, rows[rows["trick"] == ""])
    result = trick_results(found.assign(trick_of=found["trick"]), labels)
    assert result["t"]["best"]["rating"]["mean"] == pytest.approx(-0.25)  # -0.5 and nothing
    assert result["t"]["best"]["rises alone"] == 0.5
    assert result["t"]["strengths"]["strong"]["Nabf"] == pytest.approx(0.1)
    assert result["any of these"]["best"]["score"] == result["t"]["best"]["score"]
