"""Scores in half precision against float32, on real triples."""

from pathlib import Path

import pytest
import torch

from fuscore_metric import FuScore, predict


def real_triples(folder: Path) -> list[list[str]]:
    """Two methods each of every fourth scene with fusions: all six sets but FMB, which has none."""
    triples = []
    scenes = sorted(path for path in folder.glob("*/ir/*") if path.is_file())
    fused_of = {ir: sorted(ir.parents[1].glob(f"fused/*/{ir.stem}.*")) for ir in scenes}
    for ir in [ir for ir, fused in fused_of.items() if fused][::4]:
        (vis,) = ir.parents[1].glob(f"vis/{ir.stem}.*")
        fused = fused_of[ir]
        triples += [(str(ir), str(vis), str(x)) for x in fused[:: max(1, len(fused) // 2)][:2]]
    return [list(column) for column in zip(*triples, strict=True)]


@pytest.mark.real_data
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("float16", 0.005)])
def test_half_precision_stays_near_float32(real_data, dtype, most):
    triples = real_triples(real_data)
    assert len(triples[0]) > 30
    full = predict(*triples, aspect="all").score
    half = predict(*triples, model=FuScore.from_pretrained(dtype=dtype), aspect="all").score
    assert half.dtype == torch.float32
    deviation = (half - full).abs()
    print(f"{dtype}, {len(full)} triples: max {deviation.max():.4f}, mean {deviation.mean():.4f}")
    assert deviation.max() <= most
    assert deviation.max() > 0


@pytest.mark.gpu
@pytest.mark.real_data
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-3), ("bfloat16", 0.02)])
def test_a_gpu_scores_like_the_cpu(real_data, dtype, most):
    triples = real_triples(real_data)
    full = predict(*triples).score
    found = predict(*triples, model=FuScore.from_pretrained(device="cuda", dtype=dtype)).score
    assert (found.cpu() - full).abs().max() <= most
