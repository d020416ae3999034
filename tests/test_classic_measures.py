"""Classic measures: identities, exact cases, and the values that benchmark authors published.

`plain_qabf` and `plain_vif` below are second, plain computations. With the switches that the
published toolboxes have, they give the published numbers; without them, they give ours. So ours
differ from the published ones by exactly these switches:

- Qabf: VIFB's and TNO's toolboxes do not wrap a difference of orientations at pi, though an edge
  at 89 and one at -89 degrees are all but parallel. Ours wraps, as the paper does, and is 0.02 to
  0.07 higher. Their ratio of two equal gradients is also the gradient itself, not 1.
- VIF: the TNO toolbox passes 8-bit images, whose products saturate at 255 in MATLAB, so that the
  finest scale all but drops out. It sums VIF over both sources. Ours multiplies as numbers do.
"""

import numpy as np
import pandas as pd
import pytest
from fuscore_training.classic_fusions import luma, maximum
from fuscore_training.classic_measures import (
    edge_preservation,
    nabf,
    perceptual_difference,
    qabf,
    thermal_contrast_retention,
    thermal_targets,
    vif,
)
from fuscore_training.proxy_ratings import read_image
from scipy import ndimage
from scipy.signal import convolve2d
from scipy.stats import spearmanr

# Both sigmoids at their best: full strength kept, orientations equal.
FULL_STRENGTH = 0.9994 / (1 + np.exp(-15 * 0.5))
FULL_EDGE = FULL_STRENGTH * 0.9879 / (1 + np.exp(-22 * 0.2))
INNER = (slice(2, -2), slice(2, -2))  # clear of the filter's zero border


def q(ir, vis, fused):
    return qabf(edge_preservation(ir, fused), edge_preservation(vis, fused))


def n(ir, vis, fused):
    return nabf(edge_preservation(ir, fused), edge_preservation(vis, fused))


def noisy(image, sigma):
    return image + np.random.default_rng(0).normal(0, sigma, image.shape)


def plain_qabf(ir, vis, fused, *, wrapped, ratio_of_equals_is_1):
    def sobel(image):
        across = convolve2d(image, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "same")
        down = convolve2d(image, [[1, 2, 1], [0, 0, 0], [-1, -2, -1]], "same")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.hypot(across, down), np.where(
                across == 0, np.pi / 2, np.arctan(down / across)
            )

    kept = total = 0.0
    fused_strength, fused_orientation = sobel(fused)
    for strength, orientation in map(sobel, (ir, vis)):
        with np.errstate(invalid="ignore"):
            ratio = np.minimum(strength, fused_strength) / np.maximum(strength, fused_strength)
        equals = np.sign(strength) if ratio_of_equals_is_1 else strength
        ratio = np.where(strength == fused_strength, equals, ratio)
        angle = np.abs(orientation - fused_orientation)
        aligned = 1 - (np.minimum(angle, np.pi - angle) if wrapped else angle) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
        quality *= 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))
        kept, total = kept + (quality * strength).sum(), total + strength.sum()
    return kept / total


def plain_vif(reference, image, *, multiply_finest=np.multiply):
    """Both images in [0, 255]."""
    gained = total = 0.0
    for scale, width in enumerate((17, 9, 5, 3)):
        place = np.arange(width) - width // 2
        line = np.exp(-(place**2) / (2 * (width / 5) ** 2))
        line /= line.sum()

        def smooth(values, line=line):
            return convolve2d(convolve2d(values, line[None], "valid"), line[:, None], "valid")

        if scale > 0:
            reference, image = smooth(reference)[::2, ::2], smooth(image)[::2, ::2]
        multiply = np.multiply if scale > 0 else multiply_finest
        mean_r, mean_i = smooth(reference), smooth(image)
        var_r = np.maximum(smooth(multiply(reference, reference)) - mean_r**2, 0)
        var_i = np.maximum(smooth(multiply(image, image)) - mean_i**2, 0)
        cov = smooth(multiply(reference, image)) - mean_r * mean_i
        gain = np.where((var_r < 1e-10) | (var_i < 1e-10) | (cov < 0), 0, cov / (var_r + 1e-10))
        rest = np.where(cov < 0, var_i, np.maximum(var_i - gain * cov, 1e-10))
        gained += np.log10(1 + gain**2 * var_r / (rest + 2)).sum()
        total += np.log10(1 + var_r / 2).sum()
    return gained / total


