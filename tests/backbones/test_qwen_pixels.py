"""Pixels of the Qwen-VL families, against transformers' own processors."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.tiny_qwen import tiny_backbone, tiny_model, tokenizer
from fuscore_metric.backbones import backbone_class
from tests.backbones.conftest import as_batch, processor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": 0.5}, "mean"),
        ({"patch_size": 15}, "patch_size"),
        ({"merge_size": 1}, "merge_size"),
        ({"temporal_patch_size": 1}, "temporal_patch_size"),
    ],
)
def test_bad_preprocessing(family, given, message):
    with pytest.raises(ValueError, match=message):
        tiny_backbone(family, **given)


def test_default_preprocessing(family):
    made = backbone_class(family)(tiny_model(family), tokenizer())
    expected = {
        "qwen2_5_vl": {"min_pixels": 50176, "max_pixels": 401408, "patch_size": 14},
        "qwen3_vl": {"min_pixels": 65536, "max_pixels": 524288, "patch_size": 16},
    }
    assert expected[family].items() <= made.preprocessing.items()
    assert not made.fp16
    assert made.family == family
    _, grid = made.pixels(torch.rand(1, 3, 1000, 700))
    assert 450 < int(grid.prod()) // 4 <= 512


# How far our pixels are from those of transformers' own processors, in normalised units.
#
# At a size that needs no resize: 0 (PIL), 2.4e-7 (torchvision). So patch order, repetition and
# normalisation are theirs. With a resize they round to 8 bits at the end (0.5 / 255 / std: 0.0075
# and 0.004), and between columns and rows, where they also clip overshoots; ours is float32 and
# clips once, at the end. Measured with transformers 5.23, Pillow 13, torchvision 0.29; PIL and
# torchvision differ by less than 0.0004 in `DEVIATIONS`, but for noise on Qwen3-VL (0.192, 0.141).
# On 109 real images (data of the build machine) at the default budgets, PIL, largest of all, mean
# of the images' largest, mean: Qwen2.5-VL 0.34, 0.053, 0.0039; Qwen3-VL 0.13, 0.025, 0.0020.


def noise(height, width):
    """The worst case for overshoots."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def waves(height, width):
    """Smooth, full contrast: only the rounding remains."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (np.sin(x / 9) + 1) / 2, (np.cos(y / 7) + 1) / 2, (x + y) / (height + width)
    return (255 * np.stack(planes, axis=-1)).round().astype(np.uint8)


@pytest.fixture(params=["pil", "torchvision"])
def processor_class(request):
    if request.param == "pil":
        return Qwen2VLImageProcessorPil
    pytest.importorskip("torchvision")
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor


def deviation(backbone, processor_class, eight_bit):
    """Largest and mean difference of the pixels; grid and order must be equal."""
    theirs = processor(processor_class, backbone)(
        images=Image.fromarray(eight_bit), return_tensors="pt"
    )
    patches, grid = backbone.pixels(as_batch(eight_bit[None]))
    assert grid.tolist() == theirs["image_grid_thw"].tolist()
    assert patches.shape == theirs["pixel_values"].shape
    assert patches.dtype == torch.float32
    difference = (patches - theirs["pixel_values"]).abs()
    return float(difference.max()), float(difference.mean())


def test_pixels_of_a_fitting_size_are_the_processors(backbone, processor_class):
    window = backbone.preprocessing["patch_size"] * 2
    largest, _ = deviation(backbone, processor_class, noise(3 * window, 4 * window))
    assert largest < 1e-6


# family -> kind of image -> measured (largest, mean) over the three sizes below and both backends.
DEVIATIONS = {
    "qwen2_5_vl": {noise: (0.304, 0.0055), waves: (0.0146, 0.0040)},
    "qwen3_vl": {noise: (0.192, 0.0030), waves: (0.0080, 0.0020)},
}


@pytest.mark.parametrize("kind", [noise, waves])
@pytest.mark.parametrize("size", [(300, 400), (200, 150), (40, 50)])
def test_pixels_after_a_resize_are_near_the_processors(family, processor_class, kind, size):
    backbone = tiny_backbone(family, min_pixels=64 * 64, max_pixels=256 * 256)
    largest, mean = deviation(backbone, processor_class, kind(*size))
    assert largest < 1.1 * DEVIATIONS[family][kind][0]
    assert mean < 1.1 * DEVIATIONS[family][kind][1]
