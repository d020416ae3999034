"""What the trust region charges for, what it does not, and how much."""

import pytest
import torch

from fuscore_metric import TrustRegion

SIZE = (2, 3, 32, 40)
ONLY_INTENSITY = {"gradient": 0.0, "reference": 0.0}
ONLY_GRADIENT = {"intensity": 0.0, "reference": 0.0}


def flat(value: float) -> torch.Tensor:
    return torch.full(SIZE, value)


def rough(seed: int) -> torch.Tensor:
    return torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)).mean(1, keepdim=True)


def test_sources_themselves_are_free():
    ir, vis = (rough(seed).expand(SIZE) for seed in (0, 1))
    for fused in (ir, vis):
        assert torch.equal(TrustRegion().penalty(ir, vis, fused), torch.zeros(2))


@pytest.mark.parametrize(("value", "excess"), [(0.9, 0.2), (0.1, 0.2), (0.5, 0.0), (0.72, 0.02)])
def test_brightness_beyond_both_sources_costs_its_mean_excess(value, excess):
    region = TrustRegion(intensity=50.0, intensity_margin=0.0, **ONLY_INTENSITY)
    found = region.penalty(flat(0.3), flat(0.7), flat(value))
    assert found.tolist() == pytest.approx([50 * excess] * 2, abs=1e-4)


def test_the_margin_is_free():
    region = TrustRegion(intensity_margin=0.05, **ONLY_INTENSITY)
    assert region.penalty(flat(0.3), flat(0.7), flat(0.74)).max() == 0


def test_edges_stronger_than_both_sources_cost():
    fused = flat(0.3)
    fused[..., 20:] = 0.7  # within the sources' range
    region = TrustRegion(gradient=10.0, gradient_margin=0.0, **ONLY_GRADIENT)
    # The step's Sobel magnitude, 0.4, lies on two columns of forty.
    assert region.penalty(flat(0.3), flat(0.7), fused).tolist() == pytest.approx(
        [10 * 0.4 * 2 / 40] * 2, rel=1e-2
    )
    assert region.penalty(fused, flat(0.3), fused).max() == 0


def test_distance_from_the_reference_beyond_the_radius_costs():
    region = TrustRegion(reference=20.0, reference_radius=0.05, intensity=0.0, gradient=0.0)
    images = flat(0.3), flat(0.7), flat(0.5)
    assert region.penalty(*images).max() == 0
    assert region.penalty(*images, reference=flat(0.46)).max() == 0
    charged = region.penalty(*images, reference=flat(0.4))
    assert charged.tolist() == pytest.approx([20 * 0.05] * 2, abs=1e-4)


def test_the_gradient_points_back_and_reaches_only_the_fused_image():
    ir, vis = (flat(value).requires_grad_() for value in (0.3, 0.7))
    fused = flat(0.9).requires_grad_()
    TrustRegion().penalty(ir, vis, fused).sum().backward()
    assert fused.grad is not None
    assert fused.grad.min() > 0
    assert ir.grad is None
    assert vis.grad is None


@pytest.mark.parametrize("name", ["intensity", "reference", "gradient_margin"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be finite and not negative"):
        TrustRegion(**{name: value})
