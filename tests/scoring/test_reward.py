"""The reward and the loss: values, where gradients go, and life inside somebody's training loop."""

import copy
import pickle

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from fuscore_metric import FuScore, FuScoreLoss, FuScoreReward, InputError, TrustRegion
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.colour import recolour
from fuscore_metric.images.lazy import load_triples
from fuscore_metric.integrations.guest import GuestModel
from fuscore_metric.prompts import ASPECTS
from tests.helpers import EXAMPLE
from tests.helpers.commands import leave
from tests.helpers.tiny_model import tiny_fuscore

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def reward(model) -> FuScoreReward:
    return FuScoreReward(model)


def images(channels: int = 3, *, seed: int = 0, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, HEIGHT, WIDTH, generator=generator)


def triple() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return images(seed=1), images(seed=2), images(seed=3)


class Net(nn.Module):
    """A fusion network of one layer, with a reward and a mode-dependent part beside it."""

    def __init__(self, reward: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(2, 1, 3, padding=1)
        self.dropout = nn.Dropout(0.0)
        self.reward = reward

    def forward(self, ir: torch.Tensor, vis: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.layer(torch.cat([ir, vis.mean(1, keepdim=True)], 1))).sigmoid()


def test_the_reward_is_the_score(model, reward):
    found = reward(*triple())
    assert torch.allclose(found, model(*triple()).score)
    assert found.shape == (2,)
    assert found.dtype == torch.float32
    assert reward(*(image[:1] for image in triple())).shape == (1,)
    assert reward.higher_is_better
    assert reward.is_differentiable


def test_the_loss_is_the_mean_distance_to_five(model):
    loss = FuScoreLoss(model)
    assert torch.allclose(loss(*triple()), ((5 - model(*triple()).score) / 4).mean())
    assert not loss.higher_is_better


def test_the_gradient_reaches_the_fused_image_only(model, reward):
    ir, vis, fused = (image.requires_grad_() for image in triple())
    reward(ir, vis, fused).sum().backward()
    assert fused.grad is not None
    assert torch.isfinite(fused.grad).all()
    assert fused.grad.abs().sum() > 0
    assert ir.grad is None
    assert vis.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_ascent_step_raises_the_reward(reward):
    ir, vis, fused = triple()
    fused.requires_grad_()
    before = reward(ir, vis, fused)
    (gradient,) = torch.autograd.grad(before.sum(), fused)
    step = 1e-3 * gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (reward(ir, vis, (fused + step).detach()) > before).all()


def test_grey_sources_are_three_equal_channels(reward):
    ir, vis, fused = images(1, seed=1), images(1, seed=2), images(seed=3)
    wide = reward(ir.expand(-1, 3, -1, -1), vis.expand(-1, 3, -1, -1), fused)
    assert torch.allclose(reward(ir, vis, fused), wide)


def test_a_luma_is_judged_in_the_colours_of_vis(model, reward):
    ir, vis, luma = images(1, seed=1), images(seed=2), images(1, seed=3)
    assert torch.allclose(reward(ir, vis, luma), reward(ir, vis, recolour(luma, vis)))
    grey = FuScoreReward(model, grey="grey")(ir, vis, luma)
    assert torch.allclose(grey, reward(ir, vis, luma.expand(-1, 3, -1, -1)))
    assert not torch.allclose(grey, reward(ir, vis, luma), atol=1e-6)
    luma.requires_grad_()
    reward(ir, vis, luma).sum().backward()
    assert luma.grad is not None
    assert luma.grad.abs().sum() > 0


def test_a_luma_between_grey_sources_stays_grey(reward):
    ir, vis, luma = (images(1, seed=seed) for seed in range(3))
    grey = reward(ir, vis, luma.expand(-1, 3, -1, -1))
    assert torch.allclose(reward(ir, vis, luma), grey, atol=1e-5)


def test_overshoot_is_clipped_and_gives_no_gradient(reward):
    ir, vis, fused = triple()
    fused = (2 * fused - 0.5).requires_grad_()
    found = reward(ir, vis, fused)
    assert torch.allclose(found, reward(ir, vis, fused.detach().clamp(0, 1)))
    found.sum().backward()
    assert fused.grad is not None
    assert fused.grad[(fused > 1) | (fused < 0)].abs().max() == 0


SCALES = {
    "-1 to 1": lambda x: 2 * x - 1,
    "0 to 255": lambda x: 255 * x,
    "normalised": lambda x: (x - 0.45) / 0.22,
}


@pytest.mark.parametrize("scale", SCALES)
def test_another_range_is_refused_whichever_image_has_it(model, scale):
    guarded = FuScoreReward(model, trust_region=TrustRegion())
    doors = {"FuScore": model, "reward": guarded, "loss": FuScoreLoss(model)}
    right = dict(zip(("ir", "vis", "fused"), triple(), strict=True))
    for name, image in right.items():
        for door in doors.values():
            with pytest.raises(
                InputError, match=rf"Expected `{name}` with values in \[0, 1\], got"
            ):
                door(**right | {name: SCALES[scale](image)})
    with pytest.raises(InputError, match="Expected `reference` with values"):
        guarded(**right, reference=SCALES[scale](right["fused"]))


def test_a_small_overshoot_and_a_spike_are_not_another_range(model, reward):
    ir, vis, fused = triple()
    for image in (1.03 * fused - 0.01, fused.clone()):
        image[0, 0, 0, 0] = 9.0
        assert torch.equal(reward(ir, vis, image), reward(ir, vis, image.clamp(0, 1)))
        assert torch.isfinite(model(ir, vis, image).score).all()
    # What a gradient scaler will skip.
    assert reward(ir, vis, torch.full_like(fused, torch.inf)).shape == (2,)


def test_aspects_are_weighted(model):
    scores = model(*triple(), aspects=ASPECTS).score
    weights = {"sharpness": 1.0, "artifacts": 3.0, "overall": 0.0}
    found = FuScoreReward(model, aspects=weights)(*triple())
    sharpness, artifacts = (scores[:, ASPECTS.index(name)] for name in ("sharpness", "artifacts"))
    assert torch.allclose(found, (sharpness + 3 * artifacts) / 4, atol=1e-5)
    alone = FuScoreReward(model, aspects="sharpness")(*triple())
    assert torch.allclose(alone, sharpness, atol=1e-5)


def test_the_trust_region_is_subtracted(model, reward):
    ir, vis, fused = triple()
    region = TrustRegion(intensity=1.0, gradient=2.0, reference=3.0)
    guarded = FuScoreReward(model, trust_region=region)
    expected = reward(ir, vis, fused) - region.penalty(ir, vis, fused)
    assert torch.allclose(guarded(ir, vis, fused), expected)
    reference = images(seed=9)
    expected = reward(ir, vis, fused) - region.penalty(ir, vis, fused, reference=reference)
    assert torch.allclose(guarded(ir, vis, fused, reference=reference), expected)
    luma = images(1, seed=9)
    shown = guarded(ir, vis, fused, reference=recolour(luma, vis))
    assert torch.allclose(guarded(ir, vis, fused, reference=luma), shown)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_an_autocast_network_gives_is_judged_in_float32(reward, dtype):
    ir, vis, fused = triple()
    fused = fused.to(dtype)
    expected = reward(ir, vis, fused.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = reward(ir, vis, fused)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_training_loop_with_autocast_and_accumulation(model):
    net = Net(FuScoreReward(model))
    net.train()
    assert not any(module.training for module in model.modules())
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    before = copy.deepcopy(model.state_dict())
    parts = []
    for part in range(2):
        ir, vis = images(1, seed=part), images(seed=10 + part)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (5 - net.reward(ir, vis, net(ir, vis))).mean() / 4
        loss.backward()
        parts.append(net.layer.weight.grad.clone())
    assert parts[0].abs().sum() > 0
    assert not torch.equal(parts[0], parts[1])  # the second adds to the first
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_leaves_no_trace_in_a_network(reward):
    net = Net(reward)
    assert {name for name, _ in net.named_parameters()} == {"layer.weight", "layer.bias"}
    assert set(net.state_dict()) == {"layer.weight", "layer.bias"}
    net.load_state_dict(net.state_dict())  # strict


def test_changes_of_dtype_pass_it_by(reward, model):
    expected = reward(*triple())
    net = Net(reward).double()
    assert net.layer.weight.dtype == torch.float64
    assert model.dtype == torch.float32
    assert torch.equal(net.reward(*triple()), expected)


def test_it_follows_to_another_device(tmp_path):
    net = Net(FuScoreReward(tiny_fuscore(tmp_path)))
    net.to("meta")  # the one other device that every machine has
    assert net.reward.model.device.type == "meta"


def test_deep_copies_share_the_model_and_pickles_carry_it(reward):
    copied = copy.deepcopy(Net(reward))
    assert copied.reward.model is reward.model
    assert copied.reward is not reward
    travelled = pickle.loads(pickle.dumps(reward))
    assert travelled.model is not reward.model
    assert torch.equal(travelled(*triple()), reward(*triple()))
    assert not travelled.model.training


def test_the_judge_is_a_fuscore_or_named(model, tmp_path):
    with pytest.raises(TypeError, match=r"Expected `model` as a FuScore, .* got Conv2d"):
        GuestModel(nn.Conv2d(1, 1, 1))
    model.save_pretrained(tmp_path)
    rewards = [FuScoreReward(tmp_path) for _ in range(2)]
    assert torch.equal(rewards[0](*triple()), FuScoreReward(model)(*triple()))
    assert rewards[0].model is not rewards[1].model  # one may be moved to another device


def test_a_reward_says_in_a_line_what_it_is(model):
    shown = "FuScore(tiny, lite_llama, cpu, float32)"
    assert repr(FuScoreReward(model)) == f"FuScoreReward({shown}, overall)"
    loss = FuScoreLoss(model, aspects={"overall": 1, "sharpness": 1}, trust_region=TrustRegion())
    weights = "{'overall': 0.5, 'sharpness': 0.5}"
    assert repr(loss) == f"FuScoreLoss({shown}, {weights}, with a trust region)"
    assert repr(nn.ModuleDict({"loss": loss})).count("\n") == 2
    assert len(repr(model.spec)) < 80


BAD_IMAGES = {
    "no batch axis": (
        lambda: (images(), images(), torch.rand(3, 64)),
        r"Expected `fused` with shape \(N, 1, H, W\) or \(N, 3, H, W\), got \(3, 64\)",
    ),
    "two channels": (lambda: (images(2), images(), images()), r"Expected `ir` with shape .* got"),
    "array": (
        lambda: (images(), images().numpy(), images()),
        "Expected `vis` as a torch tensor .* got ndarray",
    ),
    "bytes": (
        lambda: (images(), images(), (images() * 255).to(torch.uint8)),
        "Expected `fused` with a floating dtype, got torch.uint8",
    ),
    "other batch": (
        lambda: (images(count=1), images(), images()),
        r"Expected `ir` with the shape of `fused` \(2, 3, 48, 64\), or .* got \(1, 3, 48, 64\)",
    ),
    "luma of another size": (
        lambda: (images(), images(), images(1)[..., :32]),
        r"Expected `vis` with the batch, height and width of `fused` \(2, 3, 48, 32\)",
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_get_one_clear_line(reward, case):
    make, message = BAD_IMAGES[case]
    with pytest.raises(InputError, match=message):
        reward(*make())


BAD_OPTIONS = {
    "unknown aspect": ({"aspects": "beauty"}, "beauty"),
    "unknown in weights": ({"aspects": {"beauty": 1.0}}, "beauty"),
    "all": ({"aspects": "all"}, "all"),
    "negative": ({"aspects": {"overall": -1.0}}, "finite and not negative"),
    "nothing": ({"aspects": {"overall": 0.0}}, "with a weight above 0"),
    "rule": ({"grey": "blue"}, "Expected `grey` in recolour, grey, got 'blue'"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_before_anything_is_loaded(case):
    options, message = BAD_OPTIONS[case]
    for made in (FuScoreReward, FuScoreLoss):
        with pytest.raises(ValueError, match=message):
            made("not even a model", **options)


def test_a_reference_needs_a_trust_region(reward):
    with pytest.raises(ValueError, match="Expected `reference` only with a `trust_region`"):
        reward(*triple(), reference=images())


def test_a_reference_of_another_shape_is_refused(model):
    guarded = FuScoreReward(model, trust_region=TrustRegion())
    with pytest.raises(InputError, match=r"Expected `reference` with the batch, height and width"):
        guarded(*triple(), reference=images(count=1))


def _worker(rank: int, folder: str, reward: FuScoreReward) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    net = nn.parallel.DistributedDataParallel(Net(reward))
    ir, vis = images(1, seed=rank), images(seed=10 + rank)
    (-net.module.reward(ir, vis, net(ir, vis))).mean().backward()
    torch.save(net.module.layer.weight.grad, f"{folder}/{rank}.pt")
    leave()


@pytest.mark.slow
def test_as_a_member_under_data_parallelism_gradients_are_those_of_one_process(model, tmp_path):
    mp.spawn(_worker, args=(str(tmp_path), FuScoreReward(model)), nprocs=2)
    net = Net(FuScoreReward(model))
    ir, vis = (
        torch.cat([images(c, seed=s + rank) for rank in (0, 1)]) for c, s in ((1, 0), (3, 10))
    )
    (-net.reward(ir, vis, net(ir, vis))).mean().backward()
    for rank in (0, 1):
        assert torch.allclose(torch.load(tmp_path / f"{rank}.pt"), net.layer.weight.grad, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_fusion_network_learns_the_same(model):
    gradients = []
    for compiled in (False, True):
        net = Net(FuScoreReward(model))
        fuse = torch.compile(net) if compiled else net
        ir, vis = images(1, seed=1), images(seed=2)
        (-net.reward(ir, vis, fuse(ir, vis))).mean().backward()
        gradients.append(net.layer.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_the_embedded_reward_prefers_the_better_example():
    reward = FuScoreReward()
    names = ("fused_good.png", "fused_noisy.png")
    triples = load_triples(
        *([EXAMPLE / name] * 2 for name in ("ir.png", "vis.png")), [EXAMPLE / n for n in names]
    )
    good, noisy = reward(*(to_batch(list(part)) for part in triples)).tolist()
    assert good > noisy + 1
