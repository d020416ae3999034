"""Tiny random Qwen-VL models on a GPU against the CPU, and the ways that attention is computed."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.tiny_qwen import FAMILIES, tiny_backbone
from fuscore_metric import FuScore, FuScoreReward, score
from fuscore_metric.checkpoints.spec import FuScoreSpec
from fuscore_metric.prompts import ASPECTS
from tests.gpu.scenes import crops, on

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-3
"""Weights at random, of ten times the usual spread, make more of rounding than trained ones."""


@pytest.fixture(scope="module", params=FAMILIES)
def qwen_on_cpu(request) -> FuScore:
    backbone = tiny_backbone(request.param)
    spec = FuScoreSpec("tiny", request.param, backbone.preprocessing, "none")
    return FuScore(backbone, spec)


@pytest.fixture
def qwen(qwen_on_cpu, device) -> FuScore:
    return copy.deepcopy(qwen_on_cpu).to(device)


def scores(model, images):
    with torch.no_grad():
        found = model(*on(model.device.type, images), aspects=ASPECTS).score
    assert found.device == model.device
    return found.cpu()


def test_scores_are_those_of_the_cpu(qwen, qwen_on_cpu, record_property):
    moved = (scores(qwen, crops()) - scores(qwen_on_cpu, crops())).abs().max().item()
    record_property(f"deviation, {qwen.spec.family}, float32", moved)
    assert moved <= TOLERANCE


def test_bfloat16_is_finite_and_near(qwen, qwen_on_cpu, record_property):
    found = scores(qwen.to(torch.bfloat16), crops())
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    moved = (found - scores(qwen_on_cpu, crops())).abs().max().item()
    record_property(f"deviation, {qwen.spec.family}, bfloat16", moved)
    assert 0 < moved <= 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_sources_are_independent_ones(qwen, device, dtype, record_property):
    """One pair for all, one read for each, and through the loop."""
    qwen = qwen.to(dtype)
    ir, vis, fused = crops()
    ir, vis = (x[:1].expand(len(fused), -1, -1, -1) for x in (ir, vis))
    independent = scores(qwen, (ir.clone(), vis.clone(), fused))
    shared = scores(qwen, (ir[:1], vis[:1], fused))
    looped = score(*on(device, (ir, vis, fused)), model=qwen, aspects=ASPECTS, batch_size=3).cpu()
    for name, found in {"shared": shared, "looped": looped}.items():
        moved = (found - independent).abs().max().item()
        record_property(f"deviation, {qwen.spec.family}, {name}, {dtype}", moved)
        assert moved <= (TOLERANCE if dtype == torch.float32 else 0.2), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_way_of_attention_does_not_matter(qwen, dtype, record_property):
    """PyTorch's own choice, its plain formula, and transformers' formula without PyTorch's."""
    qwen = qwen.to(dtype)
    found = {"chosen": scores(qwen, crops())}
    with sdpa_kernel([SDPBackend.MATH]):
        found["math"] = scores(qwen, crops())
    qwen.backbone.model.set_attn_implementation("eager")
    found["eager"] = scores(qwen, crops())
    for name in ("math", "eager"):
        moved = (found[name] - found["chosen"]).abs().max().item()
        record_property(f"deviation, {qwen.spec.family}, attention {name}, {dtype}", moved)
        assert moved <= (TOLERANCE if dtype == torch.float32 else 0.2), name


def test_gradients_are_those_of_the_cpu(qwen, qwen_on_cpu, device, record_property):
    found = []
    for model, where in ((qwen_on_cpu, "cpu"), (qwen, device)):
        ir, vis, fused = on(where, crops(2))
        fused.requires_grad_()
        FuScoreReward(model)(ir, vis, fused).sum().backward()
        found.append(fused.grad.cpu())
    error = ((found[1] - found[0]).norm() / found[0].norm()).item()
    record_property(f"relative error of the gradient, {qwen.spec.family}", error)
    assert error <= 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_loaded_in_bfloat16(family, device, tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("fuscore_training.large.tuning")
    from tests.helpers.adapted import make_adapted

    tiny_backbone(family).save(tmp_path / "base")
    adapted = make_adapted(tmp_path / "base", family)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = FuScore.from_pretrained(tmp_path / "adapter", device=device)
    assert loaded.dtype == (torch.bfloat16 if device == "cuda" else torch.float32)
    assert torch.allclose(scores(loaded, crops(2)), scores(adapted, crops(2)), atol=0.2)
