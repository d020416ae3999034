"""Every door on a GPU: tensors of the GPU or of the CPU, files; one number, on the right device."""

import pytest
import torch

from fuscore_metric import FuScore, FuScoreLoss, FuScoreReward, predict, rank, score
from fuscore_metric.prompts import ASPECTS
from tests.golden.doors import TOLERANCE, check, of_arrays, of_pil, of_rows, record
from tests.gpu.scenes import crops, example, example_files, on, write_crops

pytestmark = pytest.mark.gpu


def example_on(model):
    return on(model.device.type, example())


def of_torchmetrics(model, _):
    pytest.importorskip("torchmetrics")
    from fuscore_metric.integrations.torchmetrics import FuScoreMetric

    ir, vis, fused = example_on(model)
    metric = FuScoreMetric(model=model, reduction="none").to(model.device)
    metric.update(fused, target={"ir": ir, "vis": vis})
    return metric.compute()


def of_pyiqa(model, _):
    pyiqa = pytest.importorskip("pyiqa")
    ir, vis, fused = example_on(model)
    metric = pyiqa.create_metric("fuscore", device=model.device, model=lambda: model)
    return metric(fused, ir=ir, vis=vis)


def of_rank(model, _):
    ir, vis, fused = example_on(model)
    return rank(ir[0], vis[0], fused, model=model).score


def of_rank_of_files(model, _):
    ir, vis, fused = example_files()
    return rank(ir[0], vis[0], fused, model=model).score


DOORS = {
    "files": lambda model, _: score(*example_files(), model=model),
    "PIL": of_pil,
    "numpy": of_arrays,
    "tensors on the CPU": lambda model, _: score(*example(), model=model),
    "tensors on the device": lambda model, _: score(*example_on(model), model=model),
    "predict": lambda model, _: predict(*example_on(model), model=model, batch_size=3).score,
    "forward": lambda model, _: model(*example_on(model)).score,
    "reward": lambda model, _: FuScoreReward(model)(*example_on(model)),
    "rank": of_rank,
    "rank of files": of_rank_of_files,
    "torchmetrics": of_torchmetrics,
    "pyiqa": of_pyiqa,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_gives_the_golden_scores_where_the_model_is(device, model, door):
    triples = record.example_triples()
    with torch.no_grad():
        found = DOORS[door](model, triples)
    assert found.device.type == device
    assert found.dtype == torch.float32
    check(door, triples, found)


def test_rows_of_the_engine(model):
    triples = record.example_triples()
    check("rows", triples, of_rows(model, triples))


def test_the_loss_is_that_of_the_scores(model):
    with torch.no_grad():
        loss = FuScoreLoss(model)(*example_on(model))
    expected = (5 - score(*example_files(), model=model)) / 4
    assert loss.item() == pytest.approx(expected.mean().item(), abs=TOLERANCE)


def test_tensors_choose_the_device_where_no_model_is_given(device):
    found = score(*on(device, example()))
    assert found.device.type == device
    check("tensors", record.example_triples(), found)
    assert score(*crops()).device.type == "cpu"


def test_mixed_sizes_come_back_in_the_order_given(model, on_cpu, tmp_path):
    sizes = [(96, 160), (120, 128), (200, 144)]
    columns = [[], [], []]
    for height, width in sizes:
        parts = write_crops(tmp_path, 3, height=height, width=width)
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
    shuffled = [column[::2] + column[1::2] for column in columns]
    expected = score(*shuffled, model=on_cpu)
    found = score(*shuffled, model=model, batch_size=2)
    assert torch.allclose(found.cpu(), expected, atol=TOLERANCE)


def test_large_images_are_made_smaller_as_on_the_cpu(device, model, on_cpu):
    large = [torch.nn.functional.interpolate(x[:1], scale_factor=2) for x in example()]
    assert large[0][0, 0].numel() > model.spec.preprocessing["max_pixels"]
    expected = on_cpu(*large, aspects=ASPECTS).score
    found = model(*on(device, large), aspects=ASPECTS).score
    assert torch.allclose(found.cpu(), expected, atol=TOLERANCE)


def test_all_that_predict_says_is_that_of_the_cpu(device, model, on_cpu):
    expected = predict(*crops(), model=on_cpu, aspects=ASPECTS)
    found = predict(*on(device, crops()), model=model, aspects=ASPECTS)
    for name in ("score", "std", "probabilities"):
        values = getattr(found, name)
        assert values.device.type == device
        assert torch.allclose(values.cpu(), getattr(expected, name), atol=TOLERANCE), name


def test_a_ranking_is_that_of_the_cpu(model, on_cpu):
    ir, vis, fused = example_files()
    expected, found = (rank(ir[0], vis[0], fused, model=one) for one in (on_cpu, model))
    assert found.order == expected.order
    assert torch.allclose(found.score.cpu(), expected.score, atol=TOLERANCE)
    assert torch.allclose(found.preferences.cpu(), expected.preferences, atol=1e-3)


def test_a_pair_is_read_once_for_many(device, model):
    ir, vis, fused = on(device, example())
    together = model.score_fused(
        model.encode_sources(ir[:1], vis[:1]), fused, aspects=ASPECTS
    ).score
    assert torch.allclose(together, model(ir, vis, fused, aspects=ASPECTS).score, atol=TOLERANCE)
    # The second and third of three pairs have two fused images each.
    pair = torch.tensor([1, 2, 1, 2])
    sources = model.encode_sources(ir[:3], vis[:3])
    for where in ("cpu", device):
        found = model.score_fused(sources, fused, aspects=ASPECTS, pair=pair.to(where)).score
        assert torch.allclose(found, together, atol=TOLERANCE)


def test_attribution_is_that_of_the_cpu(device, model, on_cpu, record_property):
    expected = on_cpu.attribution(*crops(2), steps=4)
    found = model.attribution(*on(device, crops(2)), steps=4)
    assert found.device.type == device
    error = ((found.cpu() - expected).norm() / expected.norm()).item()
    record_property("relative error, attribution", error)
    assert error <= 0.01


def test_images_and_reward_may_be_on_different_devices(device):
    reward = FuScoreReward(FuScore.from_pretrained(device="cpu"))
    ir, vis, fused = crops(2)
    expected = reward(ir, vis, fused)
    there = fused.to(device).requires_grad_()
    found = reward(ir, vis.to(device), there)
    found.sum().backward()
    assert found.device == there.device == there.grad.device
    assert torch.allclose(found.cpu(), expected, atol=TOLERANCE)
    torch.nn.ModuleList([reward]).to(device)  # the host moves, and the model with it
    assert reward.model.device.type == device
    assert reward(ir, vis, fused).device.type == "cpu"


def test_pyiqa_gives_its_result_where_the_caller_is(device):
    pyiqa = pytest.importorskip("pyiqa")
    metric = pyiqa.create_metric("fuscore", device=device)
    assert metric.net.guest.model.device.type == device
    ir, vis, fused = crops(2)
    assert metric(fused, ir=ir, vis=vis).device.type == "cpu"
