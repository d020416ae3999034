"""What a caller sets in PyTorch changes no score, no gradient, and nothing that is kept."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import tiny_llava, tiny_qwen
from fuscore_metric import CheckpointError, FuScore, FuScoreReward, TrustRegion, score
from fuscore_metric.backbones.base import Backbone
from fuscore_metric.checkpoints.spec import FuScoreSpec
from tests.helpers import EXAMPLE
from tests.helpers.tiny_model import tiny_fuscore


def triple() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 48, 64, generator=generator, device="cpu") for _ in range(3)]


def gradient(of: Callable[[Tensor], Tensor], fused: Tensor) -> Tensor:
    fused = fused.clone().requires_grad_()
    of(fused).sum().backward()
    return fused.grad


def tiny_backbone(family: str) -> Backbone:
    if family == "llava":
        return tiny_llava.tiny_backbone(statistics=True)
    return tiny_qwen.tiny_backbone(family)


class Saved(NamedTuple):
    """Tiny weights of a family, and what they say of `triple`."""

    model: FuScore
    folder: Path
    logits: Tensor
    slope: Tensor


@pytest.fixture(scope="module", params=["lite_llama", "llava", *tiny_qwen.FAMILIES])
def saved(request, tmp_path_factory) -> Saved:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "lite_llama":
        model = tiny_fuscore(folder, relations=True)
    else:
        backbone = tiny_backbone(request.param)
        spec = FuScoreSpec("tiny", request.param, backbone.preprocessing, "none")
        model = FuScore(backbone, spec)
    model.save_pretrained(folder / "weights")
    ir, vis, fused = triple()
    slope = gradient(lambda x: model(ir, vis, x).score, fused)
    return Saved(model, folder / "weights", model(ir, vis, fused).level_logits, slope)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device("cpu")  # torch 2.6 fails later after None


SETTINGS = {
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_loading_and_scoring_inside(saved, setting):
    ir, vis, fused = triple()
    with SETTINGS[setting]():
        model = FuScore.from_pretrained(saved.folder, device="cpu")
        sources = model.encode_sources(ir, vis)
        assert torch.equal(model.score_fused(sources, fused).level_logits, saved.logits)
        if not torch.is_inference_mode_enabled():
            found = gradient(lambda x: model(ir, vis, x).score, fused)
            assert torch.equal(found, saved.slope)
    assert torch.equal(gradient(lambda x: model.score_fused(sources, x).score, fused), saved.slope)


REWARD = {"trust_region": TrustRegion(), "aspects": {"overall": 1, "sharpness": 2}}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Pieces of the example."""
    made = [tmp_path_factory.mktemp("files") / f"{name}.png" for name in ("ir", "vis", "fused")]
    for path, name in zip(made, ("ir", "vis", "fused_good"), strict=True):
        with Image.open(EXAMPLE / f"{name}.png") as image:
            image.crop((80, 60, 176, 124)).save(path)
    return list(map(str, made))


@pytest.fixture(scope="module")
def plainly(files) -> tuple[Tensor, Tensor, Tensor]:
    """Values and slope of the reward, and the scores of the files, without any setting."""
    ir, vis, fused = triple()
    reward = FuScoreReward(**REWARD)
    slope = gradient(lambda x: reward(ir, vis, x), fused[:, :1])
    return reward(ir, vis, fused[:, :1]), slope, score(*files, model=reward.model)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_reward_and_files_inside(setting, files, plainly):
    ir, vis, fused = triple()
    value, slope, of_files = plainly
    with SETTINGS[setting]():
        reward = FuScoreReward(**REWARD)
        assert torch.equal(reward(ir, vis, fused[:, :1]), value)
        assert torch.equal(score(*files, model=reward.model), of_files)
        inside = not torch.is_inference_mode_enabled()
        with SETTINGS[setting]() if inside else torch.inference_mode(False):
            assert torch.equal(gradient(lambda x: reward(ir, vis, x), fused[:, :1]), slope)


