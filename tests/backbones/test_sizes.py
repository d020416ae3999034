"""`resize` is Pillow's to a rounding, and `fit_pixels` is the rule of transformers."""

import math

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fuscore_metric.backbones.sizes import fit_pixels, resize
from tests.helpers.image_files import one, random_array


class TestResize:
    def test_same_size_is_the_same_tensor(self):
        images = torch.rand(2, 3, 32, 40)
        assert resize(images, (32, 40)) is images

    def test_is_antialiased_bicubic_clamped(self):
        images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)).round()
        plain = F.interpolate(images, (50, 90), mode="bicubic", antialias=True)
        assert plain.max() > 1  # so the clamp has work to do
        assert torch.equal(resize(images, (50, 90)), plain.clamp(0, 1))

    def test_float32_out_and_gradient_back(self):
        images = torch.full((1, 3, 64, 64), 0.5, dtype=torch.bfloat16, requires_grad=True)
        small = resize(images, (32, 40))
        assert small.dtype == torch.float32
        assert small.shape == (1, 3, 32, 40)
        small.mean().backward()
        assert images.grad.float().sum() == pytest.approx(1, abs=0.02)
        assert resize(images, (64, 64)).dtype == torch.float32

    def test_agrees_with_pillow(self):
        smooth = Image.fromarray(random_array(20, 24, 3)).resize((96, 80), Image.Resampling.BICUBIC)
        ours = resize(one(smooth)[None], (40, 48))[0]
        theirs = one(smooth.resize((48, 40), Image.Resampling.BICUBIC))
        assert (ours - theirs).abs().max() < 2 / 255  # Pillow rounds to 8 bits twice


SIZES = [
    (height, width)
    for height in (32, 33, 97, 480, 513, 768, 1024, 4000, 6400)
    for width in (32, 45, 112, 360, 640, 1280, 3000, 6000)
]
BUDGETS = [(1, 10**9), (56 * 56, 28 * 28 * 1280), (256 * 256, 512 * 512), (65536, 65536)]


class TestFitPixels:
    @pytest.mark.parametrize("multiple", [1, 14, 16, 28, 32, 56])
    @pytest.mark.parametrize("budget", BUDGETS)
    def test_multiples_aspect_and_budget(self, multiple, budget):
        low, high = budget
        for height, width in SIZES:
            rows, columns = fit_pixels(
                height, width, min_pixels=low, max_pixels=high, multiple=multiple
            )
            assert rows % multiple == columns % multiple == 0
            assert min(rows, columns) >= multiple
            scales = [1, math.sqrt(low / (height * width)), math.sqrt(high / (height * width))]
            assert any(
                max(abs(rows - height * scale), abs(columns - width * scale)) <= multiple
                for scale in scales
            )
            if low < high and min(rows, columns) > multiple:
                assert low <= rows * columns <= high

    def test_within_budget_and_multiple_is_unchanged(self):
        assert fit_pixels(480, 640, min_pixels=1, max_pixels=10**6, multiple=1) == (480, 640)
        assert fit_pixels(480, 640, min_pixels=1, max_pixels=10**6, multiple=32) == (480, 640)

    @pytest.mark.parametrize(
        ("size", "fitted"),
        [
            ((480, 640), (476, 644)),  # to the nearest multiple
            ((3000, 4000), (840, 1148)),  # down, sides floored
            ((32, 32), (56, 56)),  # up, sides ceiled
        ],
    )
    def test_known_sizes(self, size, fitted):
        budget = {"min_pixels": 56 * 56, "max_pixels": 1_003_520, "multiple": 28}
        assert fit_pixels(*size, **budget) == fitted

    @pytest.mark.slow  # imports transformers
    def test_equals_transformers(self):
        """Its rule is copied in two modules; the PIL one can be imported without torchvision."""
        qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        for multiple in (1, 14, 28, 32):
            for low, high in BUDGETS:
                for height, width in SIZES:
                    ours = fit_pixels(
                        height, width, min_pixels=low, max_pixels=high, multiple=multiple
                    )
                    theirs = qwen.smart_resize(height, width, multiple, low, high)
                    assert ours == theirs, (height, width, multiple, low, high)

    @pytest.mark.parametrize(
        "changed",
        [{"min_pixels": 0}, {"max_pixels": 10}, {"multiple": 0}, {"height": 0}, {"width": -3}],
    )
    def test_bad_arguments(self, changed):
        arguments = {
            "height": 64,
            "width": 64,
            "min_pixels": 100,
            "max_pixels": 1000,
            "multiple": 2,
        }
        with pytest.raises(ValueError, match="min_pixels"):
            fit_pixels(**(arguments | changed))
