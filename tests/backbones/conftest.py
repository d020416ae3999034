"""Tiny random models of the Qwen-VL families, and what transformers' processors make of images."""

import pytest
import torch

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def backbone(family):
    return tiny_backbone(family)


def processor(kind, backbone):
    """One of transformers' own image processors, with the options of a backbone."""
    options = dict(backbone.preprocessing)
    size = {"shortest_edge": options.pop("min_pixels"), "longest_edge": options.pop("max_pixels")}
    return kind(size=size, **options)


def as_batch(eight_bit):
    return torch.from_numpy(eight_bit).permute(0, 3, 1, 2) / 255
