"""The speed benchmarks on tiny models: peers give FuScore's numbers, counts are right."""

import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import EXAMPLE
from benchmarks.speed import clock, growth, shared, throughput, utilisation
from benchmarks.speed.models import embedded, parameters, tenth, tiny
from benchmarks.speed.peers import OneByOne, VitReward
from benchmarks.speed.plain import plain
from benchmarks.speed.scenes import scene, separate_triples, vifb
from benchmarks.speed.table import FOLDER, table
from benchmarks.speed.work import Rates, attention_flops, work
from fuscore_metric import measure, score
from tests.helpers import ROOT

NOWHERE = EXAMPLE / "not a folder of real images"
RATES = Rates(flops=1e11, bytes=1e10)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def example_triple():
    return EXAMPLE / "ir.png", EXAMPLE / "vis.png", EXAMPLE / "fused_good.png"


def test_a_tenth_of_a_billion_without_the_words():
    parts = parameters(tenth())
    words = parts.pop("words")
    assert sum(parts.values()) == pytest.approx(1e8, rel=0.05)
    assert words < 0.005 * sum(parts.values())


@pytest.mark.parametrize("make", [embedded, tiny])
def test_the_usual_way_gives_the_same_score(make):
    model = make()
    ours = score(*map(str, example_triple()), model=model).item()
    # Pillow's resize is not ours, so the tiny one, which must resize, differs a little.
    assert OneByOne(model).score(example_triple()) == pytest.approx(
        ours, abs=1e-4 if make is embedded else 0.05
    )


def test_the_reward_model_sees_all_three_images():
    model = VitReward(layers=1, width=64)
    images = [torch.rand(2, 3, 384, 384) for _ in range(3)]
    before = model(*images)
    assert before.shape == (2,)
    for place in range(3):
        changed = [image.flip(-1) if n == place else image for n, image in enumerate(images)]
        assert not torch.equal(model(*changed), before)
    assert model.score([example_triple()]).isfinite().all()


def test_a_plain_evaluator_gives_the_same_measures():
    found = plain(example_triple())
    ours = measure(*map(str, example_triple()), names=list(found))
    # Pillow rounds luma from weights of 16 bits.
    assert found == {name: pytest.approx(value.item(), rel=1e-4) for name, value in ours.items()}


def test_scenes_without_real_images(tmp_path):
    here = scene(NOWHERE, 6)
    assert (len(here.candidates), here.real) == (6, False)
    assert [len(images) for images in here.tensors()] == [1, 1, 6]
    assert len(vifb(NOWHERE)) == 4
    triples = separate_triples(NOWHERE, 3, tmp_path)
    assert len({path for triple in triples for path in triple}) == 9


@pytest.mark.real_data
def test_scenes_of_real_images(tmp_path):
    from benchmarks.speed.scenes import data_folder

    assert len(set(vifb(data_folder()))) == 525
    here = scene(data_folder(), 16)
    assert here.real
    assert len(set(here.candidates)) == 16
    assert here.tensors()[2].shape == (16, 3, 480, 640)
    for triple in separate_triples(data_folder(), 4, tmp_path):
        assert "ir" in triple[0].name
        assert all(path.stat().st_size for path in triple)


def test_products_are_counted_as_torch_counts_them():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(2))
    layers.append(nn.Linear(36, 5))
    images = torch.rand(2, 3, 8, 8)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        layers(images)
    assert work(lambda: layers(images)).flops == theirs.get_total_flops() > 0


def test_bytes_and_views():
    numbers = torch.rand(10, 10)
    assert work(lambda: numbers.t()[2:].unflatten(0, (2, 4))).bytes == 0
    assert work(lambda: numbers.exp()).bytes == 2 * 400
    assert work(lambda: numbers.clone().add_(1)).bytes == 4 * 400
    assert work(lambda: numbers[:1].expand(50, -1).exp()).bytes == 40 + 50 * 40  # ten numbers read


def test_attention_counts_pairs_that_see_each_other():
    query, key = torch.rand(2, 4, 6, 8), torch.rand(2, 2, 6, 8)
    each = 2 * 2 * 4 * 16
    assert attention_flops(query, key, key) == 36 * each
    assert attention_flops(query, key, key, 0.0, True) == 21 * each
    mask = torch.zeros(1, 1, 6, 6).masked_fill(torch.ones(6, 6).triu(1) > 0, float("-inf"))
    assert attention_flops(query, key, key, attn_mask=mask) == 21 * each
    call = work(lambda: F.scaled_dot_product_attention(query, query, query, is_causal=True))
    assert call.flops == 21 * each


@pytest.mark.parametrize("kind", ["_flash", "_efficient", "_cudnn"])
def test_attention_of_a_gpu_is_counted_like_that_of_a_cpu(kind):
    query, key = torch.rand(2, 4, 6, 8), torch.rand(2, 2, 6, 8)
    expected = work(lambda: F.scaled_dot_product_attention(query, query, query, is_causal=True))
    operation = getattr(torch.ops.aten, f"_scaled_dot_product{kind}_attention")
    bias = () if kind == "_flash" else (None, False)
    given = (x.to("meta") for x in (query, query, query))
    assert work(lambda: operation(*given, *bias, 0.0, True)).flops == expected.flops > 0
    if kind == "_flash":  # fewer heads of keys: torch's own formula refuses them
        given = (x.to("meta") for x in (query, key, key))
        assert work(lambda: operation(*given, 0.0, True)).flops == expected.flops


def test_roofline_takes_the_longer_need():
    a = torch.rand(100, 100)
    found = work(lambda: (a @ a).exp())
    assert found.seconds(Rates(1.0, 1e30)) == pytest.approx(2e6)
    assert found.seconds(Rates(1e30, 1.0)) == pytest.approx(found.bytes)
    assert found.bytes == 4 * 40_000  # a, the product twice, the result


