"""Qcb and Qcv, against plain computations and against published values."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.signal import convolve2d

from fuscore_metric.measures.catalogue import MEASURES
from fuscore_metric.measures.formulas.perception import PUBLISHED
from fuscore_metric.measures.grey import Grey, channel_levels


def grey(image):
    return Grey(torch.as_tensor(np.asarray(image), dtype=torch.float64)[None])


def measured(name, *images):
    return float(MEASURES[name].compute(*map(grey, images)))


def published(name, *images):
    return float(PUBLISHED["vifb"][name](*map(grey, images)))


@pytest.fixture(scope="module")
def levels(pair):
    """ir, vis and a fusion, of whole grey levels, and of sides that 16 does not divide."""
    ir, vis = (np.rint(image[:75, :90] * 255) for image in pair)
    noise = np.random.default_rng(0).integers(-9, 10, ir.shape)
    return ir, vis, np.clip(np.maximum(ir, vis) + noise, 0, 200)


def filtered(image, gain, degrees, *, square):
    """`gain` has cycles per degree; `square`: both sides span as many degrees."""
    sides = image.shape if square else [max(image.shape)] * 2
    down, across = (
        np.fft.fftfreq(n) * side / degrees for n, side in zip(image.shape, sides, strict=True)
    )
    gains = gain(np.hypot(down[:, None], across[None]))
    return np.fft.ifft2(np.fft.fft2(image) * gains).real


def stretched(image):
    return np.floor((image - image.min()) / (image.max() - image.min()) * 255 + 0.5)


def difference_of_gaussians(cycles):
    return np.exp(-((cycles / 15.387) ** 2)) - 0.7622 * np.exp(-((cycles / 1.3456) ** 2))


def plain_qcb(ir, vis, fused, *, toolbox):
    masked = []
    for image in (ir, vis, fused):
        seen = stretched(image) if toolbox else image
        seen = filtered(seen, difference_of_gaussians, 15, square=toolbox)
        if toolbox:
            down, across = np.mgrid[-15:16, -15:16]
            windows = [
                np.exp(-(down**2 + across**2) / (2 * s**2)) / (2 * np.pi * s**2) for s in (2, 4)
            ]
            narrow, wide = (convolve2d(seen, window, "same") for window in windows)
        else:
            narrow, wide = (
                ndimage.gaussian_filter(seen, sigma, mode="wrap", truncate=9) for sigma in (2, 4)
            )
        contrast = np.abs(narrow / wide - 1)
        masked.append(contrast**3 / (contrast**2 + 0.0001))
    a, b, f = masked
    q_a, q_b = (np.minimum(x, f) / np.maximum(x, f) for x in (a, b))
    return ((a**2 * q_a + b**2 * q_b) / (a**2 + b**2)).mean()


def plain_qcv(ir, vis, fused, *, toolbox):
    if toolbox:
        ir, vis, fused = map(stretched, (ir, vis, fused))
    scale = 0.144 if toolbox else 0.114

    def mannos_sakrison(r):
        return 2.6 * (0.0192 + scale * r) * np.exp(-((scale * r) ** 1.1))

    weighted = total = 0.0
    for source in (ir, vis):
        border = "constant" if toolbox else "nearest"
        strength = np.hypot(*(ndimage.sobel(source, axis, mode=border) for axis in (0, 1)))
        seen = filtered(source - fused, mannos_sakrison, 4, square=toolbox)
        for row in range(0, source.shape[0], 16):
            for column in range(0, source.shape[1], 16):
                block = slice(row, row + 16), slice(column, column + 16)
                squares = seen[block] ** 2
                weight = (strength[block] ** 5).sum()
                weighted += weight * (squares.sum() / 256 if toolbox else squares.mean())
                total += weight
    return weighted / total


def test_equal_plain_computations(levels):
    for triple in (levels, levels[::-1]):
        for name, plain in (("Qcb", plain_qcb), ("Qcv", plain_qcv)):
            assert measured(name, *triple) == pytest.approx(plain(*triple, toolbox=False), rel=1e-7)
            assert published(name, *triple) == pytest.approx(plain(*triple, toolbox=True), rel=1e-9)


def test_flat_and_equal_images(levels):
    vis = levels[1]
    flat, white = np.full_like(vis, 70), np.full_like(vis, 255)
    for name, best in (("Qcb", 1), ("Qcv", 0)):
        for compute in (measured, published):
            assert compute(name, vis, vis, vis) == pytest.approx(best, abs=1e-12)
            assert compute(name, flat, flat, flat) == pytest.approx(best, abs=1e-12)
    assert measured("Qcb", white, flat, flat) == 1  # without contrast, nothing is lost
    assert measured("Qcb", flat, flat, vis) < 1e-3
    assert measured("Qcv", flat, flat, vis) > 1


def test_qcv_of_a_known_wave(levels):
    """16 waves on 128 pixels that span 4 degrees, two waves in a block; also on the short side."""
    wave = 5 * np.sin(2 * np.pi * np.arange(128) / 8)[None].repeat(96, axis=0)
    ir = 100 + np.random.default_rng(0).integers(0, 50, wave.shape)
    gain = 2.6 * (0.0192 + 0.114 * 4) * math.exp(-((0.114 * 4) ** 1.1))
    for disturbance in (wave, wave[:, :96].T.repeat(2, axis=1)[:, :128]):
        found = measured("Qcv", ir, ir, ir + disturbance)
        assert found == pytest.approx((5 * gain) ** 2 / 2, rel=1e-9)


def test_qcv_asks_the_more_salient_source():
    """Each half of the scene has its edges in one source: there that source is to be kept."""
    stripes = 80 + 60 * np.sign(np.sin(np.arange(96) / 2))[None, :].repeat(96, axis=0)
    ir, vis = np.full((2, 96, 96), 80.0)
    ir[:, :48], vis[:, 48:] = stripes[:, :48], stripes[:, 48:]
    right, wrong = ir + vis - 80, np.full_like(ir, 80)
    assert measured("Qcv", ir, vis, right) < 0.2 * measured("Qcv", ir, vis, wrong)


def test_lost_contrast_is_seen_though_toolboxes_hide_it(levels):
    vis = levels[1]
    weak = 100 + (vis - vis.min()) / 4
    assert published("Qcb", vis, vis, weak) > 0.99
    assert published("Qcv", vis, vis, weak) < 1
    assert measured("Qcb", vis, vis, weak) < 0.5
    assert measured("Qcv", vis, vis, weak) > 100


@pytest.mark.parametrize("name", ["Qcb", "Qcv"])
def test_gradients(name):
    ir, vis = 50 + torch.rand(2, 1, 17, 18, dtype=torch.float64, generator=torch.manual_seed(0)) * 9
    fused = ((ir + vis) / 2).requires_grad_()

    def compute(fused):
        return MEASURES[name].compute(Grey(ir), Grey(vis), Grey(fused))

    assert torch.autograd.gradcheck(compute, fused, fast_mode=True)
    for level in (0.0, 70.0):
        flat = torch.full_like(ir, level).requires_grad_()
        (slope,) = torch.autograd.grad(compute(flat).sum(), flat)
        assert slope.isfinite().all()
        assert slope.abs().max() < 1


@pytest.mark.real_data
def test_published_values_of_vifb(real_data):
    folder = real_data / "VIFB"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv")
    values = table.set_index(["scene", "method", "metric"]).value

    def channels(path):
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        return Grey(channel_levels(image.permute(2, 0, 1)[None] / 255)[:, 0])

    images = [channels(folder / place / "fight.jpg") for place in ("ir", "vis", "fused/CBF")]
    for name, tolerance in (("Qcb", 6e-6), ("Qcv", 0.06)):  # 5 digits are printed
        found = float(PUBLISHED["vifb"][name](*images).mean())
        assert found == pytest.approx(values["fight", "CBF", name], abs=tolerance)
