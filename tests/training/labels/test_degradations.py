"""Controlled damage: shapes, what each kind does, and that strength means damage."""

import numpy as np
import pytest
from fuscore_training.fusions.classic import maximum, to_bytes
from fuscore_training.labels.degradations import (
    DEGRADATIONS,
    Sources,
    degrade,
    draw_region,
    draw_strength,
)
from fuscore_training.labels.label_measures import thermal_targets

RANDOM_KINDS = {"noise", "stripes", "exposure", "ghost"}
TINT = np.array([1.0, 0.9, 0.8])


@pytest.fixture(scope="module")
def sources(pair) -> Sources:
    return Sources(*pair)


@pytest.fixture(scope="module", params=["grey", "colour"])
def fused(request, pair):
    """(H, W) or (H, W, 3): the pixelwise maximum, a hot target in a textured scene."""
    grey = maximum(*pair)
    return grey if request.param == "grey" else grey[..., None] * TINT


def damaged(image, kind, strength, sources, seed=0, **options):
    return degrade(image, kind, strength, sources, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_shape_and_type(kind, fused, sources):
    strength = DEGRADATIONS[kind][2]
    before = fused.copy()
    found = damaged(fused, kind, strength, sources)
    assert found.shape == fused.shape
    assert found.dtype == np.uint8
    assert np.array_equal(fused, before)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_strength_is_more_damage(kind, fused, sources):
    _, low, high = DEGRADATIONS[kind]
    strengths = np.geomspace(low, high, 5)
    if kind == "ghost":
        # A ghost is soon clear of this small image's detail; from there on the error only varies.
        strengths = np.array([low, 4.0])
    clean, errors = to_bytes(fused).astype(float), [0.0]
    for strength in strengths:
        found = damaged(fused, kind, strength, sources)
        errors.append(float(((found - clean) ** 2).mean()))
    assert (np.diff(errors) > 0).all(), errors


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_randomness_comes_from_the_generator_only(kind, fused, sources):
    strength = DEGRADATIONS[kind][2]
    one = damaged(fused, kind, strength, sources)
    assert np.array_equal(one, damaged(fused, kind, strength, sources))
    others = [damaged(fused, kind, strength, sources, seed) for seed in range(1, 6)]
    changes = any(not np.array_equal(one, other) for other in others)
    assert changes == (kind in RANDOM_KINDS)


def test_unknown_kind(sources):
    with pytest.raises(ValueError, match=r"noise, stripes, .*got 'rain'"):
        damaged(sources.vis, "rain", 1.0, sources)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_drawn_strengths_fill_their_bounds(kind):
    rng = np.random.default_rng(0)
    drawn = np.array([draw_strength(kind, rng) for _ in range(2000)])
    _, low, high = DEGRADATIONS[kind]
    assert low <= drawn.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < drawn.max() <= high
    middle = (low + high) / 2 if kind == "jpeg" else np.sqrt(low * high)
    assert np.median(drawn) == pytest.approx(middle, rel=0.08)


def test_noise_and_stripes_have_the_deviation_asked_for(sources):
    grey = np.full((96, 128), 0.5)
    noise = damaged(grey, "noise", 0.05, sources) / 255.0
    stripes = damaged(grey, "stripes", 0.05, sources) / 255.0
    assert noise.std() == pytest.approx(0.05, rel=0.03)
    assert stripes.std() == pytest.approx(0.05, rel=0.15)
    assert (stripes == stripes[0]).all()  # columns, over the whole height


def test_noise_is_grey(sources):
    colour = np.full((96, 128, 3), 0.5)
    noise = damaged(colour, "noise", 0.05, sources)
    assert (noise == noise[..., :1]).all()


def test_blur_does_not_mix_colours(pair, sources):
    red = np.zeros((96, 128, 3))
    red[..., 0] = pair[1]
    found = damaged(red, "blur", 3.0, sources)
    assert np.array_equal(found[..., 0], damaged(pair[1], "blur", 3.0, sources))
    assert not found[..., 1:].any()


def test_contrast_shrinks_the_deviation_about_the_mean(pair, sources):
    found = damaged(pair[1], "contrast", 0.6, sources) / 255.0
    assert found.std() == pytest.approx(0.4 * pair[1].std(), rel=0.02)
    assert found.mean() == pytest.approx(pair[1].mean(), abs=0.002)


def test_exposure_goes_both_ways(pair, sources):
    means = [damaged(pair[1], "exposure", 0.5, sources, seed).mean() for seed in range(8)]
    clean = 255 * pair[1].mean()
    assert min(means) < 0.6 * clean
    assert max(means) > 1.2 * clean


def test_halo_and_texture_suppression_leave_flat_areas(sources):
    flat = np.full((96, 128), 0.5)
    for kind in ("halo", "texture_suppression", "blur"):
        assert (damaged(flat, kind, 1.0, sources) == 128).all()


def test_texture_suppression_spares_a_strong_edge(sources):
    edge = np.repeat([[0.2, 0.8]], 64, axis=1).repeat(96, axis=0)
    assert np.array_equal(damaged(edge, "texture_suppression", 1.0, sources), to_bytes(edge))
    assert not np.array_equal(damaged(edge, "blur", 1.0, sources), to_bytes(edge))


def test_thermal_suppression_fades_the_target_only(pair, sources):
    ir, vis = pair
    fused = maximum(ir, vis)
    found = damaged(fused, "thermal_suppression", 1.0, sources) / 255.0
    hot = thermal_targets(ir).hot
    core, far = hot == 1, hot == 0
    assert core.sum() > 100
    assert np.abs(found - vis)[core].max() < 0.01
    change = np.abs(found - fused)[far]
    assert np.quantile(change, 0.9) < 0.01


def test_ghost_needs_infrared_detail(pair):
    flat = Sources(np.full_like(pair[0], 0.4), pair[1])
    assert np.array_equal(damaged(pair[1], "ghost", 8.0, flat), to_bytes(pair[1]))


# Damage to a part


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_damage_stays_where_it_is_put(kind, fused, sources):
    strength, left = DEGRADATIONS[kind][2], np.zeros((96, 128))
    left[:, :64] = 1
    whole, part = (damaged(fused, kind, strength, sources, where=where) for where in (None, left))
    assert part.dtype == np.uint8
    assert np.array_equal(part[:, 64:], to_bytes(fused)[:, 64:])
    assert np.array_equal(part[:, :64], whole[:, :64])


def test_damage_everywhere_and_nowhere(fused, sources):
    everywhere, nowhere = np.ones((96, 128)), np.zeros((96, 128))
    whole = damaged(fused, "noise", 0.1, sources)
    assert np.array_equal(damaged(fused, "noise", 0.1, sources, where=everywhere), whole)
    untouched = damaged(fused, "noise", 0.1, sources, where=nowhere)
    assert np.array_equal(untouched, to_bytes(fused))


def test_half_the_weight_is_half_the_damage(sources):
    grey = np.full((96, 128), 0.5)
    found = damaged(grey, "noise", 0.05, sources, where=np.full((96, 128), 0.5))
    assert (found / 255.0).std() == pytest.approx(0.025, rel=0.03)


@pytest.mark.parametrize("shape", [(96, 128), (480, 640), (128, 96), (72, 200)])
def test_regions_are_soft_rectangles_of_a_tenth_to_a_half(shape):
    rng = np.random.default_rng(0)
    shares, tops, lefts = [], [], []
    for _ in range(200):
        mask = draw_region(shape, rng)
        assert mask.shape == shape
        assert mask.min() >= 0
        assert 0.99 < mask.max() <= 1 + 1e-12
        shares.append(mask.mean())
        rows, columns = mask.max(1), mask.max(0)
        assert np.allclose(mask, rows[:, None] * columns / mask.max(), atol=1e-9)
        for profile in (rows, columns):
            inside = np.flatnonzero(profile > 0.5)
            assert len(inside) == np.ptp(inside) + 1  # one run
            # Soft edges of a few pixels: from nothing to all within 16.
            assert ((profile > 0.01) & (profile < 0.99)).sum() <= 2 * 16
        tops.append(int(np.argmax(rows > 0.5)))
        lefts.append(int(np.argmax(columns > 0.5)))
    assert 0.09 < min(shares) < 0.12
    assert 0.47 < max(shares) < 0.51
    assert len(set(tops)) > 5
    assert len(set(lefts)) > 5


def test_regions_come_from_the_generator_only():
    first, again = (draw_region((96, 128), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_region((96, 128), np.random.default_rng(4)))
