"""What several tests of measures need."""

import pytest
import torch


@pytest.fixture
def check_slope():
    """Compare a gradient with differences, and see that it is finite where the image is flat."""

    def check(of, pixels, towards, *, step, rel):
        pixels = pixels.requires_grad_()
        (slope,) = torch.autograd.grad(of(pixels), pixels)
        numeric = (of(pixels + step * towards) - of(pixels - step * towards)) / (2 * step)
        assert (slope * towards).sum().item() == pytest.approx(numeric.item(), rel=rel)
        flat = torch.full_like(pixels, 3).requires_grad_()
        (slope,) = torch.autograd.grad(of(flat), flat)
        assert slope.isfinite().all()

    return check
