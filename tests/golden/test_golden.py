"""A score stays the same: every door gives what `tests/golden/scores.json` holds."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fuscore_metric import FuScore, predict
from fuscore_metric.prompts import ASPECTS
from tests.golden import record
from tests.golden.doors import DOORS, GOLDEN, check, files

CLASSIC = ("fused_average", "fused_good", "fused_noisy")


@pytest.fixture(scope="module")
def model():
    return FuScore.from_pretrained()


@pytest.fixture(scope="module")
def example():
    return [one for one in record.example_triples() if one.name in CLASSIC]


def test_the_weights_and_the_question_are_those_recorded():
    here = record.surroundings()
    for name in ("weights_hash", "prompt_version", "dtype"):
        assert here[name] == GOLDEN["recorded"][name], f"{name} changed: {record.COMMAND}"


def test_the_example_is_the_one_recorded():
    for triple in record.example_triples():
        assert triple.hashes() == GOLDEN["triples"][triple.name]["sha256"]


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


# Two threads once for each kind of triples: beside other tests they wait for one another's core.
@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 2)], indirect=["threads"])
def test_batches_and_threads_do_not_matter(model, example, batch_size, threads):
    found = predict(*files(example), model=model, aspects=ASPECTS, batch_size=batch_size).score
    check(f"batches of {batch_size}, {threads} threads", example, found, "all")


@pytest.mark.real_data
@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 1), (8, 2)], indirect=["threads"])
def test_real_triples_have_their_golden_scores(model, real_data, batch_size, threads):
    triples = record.real_triples(real_data)
    for triple in triples:
        assert triple.hashes() == GOLDEN["triples"][triple.name]["sha256"], "other files"
    found = predict(*files(triples), model=model, aspects=ASPECTS, batch_size=batch_size).score
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
