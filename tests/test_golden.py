"""A score stays the same: every door gives what `tests/golden/scores.json` holds."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fuscore_metric import FuScore, FuScoreReward, predict, rank, score
from fuscore_metric.engines.local import score_entries
from fuscore_metric.images import as_images
from fuscore_metric.prompts import ASPECTS
from fuscore_metric.results.rows import Entry
from tests.golden import record

TOLERANCE = 1e-4
GOLDEN = record.load()
CLASSIC = ("fused_average", "fused_good", "fused_noisy")


@pytest.fixture(scope="module")
def model():
    return FuScore.from_pretrained()


@pytest.fixture(scope="module")
def example():
    return [one for one in record.example_triples() if one.name in CLASSIC]


def check(door, triples, found, aspect="overall"):
    """Compare scores (N,) or, of all aspects, (N, A)."""
    for triple, scores in zip(triples, torch.as_tensor(found).tolist(), strict=True):
        golden = GOLDEN["triples"][triple.name]["score"]
        pairs = zip(ASPECTS, scores, strict=True) if aspect == "all" else [(aspect, scores)]
        for name, value in pairs:
            assert value == pytest.approx(golden[name], abs=TOLERANCE), (
                f"{door}: {name} of {triple.name} is {value:.6f}, golden {golden[name]:.6f}. "
                f"If it may move: {record.COMMAND}"
            )


def files(triples):
    return [[str(getattr(one, name)) for one in triples] for name in ("ir", "vis", "fused")]


def tensors(triples):
    """Batches (N, 3, H, W); the triples have one size."""
    columns = zip(*files(triples), strict=True)
    loaded = [[as_images(path, "fused")[0] for path in paths] for paths in columns]
    return [torch.stack(images) for images in zip(*loaded, strict=True)]


def test_the_weights_and_the_question_are_those_recorded():
    here = record.surroundings()
    for name in ("weights_hash", "prompt_version", "dtype"):
        assert here[name] == GOLDEN["recorded"][name], f"{name} changed: {record.COMMAND}"


def test_the_example_is_the_one_recorded():
    for triple in record.example_triples():
        assert triple.hashes() == GOLDEN["triples"][triple.name]["sha256"]


def of_pil(model, triples):
    return score(*([Image.open(path) for path in paths] for paths in files(triples)), model=model)


def of_arrays(model, triples):
    opened = ([np.asarray(Image.open(path)) for path in paths] for paths in files(triples))
    return score(*opened, model=model)


def of_rank(model, triples):
    ir, vis, fused = files(triples)
    return rank(ir[0], vis[0], fused, model=model).score


def of_rows(model, triples):
    entries = [Entry("s", one.name, str(one.ir), str(one.vis), str(one.fused)) for one in triples]
    rows = [r for some in score_entries(entries, model, aspect="overall") for r in some]
    found = {row["method"]: row["score"] for row in rows}
    return [found[one.name] for one in triples]


def of_torchmetrics(model, triples):
    from fuscore_metric.integrations.torchmetrics import FuScoreMetric

    ir, vis, fused = tensors(triples)
    metric = FuScoreMetric(model=model, reduction="none")
    metric.update(fused, target={"ir": ir, "vis": vis})
    return metric.compute()


def of_pyiqa(model, triples):
    import pyiqa

    ir, vis, fused = tensors(triples)
    return pyiqa.create_metric("fuscore", device="cpu")(fused, ir=ir, vis=vis)


DOORS = {
    "paths": lambda model, triples: score(*files(triples), model=model),
    "PIL": of_pil,
    "numpy": of_arrays,
    "tensors": lambda model, triples: score(*tensors(triples), model=model),
    "forward": lambda model, triples: model(*tensors(triples)).score.detach(),
    "reward": lambda model, triples: FuScoreReward(model)(*tensors(triples)).detach(),
    "rank": of_rank,
    "rows": of_rows,
    "torchmetrics": of_torchmetrics,
    "pyiqa": of_pyiqa,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_gives_the_golden_scores(model, example, door):
    if door in ("torchmetrics", "pyiqa") and not find_spec(door):
        pytest.skip(f"{door} is not installed")
    check(door, example, DOORS[door](model, example))


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_and_threads_do_not_matter(model, example, batch_size, threads):
    found = predict(*files(example), model=model, aspect="all", batch_size=batch_size).score
    check(f"batches of {batch_size}, {threads} threads", example, found, "all")


@pytest.mark.real_data
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_real_triples_have_their_golden_scores(model, real_data, batch_size, threads):
    triples = record.real_triples(real_data)
    for triple in triples:
        assert triple.hashes() == GOLDEN["triples"][triple.name]["sha256"], "other files"
    found = predict(*files(triples), model=model, aspect="all", batch_size=batch_size).score
    check(f"batches of {batch_size}, {threads} threads", triples, found, "all")


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_instruction_sets_give_the_golden_scores(capability):
    """What another CPU would compute, as far as this one can be told to do without its own."""
    limits = {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    line = [sys.executable, str(Path(record.__file__)), "--show", "--only", "example"]
    done = subprocess.run(line, capture_output=True, text=True, env=dict(os.environ) | limits)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    measured = shown.get("triples", shown)
    for triple in record.example_triples():
        scores = [measured[triple.name]["score"][name] for name in ASPECTS]
        check(f"CPU capability {capability}", [triple], [scores], "all")


@pytest.mark.slow
def test_the_command_line_gives_the_golden_scores(example):
    ir, vis, fused = files(example)
    line = [sys.executable, "-m", "fuscore_metric.cli", "score", "--ir", ir[0], "--vis", vis[0]]
    done = subprocess.run([*line, "--json", "--fused", *fused], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    check("fuscore score", example, [result["score"] for result in results])


def test_recording_again_demands_a_reason():
    with pytest.raises(ValueError, match="say why scores may move"):
        record.record(" ", {})