MOVES = {
    "to": lambda model: model.to(torch.bfloat16),
    "bfloat16": lambda model: model.bfloat16(),
    "inside another": lambda model: nn.Sequential(model).to(torch.bfloat16)[0],
    "in inference mode": torch.inference_mode()(lambda model: model.bfloat16()),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_change_of_dtype_is_loading_in_it(saved, move):
    ir, vis, fused = triple()
    loaded = FuScore.from_pretrained(saved.folder, dtype="bfloat16")
    moved = MOVES[move](copy.deepcopy(saved.model))
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved(ir, vis, fused).score, loaded(ir, vis, fused).score)
    assert all(buffer.dtype == torch.float32 for buffer in moved.buffers())
    assert gradient(lambda x: moved(ir, vis, x).score, fused).abs().sum() > 0


def test_float64_changes_nothing_but_rounding(saved):
    found = copy.deepcopy(saved.model).double()(*triple())
    assert found.score.dtype == torch.float32
    assert torch.allclose(found.level_logits, saved.logits, atol=1e-5)


def test_float16_is_refused_where_it_overflows(saved):
    model, safe = copy.deepcopy(saved.model), saved.model.backbone.fp16
    with nullcontext() if safe else pytest.raises(CheckpointError, match="overflow in float16"):
        model.half()
    assert model.dtype == (torch.float16 if safe else torch.float32)


def test_a_gradient_of_second_order_is_refused(saved):
    ir, vis, fused = triple()
    fused.requires_grad_()
    value = saved.model(ir, vis, fused).score.sum()
    (first,) = torch.autograd.grad(value, fused, create_graph=True)
    assert torch.equal(first, saved.slope)
    with pytest.raises(RuntimeError, match="gradient of first order"):
        torch.autograd.grad(first.square().sum(), fused)


def test_a_graph_can_be_kept_for_a_second_backward_pass(saved):
    ir, vis, fused = triple()
    fused.requires_grad_()
    value = saved.model(ir, vis, fused).score.sum()
    for keep in (True, False):
        (found,) = torch.autograd.grad(value, fused, retain_graph=keep)
        assert torch.equal(found, saved.slope)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, fused)


def test_gradients_of_sources_that_were_read_once(saved):
    ir, vis, fused = triple()
    others = [fused, 0.9 * fused]
    apart = sum(gradient(lambda x, f=f: saved.model(ir, x, f).score, vis) for f in others)

    def together(vis):
        sources = saved.model.encode_sources(ir, vis)
        return sum(saved.model.score_fused(sources, f).score for f in others)

    assert torch.allclose(gradient(together, vis), apart, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_reward_inside_a_checkpointed_step(saved, reentrant):
    ir, vis, fused = triple()
    reward = FuScoreReward(saved.model)

    def step(x):
        return torch.utils.checkpoint.checkpoint(
            lambda y: reward(ir, vis, y), x, use_reentrant=reentrant
        )

    assert torch.equal(gradient(step, fused), saved.slope)


EXPORTS = {
    "trace": lambda net, given: torch.jit.trace(net, given),
    "export": lambda net, given: torch.export.export(net, given, strict=False),
}


@pytest.mark.parametrize("export", EXPORTS)
def test_tracing_and_exporting_are_refused(saved, export):
    with pytest.raises(RuntimeError, match="cannot be traced or exported"):
        EXPORTS[export](FuScoreReward(saved.model), tuple(triple()))


def replica(net: nn.Module) -> nn.Module:
    """What `nn.DataParallel` makes of a module for a further GPU, here on the CPU."""
    modules = list(net.modules())
    copies = {module: module._replicate_for_data_parallel() for module in modules}
    for module, made in copies.items():
        for name, child in module._modules.items():
            setattr(made, name, copies[child])
        for name, parameter in module._parameters.items():
            setattr(made, name, None if parameter is None else parameter.detach().clone())
        made._buffers = {name: buffer.clone() for name, buffer in module._buffers.items()}
    return copies[net]


def test_replicas_of_data_parallel_judge_alike(saved):
    ir, vis, fused = triple()
    made = replica(saved.model)
    assert not list(made.parameters())
    assert torch.equal(made(ir, vis, fused).level_logits, saved.logits)
    reward = replica(FuScoreReward(saved.model))
    assert torch.equal(gradient(lambda x: reward(ir, vis, x), fused), saved.slope)


def test_data_parallel_cannot_gather_an_output(saved):
    outputs = [saved.model(*triple())] * 2
    with pytest.raises(TypeError, match="wrap a module that returns its `score`"):
        nn.parallel.scatter_gather.gather(outputs, "cpu")