def test_a_perfect_copy_keeps_all_of_its_edges(pair):
    found = edge_preservation(pair[0], pair[0])
    assert found.preserved[found.strength > 0] == pytest.approx(FULL_EDGE, abs=1e-12)
    assert not found.exceeded.any()
    assert q(pair[0], pair[0], pair[0]) == pytest.approx(FULL_EDGE, abs=1e-12)


@pytest.mark.parametrize(
    ("degrees", "other_degrees", "apart"),
    [(10, 10, 0), (10, 40, 30), (30, 120, 90), (80, 100, 20), (85, 95, 10), (0, 180, 0)],
)
def test_edges_have_orientations_not_directions(degrees, other_degrees, apart):
    """Two ramps: the preservation must depend on the angle between the lines, wrapped at 180."""

    def ramp(angle):
        rows, columns = np.mgrid[:24, :24] / 100
        return 0.5 + columns * np.cos(np.radians(angle)) + rows * np.sin(np.radians(angle))

    found = edge_preservation(ramp(degrees), ramp(other_degrees)).preserved[INNER]
    expected = FULL_STRENGTH * 0.9879 / (1 + np.exp(-22 * (1 - apart / 90 - 0.8)))
    assert found == pytest.approx(np.full(found.shape, expected), rel=1e-6)