@pytest.mark.parametrize("aspect", ["overall", "all"])
def test_the_limit_is_that_of_the_whole_count(aspect):
    model, images = tiny(), scene(NOWHERE, 4).tensors()
    whole = [work(lambda way=way: way(model, images, aspect)) for way in WAYS]
    by_flops, by_roofline = shared.limit(model, images, aspect, RATES)
    assert by_flops == pytest.approx(whole[0].flops / whole[1].flops, rel=0.01)
    assert by_roofline == pytest.approx(whole[0].seconds(RATES) / whole[1].seconds(RATES), rel=0.05)
    assert 1.1 < by_flops < 3


WAYS = shared.independent, shared.shared


def test_both_ways_give_the_same_scores():
    found = shared.measure(tiny(), scene(NOWHERE, 3).tensors(), "overall", 1, RATES)
    assert found.difference < 1e-4 < found.span
    assert min(found.independent, found.shared) > 0
    assert shared.row("tiny", "overall", found).count("|") == 9


def test_best_of_rounds_and_peak():
    calls = []
    best = clock.best_seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b", "a", "b"]
    assert set(best) == {"a", "b"}
    assert clock.peak_mebibytes(lambda: torch.ones(64 * 2**18)) == pytest.approx(64, abs=8)
    assert clock.matmul_rate(sides=(512,)) > 1e8


def test_median_of_rounds_after_one_that_warms_up():
    waits = iter([0.3, 0.0, 0.05, 0.0])
    assert clock.median_seconds(lambda: time.sleep(next(waits)), clock.CPU, least=0) < 0.04


def test_the_table_of_a_benchmark_file():
    def one(group, note, seconds, triples, flops):
        info = {"device": "cpu", "processor": "p", "threads": 2, "torch": "2", "dtype": "float32"}
        info |= {"note": note, "triples": triples, "peak_mebibytes": 12.3, "flops": flops}
        return {"group": group, "stats": {"min": seconds}, "extra_info": info}

    benchmarks = [
        one("sixteen candidates", "FuScore", 4.0, 16, 8e9),
        one("sixteen candidates", "peer", 1.0, 2, None),
        one("decode", "files", 0.01, 8, None),
    ]
    lines = table(json.loads(json.dumps(benchmarks))).splitlines()
    assert lines[0] == "cpu (p), 2 threads, float32, torch 2"
    assert lines[4:] == [
        "| decode | files | 0.00125 |  |  | 12 |",
        "| sixteen candidates | FuScore | 0.25 | 1.0 | 2 | 12 |",
        "| sixteen candidates | peer | 0.5 | 2.0 |  | 12 |",
    ]


def test_stages_add_up():
    found = utilisation.stages(tiny(), 1, batch=2, size=(96, 128))
    parts = [found[name].flops for name in ("vision", "prefix", "candidate")]
    assert found["whole"].flops == sum(parts)
    assert min(parts) > 0
    assert found["vision"].rate == parts[0] / found["vision"].seconds


def test_shares_of_kinds():
    a = torch.rand(300, 300)
    found = utilisation.shares(lambda: (a @ a).relu_().mul(2))
    assert sum(found.values()) == pytest.approx(1)
    assert found["matrix products"] > 0
    assert found["number by number"] > 0


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::add", "number by number"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::_adaptive_avg_pool2d", "pooling"),
        ("aten::copy_", "copies and fills"),
        ("aten::empty", "others"),
    ],
)
def test_kinds(operation, expected):
    assert utilisation.kind(operation) == expected


def test_throughput_of_batches_and_sizes():
    model = tiny()
    assert set(throughput.by_batch(model, (1, 3), (64, 96), 1)) == {1, 3}
    rates = throughput.by_size(model, [(64, 64), (96, 128)], 2, 1)
    assert rates[64, 64] > 0
    together, apart, difference = throughput.mixed(model, [(64, 64), (96, 128)], 2, 1)
    assert min(together, apart) > 0
    assert difference < 1e-5


def test_seconds_of_files(tmp_path):
    here = scene(NOWHERE, 2)
    for triples in (
        separate_triples(NOWHERE, 2, tmp_path),
        [(here.ir, here.vis, fused) for fused in here.candidates],
    ):
        found = throughput.preprocessing(tiny(), triples, 1)
        assert set(found) == {"files", "decode", "memory"}
        assert min(found.values()) > 0


@pytest.mark.parametrize("power", [0, 1, 2])
def test_exponents(power):
    points = [1, 2, 4, 8]
    assert growth.exponent(points, [3 * n**power for n in points]) == pytest.approx(power)


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path):
    model, points = tiny(), growth.POINTS["tiny"]
    found = {axis: growth.measure(model, axis, at, 1) for axis, at in points.items()}
    batch, candidates = found["batch"], found["candidates"]
    assert growth.exponent(batch.points, batch.flops) == pytest.approx(1)
    assert 0 < growth.exponent(candidates.points, candidates.flops) < 1
    growth.draw({"tiny": found}, tmp_path / "growth.png")
    assert 0 < (tmp_path / "growth.png").stat().st_size < 100_000


@pytest.mark.slow
def test_the_benchmarks_are_found_and_not_in_the_default_run():
    files = sorted(map(str, FOLDER.glob("bench_*.py")))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    found = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("decode", "prepare", "vision", "prefix", "candidate", "head", "one_by_one"):
        assert f"test_{name}[" in found.stdout
    assert "test_vit_reward" in found.stdout
    folder = str(ROOT / "benchmarks" / "speed")
    nothing = subprocess.run([*command, folder], cwd=ROOT, capture_output=True, text=True)
    assert nothing.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
