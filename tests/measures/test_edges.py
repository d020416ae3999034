"""Qabf, Nabf and Labf, against computations pixel by pixel and against published values."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fuscore_metric.measures.catalogue import MEASURES
from fuscore_metric.measures.formulas.edges import PUBLISHED, edge_preservation
from fuscore_metric.measures.grey import Grey, channel_levels, luma_levels


def grey(image):
    return Grey(torch.as_tensor(np.asarray(image), dtype=torch.float64)[None])


def measured(name, *images):
    return float(MEASURES[name].compute(*map(grey, images)))


def published(convention, *images):
    return float(PUBLISHED[convention]["Qabf"](*map(grey, images)))


@pytest.fixture(scope="module")
def levels(pair):
    """ir, vis and a noisy fusion, of whole grey levels; the sources have a flat corner."""
    ir, vis = (np.rint(image[:30, :37] * 255) for image in pair)
    ir[:9, :9], vis[:9, :9] = 90, 40
    noise = np.random.default_rng(0).integers(-9, 10, ir.shape)
    return ir, vis, np.clip(np.maximum(ir, vis) + noise, 0, 255)


def around(image, mode):
    """Each pixel's gradient across and down, by Sobel."""
    wide = np.pad(image, 1, mode=mode)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            (a, b, c), (d, _, e), (f, g, h) = wide[row : row + 3, column : column + 3].tolist()
            yield c + 2 * e + h - a - 2 * d - f, f + 2 * g + h - a - 2 * b - c


def sigmoid(value, high, slope, middle):
    return high / (1 + math.exp(-slope * (value - middle)))


def plain_qabf(ir, vis, fused, *, wrapped, equal_is_1):
    """Evaluators neither wrap angles nor divide equal gradients by each other."""
    kept = total = 0.0
    for source in (ir, vis):
        for own, other in zip(around(source, "constant"), around(fused, "constant"), strict=True):
            # Their gradient points left.
            (g, a), (h, b) = (
                (math.hypot(x, y), math.atan(y / -x) if x else math.pi / 2) for x, y in (own, other)
            )
            angle = abs(a - b)
            aligned = 1 - (min(angle, math.pi - angle) if wrapped else angle) / (math.pi / 2)
            ratio = ((equal_is_1 and g > 0) or g) if g == h else min(g, h) / max(g, h)
            quality = sigmoid(ratio, 0.9994, 15, 0.5) * sigmoid(aligned, 0.9879, 22, 0.8)
            kept, total = kept + quality * g, total + g
    return kept / total


def plain_kumar(ir, vis, fused):
    """Kept, lost and invented."""
    kept = lost = invented = total = 0.0
    for one, other, made in zip(*(around(x / 8, "reflect") for x in (ir, vis, fused)), strict=True):
        strength = math.hypot(*made)
        for own in (one, other):
            g = math.hypot(*own)
            ratio = min(g, strength) / max(g, strength) if g and strength else 0
            # He has 0 where neither changes, from the other axis: there nothing is kept anyway.
            a, b = (math.atan2(*x) if any(x) else 0 for x in (own, made))
            angle = abs(a - b) % math.pi
            aligned = 1 - min(angle, math.pi - angle) / (math.pi / 2)
            quality = math.sqrt(sigmoid(ratio, 0.9999, 19, 0.5) * sigmoid(aligned, 0.9995, 22, 0.5))
            weight = g**1.5 if g >= 2 else 0.001
            beyond = strength > math.hypot(*one) and strength > math.hypot(*other)
            kept += quality * weight
            lost += (1 - quality) * weight * (not beyond)
            invented += (1 - quality) * weight * beyond
            total += weight
    return kept / total, lost / total, invented / total


def test_qabf_equals_a_plain_computation(levels):
    flat = np.full_like(levels[0], 50)
    for triple in (levels, (levels[0], levels[1], levels[0]), (levels[0], flat, flat)):
        expected = plain_qabf(*triple, wrapped=True, equal_is_1=True)
        assert measured("Qabf", *triple) == pytest.approx(expected, abs=1e-12)
        expected = plain_qabf(*triple, wrapped=False, equal_is_1=False)
        for convention in ("tang", "cddfuse"):
            assert published(convention, *triple) == pytest.approx(expected, abs=1e-12)
        finer = plain_qabf(*(255 * image for image in triple), wrapped=False, equal_is_1=False)
        assert published("vifb", *triple) == pytest.approx(finer, abs=1e-12)
        assert published("tang2022", *triple) == pytest.approx(
            plain_qabf(*(image / 255 for image in triple), wrapped=False, equal_is_1=False),
            abs=0.02,  # rounding decides which gradients are equal
        )


