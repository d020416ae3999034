"""FuScoreMetric: the host's contract, the same numbers as `score`, two processes like one."""

import pickle

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from fuscore_metric import InputError, score
from fuscore_metric.integrations.torchmetrics import FuScoreMetric
from tests.helpers.commands import leave
from tests.integrations.conftest import images


def batch(seed: int = 0, count: int = 2) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return images(seed, count), {"ir": images(seed + 100, count), "vis": images(seed + 200, count)}


def test_facts(model):
    metric = FuScoreMetric(model)
    assert metric.higher_is_better
    assert metric.is_differentiable
    assert not metric.full_state_update
    assert (metric.plot_lower_bound, metric.plot_upper_bound) == (1.0, 5.0)
    with pytest.raises(RuntimeError):
        metric.higher_is_better = False
    assert repr(metric) == "FuScoreMetric(FuScore(tiny, lite_llama, cpu, float32), overall, mean)"


def test_the_mean_over_batches_is_that_of_score(model):
    batches = [batch(0, 3), batch(1, 1)]
    expected = torch.cat([score(t["ir"], t["vis"], f, model=model) for f, t in batches])
    mean, every = FuScoreMetric(model), FuScoreMetric(model, reduction="none")
    for number, (fused, target) in enumerate(batches):
        mean.update(fused, target)
        value = every(fused, target=target)
        assert torch.allclose(value, expected[:3] if number == 0 else expected[3:])
    assert torch.allclose(mean.compute(), expected.mean())
    assert mean.compute().dtype == torch.float32
    assert mean.compute().shape == ()
    assert torch.allclose(every.compute(), expected)
    mean.reset()
    every.reset()
    with pytest.warns(UserWarning, match="was called before"):
        assert every.compute().shape == (0,)
    mean.update(*batches[1])
    assert torch.allclose(mean.compute(), expected[3:].mean())


def test_paths_and_pictures_are_read_like_everywhere(model, tmp_path):
    rng = np.random.default_rng(0)
    pictures = {
        name: Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
        for name in ("ir", "vis", "fused")
    }
    paths = {name: tmp_path / f"{name}.png" for name in pictures}
    for name, picture in pictures.items():
        picture.save(paths[name])
    metric = FuScoreMetric(model)
    values = [
        metric(given["fused"], {"ir": given["ir"], "vis": given["vis"]})
        for given in (pictures, paths)
    ]
    expected = score(paths["ir"], paths["vis"], paths["fused"], model=model)
    assert torch.allclose(torch.stack(values), expected.expand(2))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_batch_value_is_differentiable_and_nothing_keeps_its_graph(model, reduction):
    metric = FuScoreMetric(model, reduction=reduction)
    fused, target = batch()
    fused.requires_grad_()
    target["ir"].requires_grad_()
    metric(fused, target).mean().backward()
    assert fused.grad is not None
    assert fused.grad.abs().sum() > 0
    assert target["ir"].grad is None
    assert not metric.compute().requires_grad
    states = metric.scores if reduction == "none" else [metric.score_sum]
    assert not any(state.requires_grad for state in states)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_clones_share_the_model_but_not_the_state(model, reduction):
    metric = FuScoreMetric(model, reduction=reduction)
    fused, target = batch()
    fused.requires_grad_()
    metric(fused, target)  # its graph must not be in the way
    cloned = metric.clone()
    assert cloned.guest.model is model
    cloned.update(*batch(5))
    assert not torch.equal(cloned.compute(), metric.compute())


def test_pickles_carry_model_and_state(model):
    metric = FuScoreMetric(model)
    metric.update(*batch())
    travelled = pickle.loads(pickle.dumps(metric))
    assert torch.equal(travelled.compute(), metric.compute())
    travelled.update(*batch(1))
    metric.update(*batch(1))
    assert torch.equal(travelled.compute(), metric.compute())


def test_the_state_dict_is_empty_and_parents_do_not_change_it(model):
    metric = FuScoreMetric(model)
    assert metric.state_dict() == {}
    expected = metric(*batch())
    parent = torch.nn.ModuleDict({"metric": metric}).train().half()
    assert list(parent.parameters()) == []
    assert torch.equal(metric(*batch()), expected)


