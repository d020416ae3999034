"""What holds of every measure, and of every evaluator that is followed."""

import numpy as np
import pytest
import torch

from fuscore_metric.cli.shared.options import EVALUATORS
from fuscore_metric.measures.catalogue import CONVENTIONS, MEASURES
from fuscore_metric.measures.grey import Grey

SIDES = (180, 192)  # MS-SSIM halves them four times


def grey(*images):
    return Grey(torch.stack([torch.as_tensor(image, dtype=torch.float64) for image in images]))


def levels(image):
    return np.rint(np.asarray(image) * 255)


@pytest.fixture(scope="module")
def triple():
    """ir, vis and two fused images of grey levels."""
    from tests.helpers.scenes import synthetic_pair

    ir, vis = synthetic_pair(height=SIDES[0], width=SIDES[1])
    noise = np.random.default_rng(0).normal(0, 0.05, ir.shape)
    fused = (ir + vis) / 2, np.clip(np.maximum(ir, vis) + noise, 0, 1)
    return levels(ir), levels(vis), *map(levels, fused)


def odd_triples(ir, vis, fused):
    """Flat and equal images, of which some have no spread, no edge or no error."""
    flat, black, white = (np.full_like(ir, level) for level in (100, 0, 255))
    yield ir, vis, flat
    yield ir, vis, black
    yield flat, flat, flat
    yield black, white, black
    yield flat, vis, fused
    yield vis, vis, vis
    yield ir, vis, np.minimum(vis + 5, 255)


@pytest.mark.parametrize("name", MEASURES)
def test_values_lie_in_their_range_also_for_flat_and_equal_images(name, triple):
    one = MEASURES[name]
    for images in ((*triple[:3],), *odd_triples(*triple[:3])):
        fused = torch.as_tensor(images[2])[None].requires_grad_()
        value = one.compute(grey(images[0]), grey(images[1]), Grey(fused))
        assert value.shape == (1,)
        assert value.dtype == torch.float64
        assert one.low - 1e-9 <= float(value.detach()) <= one.high + 1e-9
        assert value.requires_grad == one.differentiable
        if one.differentiable:
            (slope,) = torch.autograd.grad(value.sum(), fused)
            assert slope.isfinite().all()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_are_finite_for_flat_and_equal_images(convention, triple):
    for ir, vis, fused in odd_triples(*triple[:3]):
        for name, compute in CONVENTIONS[convention].computes.items():
            assert compute(grey(ir), grey(vis), grey(fused)).isfinite().all(), name


@pytest.mark.parametrize("name", MEASURES)
def test_images_of_a_batch_do_not_see_each_other(name, triple):
    ir, vis, *fused = triple
    compute = MEASURES[name].compute
    alone = torch.cat([compute(grey(ir), grey(vis), grey(one)) for one in fused])
    shared = compute(grey(ir), grey(vis), grey(*fused))
    each = compute(grey(ir, ir), grey(vis, vis), grey(*fused))
    turned = compute(grey(vis, ir), grey(ir, vis), grey(fused[0], fused[1]))
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(each, alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(turned, alone, rtol=1e-9, atol=1e-9)  # the sources are equals


@pytest.mark.parametrize("name", [name for name, one in MEASURES.items() if one.differentiable])
def test_gradients_are_those_of_finite_differences(name, triple):
    ir, vis, fused, _ = triple
    compute = MEASURES[name].compute
    rng = np.random.default_rng(1)
    pixels = torch.as_tensor(fused + rng.uniform(-0.4, 0.4, fused.shape))[None].requires_grad_()
    (slope,) = torch.autograd.grad(compute(grey(ir), grey(vis), Grey(pixels)).sum(), pixels)
    along = slope.sign() * torch.as_tensor(rng.uniform(0.5, 1.5, fused.shape))
    step = 1e-5
    above, below = (
        float(compute(grey(ir), grey(vis), Grey(pixels.detach() + sign * step * along)))
        for sign in (1, -1)
    )
    assert float((slope * along).sum()) == pytest.approx((above - below) / (2 * step), rel=1e-4)


def test_the_command_line_names_all_conventions():
    """It has them as text, because importing the catalogue needs torch."""
    assert ("standard", *EVALUATORS) == tuple(CONVENTIONS)
