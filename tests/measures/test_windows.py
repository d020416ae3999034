"""Windows that slide over images: against plain convolution, and what is kept of them."""

import pytest
import torch

from fuscore_metric.measures.formulas import windows


@pytest.mark.parametrize("taps", [(0.2, 0.5, 0.3), tuple(range(1, 12))])
@pytest.mark.parametrize("height", [11, 26, 27, 40])
def test_a_local_mean_is_that_of_convolution(taps, height):
    images = torch.rand(2, height, 19, dtype=torch.float64)
    window = torch.outer(*2 * [torch.tensor(taps, dtype=torch.float64)])
    expected = torch.nn.functional.conv2d(images[:, None], window[None, None])[:, 0]
    torch.testing.assert_close(windows.local_mean(images, taps), expected)


def test_what_is_kept_under_inference_mode_serves_gradients():
    windows._bank.cache_clear()
    images, taps = torch.rand(1, 20, 20, dtype=torch.float64), (1.0,) * 11
    with torch.inference_mode():
        windows.local_mean(images, taps)
    (slope,) = torch.autograd.grad(
        windows.local_mean(images.requires_grad_(), taps).sum(), [images]
    )
    assert slope.sum().item() == pytest.approx(100 * 121)