def test_a_collection(model):
    collection = MetricCollection(
        {
            "overall": FuScoreMetric(model),
            "again": FuScoreMetric(model),
            "sharpness": FuScoreMetric(model, aspect="sharpness"),
        }
    )
    fused, target = batch()
    first = collection(fused, target=target)
    assert torch.allclose(first["overall"], first["again"])
    assert not torch.allclose(first["overall"], first["sharpness"])
    collection.update(*batch(1))
    whole = collection.compute()
    both = FuScoreMetric(model)
    for seed in (0, 1):
        both.update(*batch(seed))
    assert torch.allclose(whole["overall"], both.compute())
    assert collection.clone(prefix="val_")["val_overall"].guest.model is model


def test_a_collection_with_metrics_of_another_target(model):
    fused, sources = batch()
    collection = MetricCollection(
        {"fuscore": FuScoreMetric(model), "psnr": PeakSignalNoiseRatio(data_range=1.0)}
    )
    found = collection(fused, sources["vis"], **sources)
    collection.update(preds=fused, target=sources["vis"], **sources)
    expected = FuScoreMetric(model)(fused, sources)
    assert torch.equal(found["fuscore"], expected)
    assert torch.allclose(collection.compute()["fuscore"], expected)
    alone = PeakSignalNoiseRatio(data_range=1.0)(fused, sources["vis"])
    assert torch.allclose(found["psnr"], alone)
    assert torch.equal(FuScoreMetric(model)(fused, **sources), expected)


def test_plot(model):
    import matplotlib as mpl

    mpl.use("agg")
    metric = FuScoreMetric(model)
    values = [metric(*batch(seed)) for seed in range(3)]
    figure, axis = metric.plot(values)
    assert axis.get_ylabel() == "FuScoreMetric"
    assert axis.get_ylim()[0] <= 1 < 5 <= axis.get_ylim()[1]
    mpl.pyplot.close(figure)


BAD_INPUTS = {
    "no dictionary": (
        lambda: (images(0), images(1)),
        "`target` as a dictionary with `ir` and `vis`",
    ),
    "no vis": (lambda: (images(0), {"ir": images(1)}), "keys `ir` and `vis`, got ir"),
    "nothing": (lambda: (images(0), {}), "keys `ir` and `vis`, got nothing"),
    "one keyword": (lambda: (images(0), None, {"ir": images(1)}), "got no `vis`"),
    "twice": (lambda: (*batch(), batch()[1]), "got them in `target` and by keyword"),
    "one source too few": (
        lambda: (images(0), {"ir": images(1, 1), "vis": images(2)}),
        "the same number of images, .* got 1, 2 and 2",
    ),
    "8-bit scale": (
        lambda: (255 * images(0), {"ir": images(1), "vis": images(2)}),
        r"Expected `fused\[0\]` with values in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_refused_and_leaves_the_state(model, case):
    make, message = BAD_INPUTS[case]
    metric = FuScoreMetric(model)
    metric.update(*batch())
    before = metric.compute()
    fused, target, *keywords = make()
    with pytest.raises(InputError, match=message):
        metric.update(fused, target, **dict(*keywords))
    metric._computed = None
    assert torch.equal(metric.compute(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aspect": "all"}, "all"),
        ({"aspect": "beauty"}, "beauty"),
        ({"reduction": "sum"}, "Expected `reduction` in mean, none, got 'sum'"),
    ],
)
def test_bad_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        FuScoreMetric(model, **options)


def _worker(rank: int, folder: str, metric: FuScoreMetric, every: FuScoreMetric) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for seed in (rank, rank + 2):
        for each in (metric, every):
            each.update(*batch(seed, count=1 + rank))  # unequal shares
    torch.save((metric.compute(), every.compute()), f"{folder}/{rank}.pt")
    with pytest.raises(TorchMetricsUserError):
        metric.unsync()  # compute already did
    leave()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(model, tmp_path):
    made = FuScoreMetric(model), FuScoreMetric(model, reduction="none")
    mp.spawn(_worker, args=(str(tmp_path), *made), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for rank in (0, 1):
        for seed in (rank, rank + 2):
            for each in made:
                each.update(*batch(seed, count=1 + rank))
    for mean, every in found:
        assert torch.allclose(mean, made[0].compute())
        assert torch.allclose(every, made[1].compute())
