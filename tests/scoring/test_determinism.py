"""Same inputs, same bits; and neither the order of a batch nor its other images move a score."""

import subprocess
import sys

import pytest
import torch

from fuscore_metric import FuScore, FuScoreReward, FuScoreSpec, predict
from fuscore_metric.images.convert import as_images
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.scoring import shared_model
from tests.golden import record
from tests.helpers import ROOT

NEIGHBOURS = 1e-5
"""How far a score may move with the batch that it is in, on one machine."""

FIELDS = ("score", "std", "probabilities", "level_logits")
EXAMPLE = record.EXAMPLE


@pytest.fixture(scope="module")
def model():
    return shared_model("embedded", "cpu")


def example():
    """Eight fusions of a part of the example, each another image: (8, 3, 64, 96) three times."""
    names = ("ir", "vis", "fused_good", "fused_average", "fused_noisy")
    whole = (as_images(EXAMPLE / f"{name}.png", name)[0] for name in names)
    ir, vis, *fused = (image[:, 60:124, 80:176] for image in whole)
    made = [*fused, ir, vis, fused[0].flip(-1), fused[1] ** 1.3, 1 - fused[2]]
    return ir.expand(8, -1, -1, -1), vis.expand(8, -1, -1, -1), torch.stack(made)


def scenes(count=8):
    """Small triples of nothing in common, (N, 3, 64, 96) each."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(count, 3, 64, 96, generator=generator) for _ in range(3))


def bits(model, ir, vis, fused):
    """All that a model says of a batch, with maps and gradients."""
    with torch.no_grad():
        output = predict(ir, vis, fused, model=model, aspects=ASPECTS)
    found = {name: getattr(output, name) for name in FIELDS}
    found["attribution"] = model.attribution(ir, vis, fused, steps=2)
    leaf = fused.clone().requires_grad_()
    reward = FuScoreReward(model=model)(ir, vis, leaf)
    reward.sum().backward()
    return found | {"reward": reward.detach(), "gradient": leaf.grad}


def assert_same_bits(one, other):
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_twice_gives_the_same_bits(model):
    triples = scenes(2)
    before = bits(model, *triples)
    predict(*example(), model=model)  # something else in between
    assert_same_bits(before, bits(model, *triples))


PROCESS = """
import sys, torch
torch.set_num_threads(1)
from tests.scoring.test_determinism import bits, scenes
from fuscore_metric.scoring import shared_model
torch.save(bits(shared_model("embedded", "cpu"), *scenes(2)), sys.argv[1])
"""


def test_a_fresh_process_gives_the_same_bits(model, tmp_path):
    path = tmp_path / "bits.pt"
    subprocess.run([sys.executable, "-c", PROCESS, path], check=True, cwd=ROOT, timeout=120)
    assert_same_bits(bits(model, *scenes(2)), torch.load(path))


def test_nothing_is_refused_by_the_deterministic_algorithms(model):
    triples = scenes(2)
    before = bits(model, *triples)
    torch.use_deterministic_algorithms(True)
    try:
        assert_same_bits(before, bits(model, *triples))
    finally:
        torch.use_deterministic_algorithms(False)


def assert_batch_does_not_matter(model, ir, vis, fused):
    """Compare each triple alone with batches of three sizes, in two orders, among strangers."""

    def scored(rows, batch_size):
        ours = (batch[rows] for batch in (ir, vis, fused))
        return predict(*ours, model=model, aspects=ASPECTS, batch_size=batch_size).score

    count = len(fused)
    alone = torch.cat([scored([row], 1) for row in range(count)])  # (N, A)
    assert alone[:, 0].unique().numel() == count  # so that a score in a wrong place shows
    orders = [
        list(reversed(range(count))),
        torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist(),
    ]
    for order in orders:
        for batch_size in (1, 3, 8):
            moved = (scored(order, batch_size) - alone[order]).abs().max()
            assert moved <= NEIGHBOURS, f"{moved:.1e} in {order} by {batch_size}"
    for neighbour in (1, count - 1):
        moved = (scored([0, neighbour, neighbour], 3)[0] - alone[0]).abs().max()
        assert moved <= NEIGHBOURS, f"{moved:.1e} beside {neighbour}"


def test_order_and_neighbours_of_one_source_pair(model):
    assert_batch_does_not_matter(model, *example())


def test_order_and_neighbours_of_several_source_pairs(model):
    assert_batch_does_not_matter(model, *scenes())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_order_and_neighbours_of_the_big_families(family):
    from benchmarks.tiny_qwen import (
        tiny_backbone,
    )  # transformers, which the fresh process can do without

    backbone = tiny_backbone(family).eval()
    spec = FuScoreSpec("tiny", family, backbone.preprocessing, "none")
    model = FuScore(backbone, spec)
    assert_batch_does_not_matter(model, *scenes())
    assert_same_bits(bits(model, *scenes(2)), bits(model, *scenes(2)))


@pytest.mark.real_data
def test_order_and_neighbours_of_real_triples(model, real_data):
    """Files of five sizes: the batches are the planner's, and the list is in two orders."""
    triples = record.real_triples(real_data)[:8]
    columns = [[str(getattr(one, name)) for one in triples] for name in ("ir", "vis", "fused")]
    expected = [
        predict(*files, model=model, aspects=ASPECTS).score for files in zip(*columns, strict=True)
    ]
    for order in (range(8), reversed(range(8)), (3, 1, 7, 5, 0, 2, 6, 4)):
        rows = list(order)
        files = [[column[row] for row in rows] for column in columns]
        for batch_size in (1, 3, 8):
            found = predict(*files, model=model, aspects=ASPECTS, batch_size=batch_size).score
            moved = (found - torch.cat([expected[row] for row in rows])).abs().max()
            assert moved <= NEIGHBOURS, f"{moved:.1e} in {rows} by {batch_size}"