@pytest.mark.parametrize(
    ("degrees", "other_degrees", "apart"),
    [(10, 10, 0), (10, 40, 30), (30, 120, 90), (80, 100, 20), (85, 95, 10), (0, 180, 0)],
)
def test_edges_have_orientations_not_directions(degrees, other_degrees, apart):
    """Two ramps: the preservation must depend on the angle between the lines, wrapped at 180."""

    def ramp(angle):
        rows, columns = np.mgrid[:12, :12]
        return grey(128 + columns * np.cos(np.radians(angle)) + rows * np.sin(np.radians(angle)))

    found = edge_preservation(ramp(degrees), ramp(other_degrees)).preserved[0, 2:-2, 2:-2]
    expected = sigmoid(1, 0.9994, 15, 0.5) * sigmoid(1 - apart / 90, 0.9879, 22, 0.8)
    assert found.numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gain", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_weakened_and_exaggerated_edges_count_alike(gain):
    step = np.repeat([[100.0, 125.0]], 6, axis=1).repeat(12, axis=0)
    found = edge_preservation(grey(step), grey(112.5 + gain * (step - 112.5)))
    edge = (0, slice(2, -2), slice(5, 7))
    expected = sigmoid(min(gain, 1 / gain), 0.9994, 15, 0.5) * sigmoid(1, 0.9879, 22, 0.8)
    assert found.preserved[edge].numpy() == pytest.approx(expected, abs=1e-9)
    assert (found.exceeded[edge] == (gain > 1)).all()
    assert found.strength[edge].numpy() == pytest.approx(100)


def test_kept_lost_and_invented_edges_are_all(levels):
    ir, vis, fused = levels
    flat = np.full_like(ir, 50)
    for triple in (levels, (vis, vis, ir), (ir, vis, flat), (flat, flat, fused)):
        kept, lost, invented = plain_kumar(*triple)
        assert measured("Labf", *triple) == pytest.approx(lost, abs=1e-12)
        assert measured("Nabf", *triple) == pytest.approx(invented, abs=1e-12)
        assert kept + lost + invented == pytest.approx(1)


def test_known_fusions(levels):
    ir, vis, _ = levels
    assert measured("Nabf", ir, vis, ir) == measured("Nabf", ir, vis, np.zeros_like(ir)) == 0
    assert measured("Labf", ir, vis, np.zeros_like(ir)) > 0.98
    assert measured("Labf", ir, ir, ir) < 1e-3
    perfect = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))
    assert measured("Qabf", ir, ir, ir) == pytest.approx(perfect)
    flat = np.zeros_like(ir)
    assert measured("Qabf", flat, flat, ir) == 0


@pytest.mark.parametrize("name", ["Qabf", "Nabf", "Labf"])
def test_gradients(name):
    """Right ones where an edge is upright or level, and finite ones where there is none."""
    ir, vis = torch.rand(2, 1, 7, 8, dtype=torch.float64, generator=torch.manual_seed(0)) * 99
    fused = ((ir + vis) / 2).requires_grad_()

    def compute(fused):
        return MEASURES[name].compute(Grey(ir), Grey(vis), Grey(fused))

    assert torch.autograd.gradcheck(compute, fused, fast_mode=True)
    steps = torch.arange(8.0, dtype=torch.float64).expand(1, 7, 8) * 9
    for odd in (torch.zeros_like(ir), steps, steps.flip(-1)):
        odd = odd.clone().requires_grad_()
        (slope,) = torch.autograd.grad(compute(odd).sum(), odd)
        assert slope.isfinite().all()
        assert slope.abs().max() < 1


def read(path):
    image = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return image.permute(2, 0, 1)[None] / 255


@pytest.mark.real_data
def test_published_values_of_vifb(real_data):
    folder = real_data / "VIFB"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv")
    values = table.set_index(["scene", "method", "metric"]).value
    for scene, method in (("carLight", "ADF"), ("fight", "CBF"), ("running", "GFCE")):
        places = ("ir", "vis", f"fused/{method}")
        images = [channel_levels(read(folder / place / f"{scene}.jpg"))[:, 0] for place in places]
        found = PUBLISHED["vifb"]["Qabf"](*map(Grey, images)).mean()
        assert float(found) == pytest.approx(values[scene, method, "Qabf"], abs=6e-6)


@pytest.mark.real_data
def test_published_values_of_tno(real_data):
    """Even where rounding decides which gradients are equal, as with the second."""
    folder = real_data / "TNO"
    table = pd.read_csv(folder / "published_metrics" / "per_image.csv", dtype={"image": str})
    values = table.set_index(["image", "method", "metric"]).value
    for scene, method in (("05", "DenseFuse"), ("41", "IFCNN"), ("41", "FusionGAN")):
        places = ("ir", "vis", f"fused/{method}")
        images = [luma_levels(read(folder / place / f"{scene}.png"))[0] for place in places]
        found = PUBLISHED["tang2022"]["Qabf"](*map(Grey, images))
        assert float(found) == pytest.approx(values[scene, method, "Qabf"], abs=5e-5)
