"""The friendly doors and FuScore itself: forms of input, batches, gradients, frozen weights."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fuscore_metric
from fuscore_metric import FuScore, FuScoreReward, InputError, predict, rank, score
from fuscore_metric.prompts import ASPECTS
from tests.helpers.tiny_model import tiny_fuscore


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FuScore:
    return tiny_fuscore(tmp_path_factory.mktemp("words"))


def pictures(count: int = 3, height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).movedim(-1, -3).float() / 255


def test_every_door_gives_one_score(model, tmp_path):
    arrays = list(pictures())
    paths = []
    for name, array in zip(("ir", "vis", "fused"), arrays, strict=True):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(array).save(paths[-1])
    doors = {
        "path": paths,
        "string": [str(path) for path in paths],
        "pil": [Image.fromarray(array) for array in arrays],
        "numpy uint8": arrays,
        "numpy float": [array.astype(np.float32) / 255 for array in arrays],
        "tensor": [as_tensor(array) for array in arrays],
        "tensor batch": [as_tensor(array)[None] for array in arrays],
        "tensor uint8": [torch.from_numpy(array).movedim(-1, 0) for array in arrays],
        "list": [[array] for array in arrays],
    }
    scores = {name: score(*images, model=model) for name, images in doors.items()}
    for name, found in scores.items():
        assert found.shape == (1,), name
        assert found.dtype == torch.float32, name
        assert found.item() == pytest.approx(scores["path"].item(), abs=1e-6), name


def test_thermal_range(model, tmp_path):
    ir, vis, fused = pictures()
    degrees = np.linspace(-10, 50, 64 * 80, dtype=np.float32).reshape(64, 80)
    expected = score(((degrees - 5) / 35).clip(0, 1), vis, fused, model=model)
    Image.fromarray(degrees).save(tmp_path / "ir.tiff")
    given = {"model": model, "thermal_range": (5, 40)}
    for door in (degrees, tmp_path / "ir.tiff", torch.from_numpy(degrees)[None], [degrees]):
        assert torch.allclose(score(door, vis, fused, **given), expected, atol=1e-5)
    ranking = rank(tmp_path / "ir.tiff", vis, [fused], **given)
    assert torch.allclose(ranking.score, expected, atol=1e-5)
    counts = np.round(degrees * 100 + 3000).astype(np.uint16)
    for image in (counts, Image.fromarray(counts)):
        found = score(image, vis, fused, model=model, thermal_range=(3500, 7000))
        assert torch.allclose(found, expected, atol=1e-3)
    # Bytes too, also where they would be moved before they become floats.
    Image.fromarray(ir).save(tmp_path / "ir.png")
    expected = score(((ir - 50.0) / 100).clip(0, 1), vis, fused, model=model)
    found = score(tmp_path / "ir.png", vis, fused, model=model, thermal_range=(50, 150))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("limits", [(1, 1), (5, 2), (0, np.inf), (np.nan, 1), 5, (1, 2, 3), "ab"])
def test_a_bad_thermal_range_is_refused(model, limits):
    with pytest.raises(ValueError, match=r"thermal_range.*low < high"):
        score(*pictures(), model=model, thermal_range=limits)


def test_grey_is_three_equal_channels(model):
    grey = pictures()[..., 0]
    coloured = np.repeat(grey[..., None], 3, axis=-1)
    assert torch.allclose(score(*grey, model=model), score(*coloured, model=model))


def test_a_list_a_batch_and_one_by_one_agree(model):
    ir, vis, fused = (pictures(5, seed=seed) for seed in range(3))
    batch = score(ir, vis, fused, model=model)
    assert batch.shape == (5,)
    assert torch.allclose(score(list(ir), list(vis), list(fused), model=model), batch)
    for size in (1, 2, 8):
        assert torch.allclose(score(ir, vis, fused, model=model, batch_size=size), batch, atol=1e-5)
    alone = [score(*triple, model=model) for triple in zip(ir, vis, fused, strict=True)]
    assert torch.allclose(torch.cat(alone), batch, atol=1e-5)


def test_mixed_sizes_come_back_in_the_order_given(model):
    sizes = [(64, 80), (96, 64), (64, 80)]
    triples = [pictures(3, *size, seed=n) for n, size in enumerate(sizes)]
    ir, vis, fused = ([triple[k] for triple in triples] for k in range(3))
    mixed = score(ir, vis, fused, model=model)
    for n, triple in enumerate(triples):
        assert mixed[n].item() == pytest.approx(score(*triple, model=model).item(), abs=1e-5)


def test_predict_says_all(model):
    output = predict(*pictures(), model=model)
    assert output.probabilities.shape == output.level_logits.shape == (1, 5)
    levels = torch.arange(1.0, 6)
    assert output.score.item() == pytest.approx((output.probabilities[0] @ levels).item(), abs=1e-5)
    assert output.std.square().item() == pytest.approx(output.variance.item(), abs=1e-6)
    assert 1 <= output.score.item() <= 5


def test_aspects_differ_and_an_unknown_one_is_refused(model):
    found = {aspect: score(*pictures(), model=model, aspect=aspect).item() for aspect in ASPECTS}
    assert len(set(found.values())) == len(ASPECTS)
    with pytest.raises(ValueError, match="`aspect`"):
        score("no.png", "no.png", "no.png", model=model, aspect="beauty")


def test_all_aspects_at_once_are_the_single_ones(model):
    ir, vis, fused = (pictures(3, seed=seed) for seed in range(3))
    together = predict(ir, vis, fused, model=model, aspects=ASPECTS, batch_size=2)
    assert together.score.shape == together.std.shape == together.variance.shape == (3, 5)
    assert together.probabilities.shape == together.level_logits.shape == (3, 5, 5)
    assert torch.equal(score(ir, vis, fused, model=model, aspects=ASPECTS), together.score)
    for number, aspect in enumerate(ASPECTS):
        alone = predict(ir, vis, fused, model=model, aspect=aspect)
        assert torch.allclose(together.score[:, number], alone.score, atol=1e-5)
        assert torch.allclose(together.std[:, number], alone.std, atol=1e-5)
        assert torch.allclose(together.level_logits[:, number], alone.level_logits, atol=1e-5)
    one = score(ir[0], vis[0], fused[0], model=model, aspects=ASPECTS)
    assert one.shape == (1, 5)
    exact = model(*(as_tensor(images) for images in (ir, vis, fused)), aspects=ASPECTS)
    assert torch.allclose(exact.score, together.score, atol=1e-5)


def test_aspects_give_an_axis_in_the_order_asked_for(model):
    ir, vis, fused = (pictures(2, seed=seed) for seed in range(3))
    tensors = [as_tensor(images) for images in (ir, vis, fused)]
    asked = ("sharpness", "overall")
    doors = {
        "predict": lambda **how: predict(ir, vis, fused, model=model, **how),
        "forward": lambda **how: model(*tensors, **how),
        "score_fused": lambda **how: model.score_fused(
            model.encode_sources(*tensors[:2]), tensors[2], **how
        ),
        "rank": lambda **how: rank(ir[0], vis[0], fused, model=model, **how).output,
    }
    for name, door in doors.items():
        both, one, plain = door(aspects=asked), door(aspects=asked[:1]), door(aspect=asked[0])
        assert both.score.shape == (2, 2), name
        assert both.aspects == asked
        assert one.probabilities.shape == (2, 1, 5)
        assert plain.score.shape == (2,)
        assert torch.allclose(both.of("sharpness").score, plain.score, atol=1e-5)
        assert torch.allclose(both.of("overall").score, door().score, atol=1e-5)
        assert torch.equal(one[0].score, plain[0].score[None])
        with pytest.raises(ValueError, match="both"):
            door(aspect="overall", aspects=asked)
        with pytest.raises(ValueError, match="each once"):
            door(aspects=())
        with pytest.warns(DeprecationWarning, match="aspects=") as warned:
            old = door(aspect="all")
        assert old.aspects == ASPECTS
        assert warned[0].filename == __file__


def test_all_aspects_of_mixed_sizes_come_back_in_the_order_given(model):
    sizes = [(64, 80), (96, 64), (64, 80)]
    triples = [pictures(3, *size, seed=n) for n, size in enumerate(sizes)]
    ir, vis, fused = ([triple[k] for triple in triples] for k in range(3))
    mixed = score(ir, vis, fused, model=model, aspects=ASPECTS)
    for n, triple in enumerate(triples):
        assert torch.allclose(mixed[n], score(*triple, model=model, aspects=ASPECTS)[0], atol=1e-5)


def test_gradients_of_all_aspects_differ(model):
    images = [as_tensor(image).requires_grad_() for image in pictures()]
    scores = score(*images, model=model, aspects=ASPECTS)[0]
    slopes = [torch.autograd.grad(one, images[2], retain_graph=True)[0] for one in scores]
    assert all(slope.abs().sum() > 0 for slope in slopes)
    assert not torch.allclose(slopes[0], slopes[1])


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_bad_batch_size_is_refused(model, size):
    with pytest.raises(ValueError, match="`batch_size`"):
        score(*pictures(), model=model, batch_size=size)


def test_numbers_of_numpy_are_numbers(model):
    found = score(*pictures(), model=model, batch_size=np.int64(8))
    assert torch.equal(found, score(*pictures(), model=model))
    triple = [as_tensor(image)[None] for image in pictures()]
    assert model.attribution(*triple, steps=np.int64(1)).shape == (1, 64, 80)


@pytest.mark.parametrize("aspect", [["overall", "sharpness"], ("overall",), 1])
def test_what_is_no_aspect_is_refused_by_name(model, aspect):
    triple = [as_tensor(image)[None] for image in pictures()]
    doors = [
        lambda: score(*pictures(), model=model, aspect=aspect),
        lambda: model(*triple, aspect=aspect),
        lambda: model.attribution(*triple, aspect=aspect),
        lambda: FuScoreReward(model, aspects=aspect),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=r"`aspects?`"):
            door()


def test_a_generator_of_sources_and_a_loader_get_their_own_scores(model):
    ir, vis, fused = (pictures(6, seed=seed) for seed in range(3))
    expected = score(ir, vis, fused, model=model)
    lazy = ((image.copy() for image in images) for images in (ir, vis, fused))
    found = score(*lazy, model=model, batch_size=2)
    assert torch.allclose(found, expected, rtol=0, atol=2e-6)  # other batches round otherwise


def test_swapped_sources_are_warned_of_once_a_call(model, tmp_path, recwarn):
    grey, colour = pictures(5)[..., :1], pictures(5, seed=1)
    paths = [str(tmp_path / f"{n}.png") for n in range(5)]
    for path, image in zip(paths, colour, strict=True):
        Image.fromarray(image).save(path)
    score(grey, paths, colour, model=model, batch_size=2)
    assert not recwarn.list
    for ir in (paths, colour, as_tensor(colour)):
        with pytest.warns(UserWarning, match=r"`ir\[0\]` has colours") as caught:
            score(ir, grey, colour, model=model, batch_size=2)
        assert len(caught) == 1


def test_swapped_sources_are_warned_of_once_by_a_model_that_is_called(tmp_path, recwarn):
    grey = as_tensor(pictures(2)[..., :1]).expand(-1, 3, -1, -1)
    colour = as_tensor(pictures(2, seed=1))
    doors = {
        "forward": lambda model: model(colour, grey, colour),
        "attribution": lambda model: model.attribution(colour, grey, colour, steps=1),
        "reward": lambda model: FuScoreReward(model)(colour, grey[:, :1], colour),
    }
    for name, door in doors.items():
        model = tiny_fuscore(tmp_path)
        model(grey, colour, colour)
        assert not recwarn.list, name
        with pytest.warns(UserWarning, match="`ir` has colours") as caught:
            _ = [door(model) for _ in range(2)]
        assert len(caught) == 1, name


def test_a_model_takes_what_score_takes(model, tmp_path):
    images = [pictures(2, seed=seed) for seed in range(3)]
    paths = [[tmp_path / f"{n}_{k}.png" for k in range(2)] for n in range(3)]
    for column, pixels in zip(paths, images, strict=True):
        for path, image in zip(column, pixels, strict=True):
            Image.fromarray(image).save(path)
    tensors = [as_tensor(image) for image in images]
    expected = model(*tensors, aspects=ASPECTS)
    for given in (paths, images, [tensors[0], paths[1], images[2]]):
        assert torch.allclose(model(*given, aspects=ASPECTS).score, expected.score, atol=1e-5)
    assert model(*(column[0] for column in paths)).score.shape == (1,)
    lost = model.attribution(*tensors, steps=1)
    assert torch.allclose(model.attribution(*paths, steps=1), lost, atol=1e-6)


def test_a_model_may_be_named(model, tmp_path, monkeypatch):
    """It is loaded once, and again when its files change."""
    model.save_pretrained(tmp_path / "weights")
    loads, load = [], FuScore.from_pretrained

    def counted(name, **options):
        loads.append(name)
        return load(name, **options)

    monkeypatch.setattr(FuScore, "from_pretrained", counted)
    monkeypatch.chdir(tmp_path)
    expected = score(*pictures(), model=model)
    for name in ("weights", tmp_path / "weights", str(tmp_path / "weights")):
        for door in (score, lambda *given, **o: predict(*given, **o).score):
            assert torch.equal(door(*pictures(), model=name), expected)
        assert torch.equal(rank(*pictures(), model=name, device="cpu").score, expected)
    assert len(loads) == 1
    other = tiny_fuscore(tmp_path, seed=1)
    other.save_pretrained(tmp_path / "weights")
    assert torch.equal(score(*pictures(), model="weights"), score(*pictures(), model=other))
    assert len(loads) == 2


@pytest.mark.parametrize("name", [1, None, nn.Identity()])
def test_what_is_no_model_is_refused_by_name(name):
    for door in (lambda: score(*pictures(), model=name), lambda: FuScoreReward(name)):
        with pytest.raises(TypeError, match="Expected `model` as a FuScore, or as a name or path"):
            door()


def test_gradients_flow_through_the_public_door(model):
    images = [as_tensor(image).requires_grad_() for image in pictures()]
    score(*images, model=model).sum().backward()
    assert all(image.grad.abs().sum() > 0 for image in images)
    assert not score(*(image.detach() for image in images), model=model).requires_grad
    with torch.no_grad():
        assert not score(*images, model=model).requires_grad


def test_the_gradient_is_the_slope(model):
    """A step along the gradient of `fused` changes the score as the gradient says."""
    ir, vis, fused = (as_tensor(image)[None] * 0.8 + 0.1 for image in pictures())
    fused.requires_grad_()
    before = model(ir, vis, fused)
    (gradient,) = torch.autograd.grad(before.score.sum(), fused)
    step = 0.05 * gradient / gradient.abs().max()
    with torch.no_grad():
        change = model(ir, vis, fused + step).score - model(ir, vis, fused - step).score
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=0.1)


def test_the_judge_is_frozen(model):
    parent = nn.ModuleList([model]).train()
    assert not any(module.training for module in parent[0].modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_facts_are_true(model):
    assert model.higher_is_better
    assert model.is_differentiable
    assert model.score_range == (1.0, 5.0)


def test_copy_and_pickle(model):
    known = score(*pictures(), model=model)
    assert torch.equal(score(*pictures(), model=copy.deepcopy(model)), known)
    assert torch.equal(score(*pictures(), model=pickle.loads(pickle.dumps(model))), known)


def test_saved_and_loaded_scores_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = FuScore.from_pretrained(tmp_path)
    assert torch.equal(score(*pictures(), model=loaded), score(*pictures(), model=model))
    assert loaded.spec == model.spec


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 64), torch.float32, r"Expected `fused` with shape \(N, 3, H, W\), got \(3, 64\)"),
        ((1, 1, 64, 64), torch.float32, r"Expected `fused` with shape \(N, 3, H, W\)"),
        ((1, 3, 8, 64), torch.float32, "`fused`"),
        ((1, 3, 64, 64), torch.uint8, "`fused`"),
    ],
)
def test_the_exact_door_refuses_wrong_shapes(model, shape, dtype, message):
    good = torch.rand(1, 3, 64, 64)
    with pytest.raises(InputError, match=message):
        model(good, good, torch.zeros(shape, dtype=dtype))


def test_the_exact_door_wants_equal_shapes(model):
    with pytest.raises(InputError, match="Expected `ir` with the shape of `fused`"):
        model(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80))


def test_importing_the_package_loads_no_framework():
    code = (
        "import sys, fuscore_metric; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_public_names_are_there():
    for name in fuscore_metric.__all__:
        assert getattr(fuscore_metric, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = fuscore_metric.nothing
