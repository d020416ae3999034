"""What proxy ratings are made of beyond the package's measures: exact cases and invariants."""

import numpy as np
import pytest
from fuscore_training.fusions.classic import maximum
from fuscore_training.labels import label_measures
from fuscore_training.labels.label_measures import (
    as_grey,
    thermal_contrast_retention,
    thermal_targets,
)
from scipy import ndimage

from fuscore_metric.measures.formulas.edges import edge_preservation


def invented_edges(ir, vis, fused):
    fused = as_grey(fused)
    return label_measures.invented_edges(
        *(edge_preservation(as_grey(source), fused) for source in (ir, vis))
    )


def perceptual_difference(ir, vis, fused):
    return label_measures.perceptual_difference(*map(as_grey, (ir, vis, fused)))


def noisy(image, sigma):
    return image + np.random.default_rng(0).normal(0, sigma, image.shape)


def test_invented_edges_are_only_what_neither_source_has(pair):
    ir, vis = pair
    assert invented_edges(ir, vis, ir) == invented_edges(ir, vis, vis) == 0
    assert invented_edges(ir, vis, np.full_like(ir, 0.0)) == 0
    assert invented_edges(ir, vis, noisy(maximum(ir, vis), 0.05)) > 0.02


def test_invented_edges_by_hand():
    """A step three times as high: of a third of the strength 0.07 is preserved."""
    step = np.repeat([[0.4, 0.5]], 12, axis=1).repeat(24, axis=0)
    raised = 0.45 + 3 * (step - 0.45)
    kept = 0.9994 / (1 + np.exp(-15 * (1 / 3 - 0.5))) * 0.9879 / (1 + np.exp(-22 * 0.2))
    found = edge_preservation(as_grey(step), as_grey(raised))
    inner = found._make(part[:, 2:-2, 2:-2] for part in found)
    assert label_measures.invented_edges(inner, inner) == pytest.approx(1 - kept, abs=1e-9)


def test_invented_edges_do_not_count_where_neither_source_has_a_gradient():
    """Their weights are the sources' gradients: a limit to know, met in skies and walls."""
    flat = np.full((48, 48), 0.5)
    flat[:, :12] = 0.2
    invented = flat.copy()
    invented[16:32, 24:40] = 0.8
    assert invented_edges(flat, flat, invented) == 0


def test_perceptual_difference_is_0_only_for_what_equals_both(pair):
    ir, vis = pair
    assert perceptual_difference(ir, ir, ir) == 0
    assert perceptual_difference(ir, vis, ir) > 1
    assert perceptual_difference(ir, vis, vis) > 1


def test_perceptual_difference_of_a_known_wave(pair):
    """A wave of 8 pixels is 7.5 cycles a degree; blocks of 16 hold two of it."""
    wave = 0.02 * np.sin(2 * np.pi * np.arange(128) / 8)[None, :].repeat(96, axis=0)
    gain = 2.6 * (0.0192 + 0.114 * 7.5) * np.exp(-((0.114 * 7.5) ** 1.1))
    found = perceptual_difference(pair[0], pair[0], pair[0] + wave)
    assert found == pytest.approx((0.02 * 255 * gain) ** 2 / 2, rel=1e-9)


def test_perceptual_difference_asks_the_more_salient_source():
    """Each half of the scene has its edges in one source: there that source is to be kept."""
    stripes = 0.5 + 0.3 * np.sign(np.sin(np.arange(96) / 2))[None, :].repeat(96, axis=0)
    ir, vis = np.full((96, 96), 0.5), np.full((96, 96), 0.5)
    ir[:, :48], vis[:, 48:] = stripes[:, :48], stripes[:, 48:]
    right, wrong = ir + vis - 0.5, np.full_like(ir, 0.5)
    assert perceptual_difference(ir, vis, right) < 0.2 * perceptual_difference(ir, vis, wrong)


@pytest.mark.parametrize("measure", [invented_edges, perceptual_difference])
def test_noise_makes_both_worse(measure, pair):
    fused = maximum(*pair)
    values = [measure(*pair, noisy(fused, sigma)) for sigma in (0, 0.02, 0.05, 0.1)]
    assert (np.diff(values) > 0).all(), values


def test_blur_is_a_difference(pair):
    blurred = [ndimage.gaussian_filter(maximum(*pair), sigma) for sigma in (0, 1, 2, 3)]
    found = [perceptual_difference(*pair, fused) for fused in blurred]
    assert (np.diff(found) > 0).all(), found


def test_thermal_contrast_retention(pair):
    ir, _ = pair
    targets = thermal_targets(ir)

    def retention(fused):
        return thermal_contrast_retention(targets, ir, fused)

    assert retention(ir) == pytest.approx(1, abs=1e-12)
    assert retention(np.full_like(ir, 0.7)) == pytest.approx(0, abs=1e-12)
    assert retention(0.2 + 0.3 * ir) == pytest.approx(0.3, abs=1e-12)
    assert retention(1 - ir) == pytest.approx(-1, abs=1e-12)


def test_thermal_targets_are_what_is_hot(pair):
    hot, surround = thermal_targets(pair[0])
    core = pair[0] > 0.7
    assert core.sum() > 200
    assert hot[core].min() > 0.8
    assert np.quantile(hot[~core], 0.95) < 0.3
    assert hot.min() == 0
    assert hot.max() <= 1
    assert (surround[hot == 1] == 0).all()
    ring = ndimage.binary_dilation(core, iterations=3) & ~core
    assert surround[ring].mean() > 10 * surround[~ring & ~core].mean()


def test_nothing_hot_is_nothing_lost():
    flat = np.full((64, 64), 0.4)
    found = thermal_contrast_retention(thermal_targets(flat), flat, np.zeros((64, 64)))
    assert found == 1
