"""Scores in half precision against float32, on real triples."""

import pytest
import torch

from benchmarks.precision import real_triples
from fuscore_metric import FuScore, predict


@pytest.mark.real_data
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("float16", 0.005)])
def test_half_precision_stays_near_float32(real_data, dtype, most):
    triples = real_triples(real_data)
    assert len(triples[0]) > 30
    full = predict(*triples, aspect="all").score
    half = predict(*triples, model=FuScore.from_pretrained(dtype=dtype), aspect="all").score
    assert half.dtype == torch.float32
    deviation = (half - full).abs()
    assert deviation.max() <= most
    assert deviation.max() > 0
