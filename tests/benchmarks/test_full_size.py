"""The dry run at full size: shapes as published, and a count of bytes that counts right."""

import pytest
import torch
from fuscore_training.large.tuning import TuneOptions
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.full_size.counting import LiveBytes, fused_attention
from benchmarks.full_size.memory import parameters, scoring, training, without_weights
from benchmarks.full_size.shapes import SHAPES, Shape

WIDE, ROWS = 128, 64
MATRIX = 4 * WIDE * ROWS


def chain(depth: int) -> nn.Sequential:
    pairs = [(nn.Linear(WIDE, WIDE, bias=False), nn.Tanh()) for _ in range(depth)]
    layers = [layer for pair in pairs for layer in pair]
    return nn.Sequential(*layers).to("meta").requires_grad_(False)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_as_many_as_published(name):
    parts = parameters(without_weights(SHAPES[name]))
    assert sum(parts.values()) / 1e9 == pytest.approx(SHAPES[name].stated, abs=0.01)
    assert parts["language"] > parts["vision"] > parts["projector"] > 0


def test_what_is_alive_is_counted_to_the_byte():
    layers, counted = chain(3), LiveBytes()
    counted.know(layers)
    with counted, torch.no_grad():
        out = layers(torch.empty(ROWS, WIDE, device="meta"))
    # An input and an output of one layer, and the input, which is alive all along.
    assert (counted.now, counted.peak) == (MATRIX, 3 * MATRIX)
    assert counted.flops == 3 * 2 * ROWS * WIDE * WIDE
    del out
    assert counted.now == 0


def test_what_is_kept_for_the_way_back_is_counted():
    layers, counted = chain(4), LiveBytes()
    counted.know(layers)
    given = torch.empty(ROWS, WIDE, device="meta", requires_grad=True)
    with counted:
        out = layers(given)
    # Each tanh keeps its output; frozen weights need no inputs.
    assert counted.now == 4 * MATRIX
    with counted:
        out.sum().backward()
    del out
    assert counted.now == MATRIX  # the gradient of what was given


def test_checkpointing_keeps_less():
    peaks = []
    for kept in (False, True):
        blocks, counted = [chain(4) for _ in range(8)], LiveBytes()
        for block in blocks:
            counted.know(block)
        x = torch.empty(ROWS, WIDE, device="meta", requires_grad=True)
        with counted:
            y = x
            for block in blocks:
                y = checkpoint(block, y, use_reentrant=False) if kept else block(y)
            y.sum().backward()
        peaks.append(counted.peak)
    assert peaks[1] < 0.6 * peaks[0]


def test_attention_keeps_no_square_matrix():
    query = torch.empty(1, 2, 512, 16, device="meta", requires_grad=True)
    with fused_attention(), LiveBytes() as counted:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counted.peak < 4 * 2 * 512 * 512


def test_the_whole_path_is_counted_at_a_small_size():
    small = Shape(
        family="qwen3_vl",
        stated=0,
        text=SHAPES["Qwen3-VL-2B"].text | {"num_hidden_layers": 2, "vocab_size": 1000},
        vision=SHAPES["Qwen3-VL-2B"].vision | {"depth": 3, "deepstack_visual_indexes": [0, 1]},
    )
    one, four = (scoring(without_weights(small), count) for count in (1, 4))
    assert four.flops == pytest.approx(4 * one.flops)
    assert one.peak < four.peak <= 4.1 * one.peak
    kept, trained = training(without_weights(small), TuneOptions(), 1, 2, ["overall"])
    free, _ = training(without_weights(small), TuneOptions(checkpointing=False), 1, 2, ["overall"])
    assert kept.peak < free.peak
    assert kept.flops > free.flops
    assert 0 < trained < 1e7
