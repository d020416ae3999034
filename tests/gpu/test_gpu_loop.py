"""The loop over batches on a GPU: decoding ahead, no waiting, little memory, none that grows."""

import logging
import time
from contextlib import contextmanager

import pytest
import torch

from benchmarks import tiny_qwen
from fuscore_metric import FuScore, InputError, score
from fuscore_metric.checkpoints.spec import FuScoreSpec
from fuscore_metric.images.lazy import Picture, open_triples
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.scoring import score_each, score_triples
from tests.golden.doors import TOLERANCE
from tests.gpu.scenes import crops, example, on, write_crops

pytestmark = pytest.mark.gpu

BATCH = 3  # images of a triple


def test_many_files_score_as_one_by_one(model, tmp_path):
    columns = write_crops(tmp_path, 24)
    together = score(*columns, model=model, batch_size=5)
    alone = torch.cat([score(*triple, model=model) for triple in zip(*columns, strict=True)])
    assert torch.allclose(together, alone, atol=TOLERANCE)


def test_files_are_decoded_ahead_where_a_gpu_computes(device, model, tmp_path, monkeypatch):
    """On a CPU, whose threads would only be in each other's way, they are not."""
    decoded, decode = [], Picture.decode

    def counted(picture):
        decoded.append(picture.name)
        return decode(picture)

    monkeypatch.setattr(Picture, "decode", counted)
    triples = open_triples(*write_crops(tmp_path, 6))
    scored = score_each(triples, model, batch_size=1)
    next(scored)
    patience = time.monotonic() + (10 if device == "cuda" else 0.5)
    while len(decoded) == BATCH and time.monotonic() < patience:
        time.sleep(0.01)
    assert (len(decoded) > BATCH) == (device == "cuda")
    assert len(list(scored)) == 5


@contextmanager
def no_waiting():
    """Have PyTorch raise where the CPU waits for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture(params=["embedded", *tiny_qwen.FAMILIES])
def each_family(request, device, model):
    """A model of each family on the device."""
    if request.param == "embedded":
        return model
    reason = "transformers' vision tower reads the grid of its patches"
    request.applymarker(pytest.mark.xfail(strict=False, reason=reason))
    backbone = tiny_qwen.tiny_backbone(request.param)
    spec = FuScoreSpec("tiny", request.param, backbone.preprocessing, "none")
    return FuScore(backbone, spec).to(device)


@pytest.mark.usefixtures("only_cuda")
@pytest.mark.parametrize("asked", [{}, {"aspects": ASPECTS}], ids=["overall", "all"])
@pytest.mark.parametrize("pair", [None, (0, 0, 1, 3)], ids=["one each", "given"])
@torch.no_grad()
def test_judging_does_not_wait_for_the_gpu(device, each_family, asked, pair):
    pair = None if pair is None else torch.tensor(pair)
    ir, vis, fused = on(device, crops(4))

    def scored():
        sources = each_family.encode_sources(ir, vis)
        return each_family.score_fused(sources, fused, **asked, pair=pair).score

    expected = scored()
    with no_waiting():
        found = scored()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("only_cuda")
@torch.no_grad()
def test_a_wrong_range_is_found_without_waiting(device, model):
    right = on(device, crops(2))
    model(*right)  # the first batch is waited for
    with no_waiting():
        model(*(255 * image for image in right))
    torch.cuda.synchronize()
    with pytest.raises(InputError, match="in an earlier call"), no_waiting():
        model(*right)
    for _ in range(2):
        model(*right)


@pytest.mark.usefixtures("only_cuda")
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_the_loop_does_not_wait_for_the_gpu(model, where):
    # Looking at values of tensors waits, and so does finding equal sources: before the first batch.
    triples = open_triples(*on(where, crops(12)))
    expected = score_triples(triples, model, batch_size=4).score
    scored = score_each(triples, model, batch_size=4)
    outputs = [next(scored)]
    with no_waiting():
        outputs += scored
    found = torch.cat([output.score for _, output in outputs])
    assert torch.allclose(found, expected, atol=1e-5)


@contextmanager
def little_memory(spare):
    """Have all of the GPU's memory in use but for some bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - spare, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


@pytest.mark.usefixtures("only_cuda")
@pytest.mark.parametrize("given", ["tensors", "files"])
def test_batches_are_halved_when_memory_runs_out(model, given, tmp_path, caplog, record_property):
    """64 triples of 640x480 take more than a gigabyte in one batch, and a few take less."""
    if given == "files":
        images = write_crops(tmp_path, 64, height=440, width=600)
    else:
        ir, vis, fused = example()
        images = [x.repeat(16, 1, 1, 1) + 0.001 * n for n, x in enumerate((ir, vis, fused))]
        images = [x.clamp(0, 1) for x in images]
        images[2] = torch.stack([image.roll(n, -1) for n, image in enumerate(images[2])])
    expected = score(*images, model=model, batch_size=2)
    caplog.clear()
    with little_memory(2**30), caplog.at_level(logging.WARNING, "fuscore_metric.scoring"):
        found = score(*images, model=model, batch_size=64).clone()
    said = [record.getMessage() for record in caplog.records]
    record_property(f"batches halved, {given}", "; ".join(said))
    assert "out of memory with 64 triples at once, going on with 32" in said[0]
    assert torch.allclose(found, expected, atol=TOLERANCE)
    assert torch.allclose(score(*images, model=model, batch_size=2), expected, atol=TOLERANCE)


@pytest.mark.usefixtures("only_cuda")
@pytest.mark.parametrize("given", ["tensors", "files"])
def test_memory_does_not_grow_from_batch_to_batch(model, given, tmp_path, record_property):
    images = crops(200) if given == "tensors" else write_crops(tmp_path, 200)
    used = []
    for _, output in score_each(open_triples(*images), model, batch_size=20):
        del output
        used.append(torch.cuda.memory_allocated())
    assert len(used) == 10
    record_property(f"bytes after each batch, {given}", str(used))
    assert max(used[2:]) - used[1] < 2**20