@pytest.mark.parametrize("gain", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_weakened_and_exaggerated_edges_count_alike(gain):
    step = np.repeat([[0.4, 0.5]], 12, axis=1).repeat(24, axis=0)
    found = edge_preservation(step, 0.45 + gain * (step - 0.45))
    edge = np.zeros(step.shape, dtype=bool)
    edge[2:-2, 11:13] = True
    ratio = min(gain, 1 / gain)
    expected = FULL_EDGE / FULL_STRENGTH * 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
    assert found.preserved[edge] == pytest.approx(expected, abs=1e-9)
    assert (found.exceeded[edge] == (gain > 1)).all()
    assert found.strength[edge] == pytest.approx(0.1 * 255 * 4)


def test_qabf_equals_a_plain_computation(pair):
    ir, vis = pair
    for fused in (maximum(ir, vis), ir, noisy(vis, 0.05), 1 - ir):
        plain = plain_qabf(ir, vis, fused, wrapped=True, ratio_of_equals_is_1=True)
        assert q(ir, vis, fused) == pytest.approx(plain, abs=1e-5)
        assert q(ir, vis, fused) == pytest.approx(q(vis, ir, fused), abs=1e-12)


def test_qabf_of_a_flat_image_is_about_0(pair):
    grey = np.full_like(pair[0], 0.5)
    strengths = [edge_preservation(source, grey) for source in pair]
    kept = sum((s.preserved * s.strength)[INNER].sum() for s in strengths)
    assert kept / sum(s.strength[INNER].sum() for s in strengths) < 1e-3


def test_nabf_counts_only_what_neither_source_has(pair):
    ir, vis = pair
    assert n(ir, vis, ir) == n(ir, vis, vis) == 0
    assert n(ir, vis, np.full_like(ir, 0.0)) == 0
    assert n(ir, vis, noisy(maximum(ir, vis), 0.05)) > 0.02


def test_nabf_is_blind_where_neither_source_has_a_gradient():
    """Its weights are the sources' gradients: a limit to know, met in skies and walls."""
    flat = np.full((48, 48), 0.5)
    flat[:, :12] = 0.2
    invented = flat.copy()
    invented[16:32, 24:40] = 0.8
    assert n(flat, flat, invented) == 0


def test_vif_of_a_copy_is_1_and_of_nothing_0(pair):
    for image in pair:
        assert vif(image, image) == pytest.approx(1, abs=1e-6)
        assert vif(image, np.full_like(image, 0.5)) == pytest.approx(0, abs=1e-9)
        assert vif(image, 1 - image) == pytest.approx(0, abs=1e-9)


def test_vif_rewards_contrast(pair):
    vis = pair[1]
    assert vif(vis, 0.5 + 0.5 * (vis - 0.5)) < 0.99
    assert vif(vis, 0.5 + 1.5 * (vis - 0.5)) > 1.01


def test_vif_equals_a_plain_computation(pair):
    ir, vis = pair
    for reference, image in ((ir, vis), (vis, maximum(ir, vis)), (vis, noisy(vis, 0.05))):
        plain = plain_vif(reference * 255, image * 255)
        assert vif(reference, image) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("size", [(18, 18), (20, 90), (17, 60)])
def test_vif_of_small_images_uses_the_scales_that_fit(size):
    image = np.random.default_rng(0).random(size)
    expected = 0 if min(size) <= 17 else 1
    assert vif(image, image) == pytest.approx(expected, abs=1e-6)


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


@pytest.mark.parametrize(
    ("measure", "sign"), [(q, -1), (n, 1), (perceptual_difference, 1)], ids=["q", "n", "difference"]
)
def test_noise_makes_every_measure_worse(measure, sign, pair):
    fused = maximum(*pair)
    values = [measure(*pair, noisy(fused, sigma)) for sigma in (0, 0.02, 0.05, 0.1)]
    assert (sign * np.diff(values) > 0).all(), values


def test_blur_lowers_what_is_kept(pair):
    ir, vis = pair
    blurred = [ndimage.gaussian_filter(maximum(ir, vis), sigma) for sigma in (0, 1, 2, 3)]
    for kept in (
        [q(ir, vis, fused) for fused in blurred],
        [vif(vis, fused) for fused in blurred],
        [-perceptual_difference(ir, vis, fused) for fused in blurred],
    ):
        assert (np.diff(kept) < 0).all(), kept


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


@pytest.mark.real_data
@pytest.mark.parametrize("scene", ["carLight", "fight", "running"])
def test_published_qabf_of_vifb(real_data, scene):
    """Each colour channel for itself, visible first, as VIFB's toolbox does; 5 digits published."""
    folder = real_data / "VIFB"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv")
    table = table[(table.metric == "Qabf") & (table.scene == scene)].set_index("method").value

    def channels(path):
        image = read_image(path)
        return [image[..., channel] for channel in range(3)] if image.ndim == 3 else [image] * 3

    for method in ("ADF", "CBF"):
        places = ("vis", "ir", f"fused/{method}")
        triples = list(
            zip(*(channels(folder / place / f"{scene}.jpg") for place in places), strict=True)
        )
        # In steps of 255 * 255, where the toolbox has its images: integers, so equal means equal.
        whole = [[np.rint(image * 255) * 255 for image in triple] for triple in triples]

        def mean_plain(whole=whole, **switches):
            return np.mean([plain_qabf(*triple, **switches) for triple in whole])

        theirs = mean_plain(wrapped=False, ratio_of_equals_is_1=False)
        assert theirs == pytest.approx(table[method], abs=2e-5)
        ours = np.mean([q(*triple) for triple in triples])
        assert ours == pytest.approx(mean_plain(wrapped=True, ratio_of_equals_is_1=True), abs=2e-4)


TNO_SCENES = ("05", "08", "41")
TNO_METHODS = ("DenseFuse", "FusionGAN", "IFCNN", "PIAFusion", "SeAFusion")


@pytest.fixture(scope="module")
def tno(real_data) -> pd.DataFrame:
    """Published and own values of some scenes and methods."""
    folder = real_data / "TNO"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv", dtype={"image": str})
    published = table.set_index(["image", "method", "metric"]).value

    def grey(path):
        return np.rint(luma(read_image(path)) * 255)  # 8 bits, as MATLAB's rgb2gray gives

    def saturating(a, b):
        return np.minimum(a * b, 255)

    rows = []
    for scene in TNO_SCENES:
        ir, vis = (grey(folder / name / f"{scene}.png") for name in ("ir", "vis"))
        for method in TNO_METHODS:
            fused = grey(folder / "fused" / method / f"{scene}.png")
            triple = [image / 255 for image in (ir, vis, fused)]
            row = {
                "published_vif": published[scene, method, "VIF"],
                "published_qabf": published[scene, method, "Qabf"],
                "saturating_vif": sum(
                    plain_vif(source, fused, multiply_finest=saturating) for source in (ir, vis)
                ),
                "unwrapped_qabf": plain_qabf(*triple, wrapped=False, ratio_of_equals_is_1=False),
                "vif": vif(triple[0], triple[2]) + vif(triple[1], triple[2]),
                "qabf": q(*triple),
            }
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.real_data
def test_published_vif_of_tno(tno):
    assert np.abs(tno.saturating_vif - tno.published_vif).max() < 1e-8
    # Losing the finest scale, where noise and blur are, changes the order of methods somewhat.
    assert spearmanr(tno.vif, tno.published_vif).statistic > 0.75


@pytest.mark.slow
@pytest.mark.real_data
def test_published_qabf_of_tno(tno):
    """Computed in [0, 1], where rounding decides which gradients are equal, at times far off."""
    error = np.abs(tno.unwrapped_qabf - tno.published_qabf)
    assert error.median() < 5e-4
    assert error.quantile(0.9) < 1e-3
    assert error.max() < 0.02
    assert spearmanr(tno.qabf, tno.published_qabf).statistic > 0.98
