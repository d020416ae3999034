"""A GPU is never made to wait while batches are scored, followed on one that is not there.

A GPU that was waited for idles until the CPU has sent it the next operations. `tests/gpu` asks a
real one.
"""

import copy

import pytest
import torch
from PIL import Image

from benchmarks import tiny_llava, tiny_qwen
from fuscore_metric import FuScore, InputError
from fuscore_metric.checkpoints.spec import FuScoreSpec
from fuscore_metric.images.lazy import open_triples
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.scoring import score_each
from tests.helpers import EXAMPLE
from tests.helpers.pretended_gpu import DEVICE, GpuTensor, pretended_gpu

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def gpu():
    with pretended_gpu() as made:
        yield made


@pytest.fixture(scope="module")
def on_cpu() -> FuScore:
    return FuScore.from_pretrained(device="cpu")


@pytest.fixture
def model(gpu, on_cpu):
    return gpu.model(copy.deepcopy(on_cpu))


def images(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(count, 3, HEIGHT, WIDTH, generator=generator) for _ in range(3)]


def page_locked(tensor):
    return tensor.pin_memory().to(DEVICE, non_blocking=True)


WAITS = {
    "item": lambda x: x.sum().item(),
    "truth": lambda x: bool((x > 0).all()),
    "tolist": lambda x: x.tolist(),
    "to the CPU": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x + 1),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: torch.arange(2, device=DEVICE).repeat_interleave(x[0].long()),
    "torch.tensor": lambda x: torch.tensor([1, 2], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1, 2]),
    "blocking copy": lambda x: torch.ones(2).to(DEVICE),
    "pageable memory": lambda x: torch.ones(2).to(DEVICE, non_blocking=True),
    "copy_": lambda x: x.copy_(torch.ones(2, 2)),
    "copy_ back": lambda x: torch.empty(2, 2).copy_(x, non_blocking=True),
    "blocking copy_ back": lambda x: torch.empty(2, 2, pin_memory=True).copy_(x),
    "index on the CPU": lambda x: x[torch.tensor([1, 0])],
    "list as an index": lambda x: x[:, [1, 0]],
}
SENT = {
    "page-locked memory": lambda x: page_locked(torch.ones(2)),
    "arithmetic": lambda x: (x * 2 + x.mean()).to(torch.float64).softmax(-1),
    "index on the GPU": lambda x: x[torch.arange(2, device=DEVICE)],
    "slices": lambda x: x[..., 1:, None],
    "made there": lambda x: torch.zeros(2, device=x.device).add_(1),
    "on the CPU alone": lambda x: torch.tensor([1, 2]).tolist(),
    "copy_ back to page-locked memory": lambda x: torch.empty(2, 2, pin_memory=True).copy_(
        x, non_blocking=True
    ),
    "page-locked from the start": lambda x: torch.empty(2, pin_memory=True).to(
        DEVICE, non_blocking=True
    ),
}


@pytest.mark.parametrize("case", [*WAITS, *SENT])
def test_it_knows_what_waits(gpu, case):
    (WAITS | SENT)[case](GpuTensor(torch.ones(2, 2)))
    assert bool(gpu.waits) == (case in WAITS), gpu.waits


def test_it_computes_as_a_gpu_would(gpu):
    numbers = torch.rand(2, 3)
    x = GpuTensor(numbers)
    assert x.device == DEVICE
    assert torch.equal((x @ x.T).cpu(), numbers @ numbers.T)
    with pytest.raises(RuntimeError, match="on cuda:0 and on the CPU"):
        x + torch.ones(2, 3)


# Each: the source pair of each of four fused images, and how many pairs there are.
PAIRS = {"one each": (None, 4), "one for all": (None, 1), "given": ((0, 0, 1, 2), 3)}


@pytest.mark.parametrize(
    ("pairs", "asked"),
    [("one each", {"aspects": ASPECTS}), ("one for all", {}), ("given", {"aspects": ASPECTS})],
)
def test_no_batch_makes_the_gpu_wait(gpu, model, pairs, asked):
    pair, count = PAIRS[pairs]
    pair = None if pair is None else torch.tensor(pair)
    ir, vis, fused = (GpuTensor(x) for x in images())
    for _ in range(2):  # the first may fill what is kept
        gpu.waits.clear()
        model.score_fused(model.encode_sources(ir[:count], vis[:count]), fused, **asked, pair=pair)
    assert not gpu.waits


def test_a_wrong_range_is_found_without_waiting(gpu, model):
    right, wrong = ([GpuTensor(f(x)) for x in images()] for f in (lambda x: x, lambda x: 255 * x))
    with pytest.raises(InputError, match=r"`ir` with values in \[0, 1\], got .*: divide by 255"):
        model(*wrong)  # the first batch is waited for
    model(*right)
    gpu.waits.clear()
    model(*wrong)
    with pytest.raises(InputError, match="in an earlier call"):
        model(*right)
    assert not gpu.waits
    model(*right)


@pytest.mark.parametrize("pairs", PAIRS)
def test_scores_of_the_path_for_gpus_are_those_of_the_cpu(gpu, model, on_cpu, pairs):
    pair, count = PAIRS[pairs]
    pair = None if pair is None else torch.tensor(pair)
    ir, vis, fused = images()
    expected = on_cpu.score_fused(
        on_cpu.encode_sources(ir[:count], vis[:count]), fused, aspects=ASPECTS, pair=pair
    ).score
    sources = model.encode_sources(GpuTensor(ir[:count]), GpuTensor(vis[:count]))
    found = model.score_fused(sources, GpuTensor(fused), aspects=ASPECTS, pair=pair).score
    assert found.device == DEVICE
    assert torch.allclose(found.cpu(), expected, atol=1e-5)


def files(folder):
    """Pieces of the example."""
    for path in EXAMPLE.glob("*.png"):
        with Image.open(path) as image:
            image.crop((0, 0, WIDTH, HEIGHT)).save(folder / path.name)
    fused = sorted(map(str, folder.glob("fused_*.png")))
    return str(folder / "ir.png"), str(folder / "vis.png"), fused


@pytest.mark.parametrize("given", ["tensors on the CPU", "tensors on the GPU", "files"])
def test_the_loop_over_batches_does_not_make_the_gpu_wait(gpu, model, given, tmp_path):
    made = files(tmp_path) if given == "files" else images()
    if given == "tensors on the GPU":
        made = [GpuTensor(x) for x in made]
    triples = open_triples(*made)  # looks at the values of tensors, once
    list(score_each(triples, model, batch_size=2))
    gpu.waits.clear()
    # Which sources are one picture is asked once, before the first batch.
    scored = score_each(triples, model, batch_size=2)
    next(scored)
    if given == "tensors on the GPU":
        gpu.waits.clear()
    for _, output in scored:
        assert output.score.device == DEVICE
    assert not gpu.waits


@pytest.mark.parametrize("family", [*tiny_qwen.FAMILIES, "llava"])
def test_the_big_families_take_the_same_path_to_the_same_scores(gpu, family):
    llava = family == "llava"
    make = tiny_llava.tiny_backbone if llava else tiny_qwen.tiny_backbone
    backbone = make(statistics=True) if llava else make(family)
    on_cpu = FuScore(backbone, FuScoreSpec("tiny", family, backbone.preprocessing, "none"))
    expected = on_cpu(*images(), aspects=ASPECTS).score
    model = gpu.model(copy.deepcopy(on_cpu))
    found = model(*(GpuTensor(x) for x in images()), aspects=ASPECTS).score
    assert torch.allclose(found.cpu(), expected, atol=1e-4)
