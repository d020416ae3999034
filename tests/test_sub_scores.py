"""Proxy sub-scores: their scale, the rule for the overall rating, and what lowers which."""

from dataclasses import replace

import numpy as np
import pytest
from fuscore_training.classic_fusions import CLASSIC_FUSIONS, laplacian_pyramid, maximum
from fuscore_training.sub_scores import (
    SHARPNESS_ANCHORS,
    TEXTURE_ANCHORS,
    THERMAL_ANCHORS,
    WEIGHTS,
    WORST_MARGIN,
    SourcePair,
    SubScores,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT

DETERMINISTIC = settings(derandomize=True, deadline=None)
NAMES = ["thermal_retention", "texture_preservation", "artifacts", "sharpness"]
scores = st.floats(1, 5)


@pytest.fixture(scope="module")
def rater(pair) -> SourcePair:
    return SourcePair(*pair)


def test_names_are_the_aspects():
    assert list(vars(SubScores(1, 2, 3, 4))) == NAMES
    assert [DEFAULT_ASPECT, *NAMES] == list(ASPECTS)


@pytest.mark.parametrize("anchors", [THERMAL_ANCHORS, TEXTURE_ANCHORS, SHARPNESS_ANCHORS])
def test_anchors_span_the_scale_in_order(anchors):
    measured, given_scores = zip(*anchors, strict=True)
    assert list(measured) == sorted(set(measured))
    assert list(given_scores) == sorted(set(given_scores))
    assert (given_scores[0], given_scores[-1]) == (1, 5)


@pytest.mark.parametrize(
    ("four", "overall"),
    [
        ((5, 5, 5, 5), 5),
        ((1, 1, 1, 1), 1),
        ((3, 3, 3, 3), 3),
        # 1 / (0.25/4 + 0.3/2 + 0.25/4 + 0.2/4)
        ((4, 2, 4, 4), 3.076923),
        # 1 / (0.25/5 + 0.3/1 + 0.25/5 + 0.2/5)
        ((5, 1, 5, 5), 2.272727),
        # 1 / (0.25/5 + 0.3/5 + 0.25/5 + 0.2/1) would be 2.78: held to 1.5 above the worst.
        ((5, 5, 5, 1), 2.5),
    ],
)
def test_overall_by_hand(four, overall):
    assert SubScores(*four).overall == pytest.approx(overall, abs=1e-6)


@DETERMINISTIC
@given(st.tuples(scores, scores, scores, scores), st.sampled_from(NAMES))
def test_overall_rule(four, name):
    found = SubScores(*four)
    assert min(four) - 1e-9 <= found.overall <= min(max(four), min(four) + WORST_MARGIN) + 1e-9
    assert sum(WEIGHTS) == pytest.approx(1)
    worse = replace(found, **{name: 1.0})
    assert worse.overall <= found.overall + 1e-9
    assert worse.overall <= 1 + WORST_MARGIN


def noisy(image, sigma):
    return np.clip(image + np.random.default_rng(0).normal(0, sigma, image.shape), 0, 1)


@pytest.mark.parametrize(
    "make",
    [
        *CLASSIC_FUSIONS.values(),
        lambda ir, _: ir,
        lambda _, vis: vis,
        lambda ir, _: np.zeros_like(ir),
        lambda ir, _: np.ones_like(ir),
        lambda ir, vis: 1 - maximum(ir, vis),
        lambda ir, vis: noisy(maximum(ir, vis), 0.3),
        lambda ir, vis: np.clip(3 * maximum(ir, vis) - 1, 0, 1),
    ],
)
def test_all_scores_are_on_the_scale(make, pair, rater):
    four = vars(rater.rate(make(*pair)))
    assert all(1 <= score <= 5 for score in four.values()), four


@pytest.mark.parametrize(("flat_ir", "flat_vis"), [(True, False), (False, True), (True, True)])
def test_flat_sources_are_rated_without_a_fault(flat_ir, flat_vis, pair):
    """Nothing hot and no edges: every ratio here would be 0 / 0."""
    ir, vis = pair
    ir = np.full_like(ir, 0.4) if flat_ir else ir
    vis = np.full_like(vis, 0.6) if flat_vis else vis
    with np.errstate(all="raise", under="ignore"):
        four = vars(SourcePair(ir, vis).rate(CLASSIC_FUSIONS["average"](ir, vis)))
    assert all(1 <= score <= 5 for score in four.values()), four


def test_a_copy_of_one_source_loses_the_other(pair, rater):
    ir, vis = pair
    copy_of_ir, copy_of_vis = rater.rate(ir), rater.rate(vis)
    good = rater.rate(CLASSIC_FUSIONS["two_scale"](ir, vis))
    assert copy_of_ir.thermal_retention == 5
    assert copy_of_ir.texture_preservation < 2
    assert copy_of_vis.thermal_retention < 2
    assert copy_of_vis.texture_preservation > copy_of_ir.texture_preservation + 1
    assert good.overall > max(copy_of_ir.overall, copy_of_vis.overall)


def test_a_flat_image_has_nothing(pair, rater):
    found = rater.rate(np.full_like(pair[0], 0.5))
    assert (found.thermal_retention, found.texture_preservation) == (1, 1)
    # Not quite 1: the Sobel filter's zero border makes an edge of the frame.
    assert found.sharpness < 2
    assert found.overall < 1.5


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda fused: ndimage.gaussian_filter(fused, 1.5), "sharpness"),
        (lambda fused: ndimage.gaussian_filter(fused, 1.5), "texture_preservation"),
        (lambda fused: 0.5 + 0.4 * (fused - 0.5), "thermal_retention"),
        (lambda fused: 0.5 + 0.4 * (fused - 0.5), "sharpness"),
        (lambda fused: noisy(fused, 0.08), "artifacts"),
        (lambda fused: noisy(fused, 0.08), "texture_preservation"),
        (lambda fused: 1 - fused, "thermal_retention"),
    ],
)
def test_damage_lowers_what_it_should(damage, name, pair, rater):
    fused = laplacian_pyramid(*pair)
    before, after = rater.rate(fused), rater.rate(damage(fused))
    assert getattr(after, name) < getattr(before, name) - 0.3
    assert after.overall < before.overall


def test_invented_gradients_are_artifacts(pair, rater):
    """Noise over a blurred image: no overshoot, and the difference alone takes 2 at most."""
    found = rater.rate(noisy(ndimage.gaussian_filter(laplacian_pyramid(*pair), 2), 0.1))
    assert found.sharpness < 5
    assert found.artifacts < 2.8


def test_overshoot_is_an_artifact(pair):
    """Contrast raised by 70 %: every edge is kept, but stronger than it ever was."""
    vis = 0.5 + 0.5 * (pair[1] - 0.5)
    rater = SourcePair(vis, vis)
    raised, kept = rater.rate(0.5 + 1.7 * (vis - 0.5)), rater.rate(vis)
    assert raised.sharpness == 5
    assert raised.texture_preservation > 4.5
    assert kept.artifacts > 4.5
    # Without overshoot, the difference from the sources and Nabf would leave it 1.97.
    assert raised.artifacts < 1.5


def test_ratings_do_not_depend_on_the_order_of_rating(pair, rater):
    first = rater.rate(laplacian_pyramid(*pair))
    rater.rate(pair[0])
    assert rater.rate(laplacian_pyramid(*pair)) == first
