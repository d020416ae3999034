"""Feature mutual information, against a loop over all windows and all cells of their joint."""

import numpy as np
import pytest
import torch

from fuscore_metric.measures.formulas import features
from fuscore_metric.measures.formulas.features import MEASURES
from fuscore_metric.measures.formulas.joint import source_windows
from fuscore_metric.measures.formulas.wavelet import UNITS, meyer_taps, meyer_wavelet
from fuscore_metric.measures.grey import Grey

COMPUTE = {one.name: one.compute for one in MEASURES}


def grey(*images):
    return Grey(torch.stack([torch.as_tensor(image, dtype=torch.float64) for image in images]))


def across(image):
    return np.gradient(image, axis=1)


def wavelet(image):
    low = np.array(meyer_taps())[::-1]
    high = [(-1) ** (n + 1) * tap for n, tap in enumerate(low[::-1])]

    def filtered(rows, taps):
        wide = np.pad(rows, ((0, 0), (len(taps) - 1,) * 2), mode="symmetric")
        return np.array([np.convolve(row, taps, "valid")[1::2] for row in wide])

    def part(rows, columns):
        return filtered(filtered(image, rows).T, columns).T

    parts = np.block([[part(low, low), part(low, high)], [part(high, low), part(high, high)]])
    low, high = parts.min(), parts.max()
    return np.round((parts - low) / (high - low) * 2**30) / 2**30 if high > low else parts * 0


FEATURE = {"FMI_pixel": lambda image: image, "FMI_gradient": across, "FMI_wavelet": wavelet}


def distribution(window):
    mass = window.T.ravel() - window.min()
    return mass / mass.sum() if mass.any() else np.full(9, 1 / 9)


def spread(p):
    place = np.arange(9)
    return np.sqrt(max((place**2 * p).sum() - (place * p).sum() ** 2, 0))


def entropy(p):
    return -sum(x * np.log2(abs(x)) for x in np.ravel(p) if x)


def shared(a, f):
    """Of two windows."""
    if (a == f).all():
        return 1.0
    p, q = distribution(a), distribution(f)
    flat = np.ptp(a) == 0 or np.ptp(f) == 0
    c = 0.0 if flat else np.corrcoef(p, q)[0, 1]
    if c < 0:
        q = q[::-1]
    upper = np.minimum(np.cumsum(p)[:, None], np.cumsum(q))
    joint, phi = np.outer(p, q), 0.0
    if spread(p) * spread(q) > 0:
        covariance = (upper - np.outer(np.cumsum(p), np.cumsum(q))).sum()
        phi = abs(c) * spread(p) * spread(q) / covariance
    mass = np.diff(np.diff(upper, axis=0, prepend=0), axis=1, prepend=0)
    both = entropy(p) + entropy(q)
    return 2 * (both - entropy(phi * mass + (1 - phi) * joint)) / both if both else 0.0


def plain(source, fused):
    rows, columns = np.array(fused.shape) - 2
    windows = [
        shared(source[y : y + 3, x : x + 3], fused[y : y + 3, x : x + 3])
        for y in range(rows)
        for x in range(columns)
    ]
    return np.mean(windows)


def scene(kind, shape=(9, 12)):
    """ir, vis and fused."""
    random = np.random.default_rng(5)
    ir, vis = random.integers(0, 256, (2, *shape)).astype(float)
    fused = np.rint(0.7 * ir + 0.3 * vis)
    if kind == "partly flat and equal":
        ir[:, :5], vis[:, :4], fused[:, 4:9] = 90, 17, ir[:, 4:9]
        fused[5:, :6] = 90
    if kind == "few levels":  # windows with one bright pixel, and with all mass in a few
        ir, vis, fused = (np.where(image > 200, 255.0, 0.0) for image in (ir, vis, fused))
    if kind == "opposed":
        fused = 255 - ir
    if kind == "smooth":
        y, x = np.mgrid[: shape[0], : shape[1]]
        ir, vis, fused = 9 * y + 2 * x, 3 * x + y * x, 5 * y + x + y * x
    return tuple(np.asarray(image, dtype=float) for image in (ir, vis, fused))


