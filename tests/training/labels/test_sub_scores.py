"""Proxy sub-scores: their scale, the rule for the overall rating, and what lowers which."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fuscore_training.fusions.classic import CLASSIC_FUSIONS, laplacian_pyramid, maximum
from fuscore_training.labels.label_measures import as_grey
from fuscore_training.labels.sub_scores import (
    SHARPNESS_ANCHORS,
    TEXTURE_ANCHORS,
    THERMAL_ANCHORS,
    WEIGHTS,
    WORST_MARGIN,
    SourcePair,
    SubScores,
    _edges,
    _flat_excess,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fuscore_metric.measures.formulas.edges import EdgePreservation, edge_preservation
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT
from tests.helpers.scenes import synthetic_pair

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
    assert (found.thermal_retention, found.texture_preservation, found.sharpness) == (1, 1, 1)
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


def flat_pair(height=96, width=128):
    """Sources that are textured on the left and flat on the right."""
    rng, texture = np.random.default_rng(0), np.zeros((height, width))
    texture[:, : width // 2] = ndimage.gaussian_filter(rng.normal(size=(height, width // 2)), 1)
    vis = 0.5 + texture
    return 0.4 + 0.3 * texture, vis


def test_noise_in_flat_areas_is_an_artifact():
    """Where no source has a gradient to compare with, every gradient is invented."""
    ir, vis = flat_pair()
    rater, fused = SourcePair(ir, vis), (ir + vis) / 2
    clean, scores = rater.rate(fused), []
    for sigma in (0.01, 0.02, 0.04):
        worse = fused.copy()
        worse[:, 64:] = noisy(worse[:, 64:], sigma)
        scores.append(rater.rate(worse).artifacts)
    assert [clean.artifacts, *scores] == sorted([clean.artifacts, *scores], reverse=True)
    assert clean.artifacts > scores[0] > scores[-1]
    assert clean.artifacts - scores[-1] > 0.5


def test_flat_excess_is_in_grey_levels_and_not_below_zero():
    ramp = torch.linspace(0, 1, 50, dtype=torch.float64).expand(40, 50)
    weak = EdgePreservation(10 * ramp, ramp, ramp > 2)
    none = EdgePreservation(torch.zeros_like(ramp), ramp, ramp > 2)
    flat = 10 * ramp <= np.quantile(10 * ramp, 0.3)
    level = float((10 * ramp)[flat].mean())
    assert _flat_excess(weak, none, torch.zeros_like(ramp)) == 0
    assert _flat_excess(weak, none, 10 * ramp) == 0  # no more than the stronger source has
    assert _flat_excess(none, weak, 10 * ramp + 4) == pytest.approx(4 - 0.3 * level)
    assert _flat_excess(none, none, torch.full_like(ramp, 3)) == pytest.approx(3)
    busy = torch.where(flat, 0, 50.0)  # gradients where a source has them too
    assert _flat_excess(weak, none, busy) == 0


def test_the_pictures_border_does_not_count():
    """Sobel sees zeros beyond it: there a bright picture has an edge that no one sees."""
    ir, vis = (image[8:-8, 8:-8] for image in synthetic_pair())
    fused = laplacian_pyramid(ir, vis)
    changed = [image.copy() for image in (ir, vis, fused)]
    rater, grey = SourcePair(ir, vis), as_grey(fused)
    found, known = _edges(grey, grey), edge_preservation(grey, grey).strength
    assert all(part.shape == (1, 78, 110) for part in found)
    assert torch.equal(found.strength, known[:, 1:-1, 1:-1])
    # Lighter all over: of the gradients only the border's would change.
    darker = SourcePair(*(0.5 * image for image in changed[:2])).rate(0.5 * changed[2])
    lighter = SourcePair(*(0.5 * image + 0.5 for image in changed[:2])).rate(0.5 * changed[2] + 0.5)
    assert lighter.sharpness == pytest.approx(darker.sharpness, abs=1e-9)
    assert rater.rate(fused).sharpness == pytest.approx(darker.sharpness, abs=1e-9)


def test_ratings_do_not_depend_on_the_order_of_rating(pair, rater):
    first = rater.rate(laplacian_pyramid(*pair))
    rater.rate(pair[0])
    assert rater.rate(laplacian_pyramid(*pair)) == first
