"""Luma and recolouring against Pillow's YCbCr, and their gradients."""

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric.images.colour import luma, recolour


def picture(seed: int = 0, low: float = 0.3, high: float = 0.7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(1, 3, 24, 32, generator=generator)


def test_luma_of_grey_is_grey():
    grey = picture()[:, :1]
    assert torch.allclose(luma(grey.expand(-1, 3, -1, -1)), grey, atol=1e-6)


def test_recolouring_is_exchanging_y():
    vis, fused = ((image * 255).round() / 255 for image in (picture(), picture(1)[:, :1]))
    as_bytes = (vis[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    ycbcr = np.asarray(Image.fromarray(as_bytes).convert("YCbCr")).copy()
    ycbcr[..., 0] = (fused[0, 0] * 255).round().to(torch.uint8).numpy()
    expected = np.asarray(Image.fromarray(ycbcr, mode="YCbCr").convert("RGB")) / 255
    found = recolour(fused, vis)[0].movedim(0, -1).numpy()
    assert np.abs(found - expected).max() < 3 / 255  # Pillow rounds Y, Cb, Cr and the result


def test_recolouring_keeps_the_luma_and_the_own_luma_changes_nothing():
    vis, fused = picture(), picture(1)[:, :1]
    assert torch.allclose(luma(recolour(fused, vis)), fused, atol=1e-6)
    assert torch.allclose(recolour(luma(vis), vis), vis, atol=1e-6)


def test_colours_beyond_the_range_are_clipped_and_give_no_gradient():
    fused = torch.ones(1, 1, 8, 8, requires_grad=True)
    shown = recolour(fused, picture()[..., :8, :8].clone())
    assert float(shown.detach().max()) == 1
    red = torch.zeros(1, 3, 8, 8)
    red[:, 0] = 0.5  # put to luma 1, red leaves the range, blue and green do not
    (gradient,) = torch.autograd.grad(recolour(fused, red)[:, 0].sum(), fused)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient(dtype):
    fused = picture(1)[:, :1, :4, :4].double().requires_grad_()
    vis = picture()[..., :4, :4].double()
    assert torch.autograd.gradcheck(lambda y: recolour(y, vis), fused)
    assert luma(picture().to(dtype)).dtype == dtype