@pytest.mark.parametrize(
    "kind", ["noise", "partly flat and equal", "few levels", "opposed", "smooth"]
)
@pytest.mark.parametrize("name", ["FMI_pixel", "FMI_gradient"])
def test_equals_a_loop_over_windows_and_cells(name, kind):
    images = scene(kind)
    ir, vis, fused = map(FEATURE[name], images)
    expected = (plain(ir, fused) + plain(vis, fused)) / 2
    assert COMPUTE[name](*map(grey, images)).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("kind", ["noise", "partly flat and equal"])
def test_wavelet_feature_is_that_of_plain_convolutions(kind):
    for image in scene(kind, (33, 40)):
        found = meyer_wavelet(torch.as_tensor(image)[None])[0].numpy()
        np.testing.assert_allclose(found, wavelet(image), rtol=0, atol=2**-29)


def test_wavelet_measure_equals_a_loop():
    images = scene("noise", (32, 33))
    corner = (slice(0, 24), slice(60, 84))  # reaches into the part of the high rows
    ir, vis, fused = (np.rint(wavelet(image)[corner] * UNITS) for image in images)
    whole = [torch.as_tensor(one).int() for one in (ir, vis, fused)]
    sources = torch.stack(whole[:2])
    found = features._mean([(sources, source_windows(sources))], whole[2])
    expected = (plain(ir, fused) + plain(vis, fused)) / 2
    assert found.item() == pytest.approx(expected, abs=2e-6)


def test_filter_is_that_of_wavelib_and_nearly_orthonormal():
    taps = np.array(meyer_taps())
    known = {0: 0.743751004903787, 1: 0.444095030766529, 16: 0.000859500213762, 50: -1.509740857e-6}
    for distance, value in known.items():
        assert taps[[50 - distance, 50 + distance]] == pytest.approx(value, abs=1e-10)
    assert len(taps) == 102
    assert taps[-1] == 0
    assert taps.sum() == pytest.approx(2**0.5)
    assert taps @ taps == pytest.approx(1, abs=2e-6)  # it is not exact: the filter is cut off
    assert max(abs(taps[2 * n :] @ taps[: -2 * n]) for n in range(1, 50)) < 1e-6


@pytest.mark.parametrize("name", COMPUTE)
def test_flat_and_equal_images(name):
    ir, vis, _ = scene("noise", (40, 44))
    flat, white = np.full_like(ir, 100), np.full_like(ir, 255)
    black = flat * 0
    assert COMPUTE[name](*map(grey, (ir, ir, ir))).item() == 1
    assert COMPUTE[name](*map(grey, (flat, flat, flat))).item() == 1
    seams = 0.02 if name == "FMI_wavelet" else 0  # between parts of different levels
    assert 0 <= COMPUTE[name](*map(grey, (ir, vis, flat))).item() <= seams
    assert 0 <= COMPUTE[name](*map(grey, (flat, black, ir))).item() <= seams
    # Of a flat image the differences are 0 everywhere, whatever its level.
    assert COMPUTE["FMI_pixel"](*map(grey, (black, white, flat))).item() == 0
    assert COMPUTE["FMI_gradient"](*map(grey, (black, white, flat))).item() == 1


@pytest.mark.parametrize("name", COMPUTE)
def test_batches_and_bands_do_not_change_the_value(name, monkeypatch):
    ir, vis, fused = scene("noise", (40, 44))
    fusions = grey(fused, vis, np.maximum(ir, vis))
    fusions.pixels.requires_grad_()
    values = COMPUTE[name](grey(ir), grey(vis), fusions)
    assert not values.requires_grad
    torch.testing.assert_close(values, COMPUTE[name](grey(*[ir] * 3), grey(*[vis] * 3), fusions))
    monkeypatch.setattr(features, "BAND", 300)
    one = COMPUTE[name](grey(ir), grey(vis), grey(fused))
    torch.testing.assert_close(one, values[:1], rtol=0, atol=1e-7)


def test_threads_change_no_bit():
    images = [*map(grey, scene("noise", (120, 300)))]
    threads = torch.get_num_threads()
    try:
        found = set()
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(COMPUTE["FMI_pixel"](*images).item())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_only_the_pattern_of_a_window_counts():
    ir, vis, fused = scene("noise")
    ir, vis = 2 * (ir // 2), 2 * (vis // 2)
    one = COMPUTE["FMI_pixel"](*map(grey, (ir, vis, fused)))
    other = COMPUTE["FMI_pixel"](*map(grey, (ir / 2 + 90, vis / 2, fused)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
