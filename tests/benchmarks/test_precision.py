"""Scores in half precision against float32, on real triples."""

import pytest
import torch

from benchmarks.precision import real_triples
from fuscore_metric import FuScore, predict
from fuscore_metric.prompts import ASPECTS


@pytest.fixture(scope="module")
def triples(real_data):
    return real_triples(real_data)


@pytest.fixture(scope="module")
def full(triples):
    return predict(*triples, aspects=ASPECTS).score


@pytest.mark.real_data
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("float16", 0.005)])
def test_half_precision_stays_near_float32(triples, full, dtype, most):
    assert len(triples[0]) > 30
    half = predict(*triples, model=FuScore.from_pretrained(dtype=dtype), aspects=ASPECTS).score
    assert half.dtype == torch.float32
    deviation = (half - full).abs()
    assert deviation.max() <= most
    assert deviation.max() > 0
