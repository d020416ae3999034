"""The kit that runs everything on a GPU, tried on the CPU: its frame and its stages."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.gpu import claims
from benchmarks.gpu import run as run_module
from benchmarks.gpu.claim_list import CLAIMS
from benchmarks.gpu.kit import Kit
from benchmarks.gpu.plan import FULL, QUICK
from benchmarks.gpu.processes import pytest_lines
from benchmarks.gpu.profiling import seen, union
from benchmarks.gpu.record import Measurement, Value
from benchmarks.gpu.run import SkippedError, Task, run, time_limit
from benchmarks.gpu.stages.pytests import measurement
from tests.helpers import ROOT

CPU = torch.device("cpu")
KIT = (sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick")


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "training")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def written(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def run_fakes(folder: Path, budget: float = 30, **stages) -> tuple[bool, dict]:
    plan = replace(QUICK, budgets=dict.fromkeys(stages, budget), pace=1.0)
    fine = run(Kit(CPU, folder, plan, quick=True), list(stages), stages)
    return fine, written(folder)["stages"]


def ones(*values: Value | Measurement):
    return lambda: iter(values)


def fails():
    yield Value("before", 1.0)
    raise ArithmeticError("no such number")


def test_what_fails_leaves_its_traceback_and_the_rest_goes_on(tmp_path):
    def broken(kit):
        yield Task("first", ones(Value("a", 2.5, "s")))
        yield Task("second", fails)
        yield Task("third", ones(Value("b", "word")))

    def torn(kit):
        yield Task("only", ones())
        raise KeyError("between tasks")

    fine, stages = run_fakes(tmp_path, broken=broken, torn=torn, last=lambda kit: iter(()))
    assert not fine
    assert [stage["outcome"] for stage in stages.values()] == ["failed", "failed", "skipped"]
    first, second, third = stages["broken"]["measurements"]
    assert [m["outcome"] for m in (first, second, third)] == ["ok", "failed", "ok"]
    assert first["values"] == [{"name": "a", "value": 2.5, "unit": "s", "note": ""}]
    assert second["values"][0]["name"] == "before"
    assert second["reason"] == "ArithmeticError: no such number"
    assert "in fails" in second["traceback"]
    assert "in torn" in stages["torn"]["traceback"]
    page = (tmp_path / "results.md").read_text()
    assert "| first | a | 2.5 | s |  |" in page
    assert "in fails" in page
    assert "in torn" in page


def test_a_missing_package_and_a_reason_are_no_failures(tmp_path):
    def imports(name):
        def call():
            __import__(name)
            yield Value("never", 0)

        return call

    def refuses():
        raise SkippedError("there is no such card")

    def stage(kit):
        yield Task("missing", imports("no_such_package.part"))
        yield Task("refuses", refuses)
        yield Task("ours", imports("benchmarks.no_such_module"))
        yield Task("other", ones(Measurement("from outside", "ok", seconds=2.0)))

    fine, stages = run_fakes(tmp_path, stage=stage)
    assert not fine  # a module that we lost is a failure
    found = {m["name"]: m for m in stages["stage"]["measurements"]}
    assert found["missing"]["reason"] == "no_such_package is not installed"
    assert found["refuses"]["reason"] == "there is no such card"
    assert found["ours"]["outcome"] == "failed"
    assert found["from outside"]["seconds"] == 2.0


@pytest.mark.slow
def test_a_spent_budget_leaves_out_and_cuts_off(tmp_path):
    def slow():
        yield Value("kept", 1)
        time.sleep(30)

    def stage(kit):
        yield Task("too long", ones(), seconds=40)
        yield Task("slow", slow, seconds=0.1)
        yield Task("late", ones(), seconds=0.1)

    started = time.monotonic()
    fine, stages = run_fakes(tmp_path, budget=3, stage=stage)
    assert time.monotonic() - started < 20
    assert fine
    long, cut, late = stages["stage"]["measurements"]
    assert {m["outcome"] for m in (long, cut, late)} == {"skipped"}
    assert long["reason"].startswith("left out: takes 40 s")
    assert cut["reason"].startswith("cut off after")
    assert cut["values"][0]["name"] == "kept"
    assert late["reason"].startswith("left out")


def test_a_limit_that_is_swallowed_comes_again(monkeypatch):
    monkeypatch.setattr(run_module, "AGAIN", 0.2)
    started = time.monotonic()

    def swallow():
        with contextlib.suppress(SkippedError):
            time.sleep(20)
        time.sleep(20)

    with pytest.raises(SkippedError, match="cut off"), time_limit(0.1):
        swallow()
    assert time.monotonic() - started < 10


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    def stage(kit):
        yield Task("done", ones(Value("a", float("nan"))))
        yield Task("stopped", interrupted)

    def interrupted():
        yield Value("b", 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fakes(tmp_path, stage=stage)
    stage = written(tmp_path)["stages"]["stage"]
    done, stopped = stage["measurements"]
    assert (stage["outcome"], stopped["outcome"]) == ("running", "running")
    assert (done["values"][0]["value"], stopped["values"][0]["value"]) == ("nan", 2)
    assert not list(tmp_path.glob(".*"))


def test_all_fits_into_six_minutes():
    assert sum(FULL.budgets.values()) <= 330  # the rest is for imports
    assert FULL.budgets.keys() == QUICK.budgets.keys()


def test_busy_time_is_a_union():
    assert union([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
    assert union([]) == 0


def test_a_profile_names_operations_and_attention():
    query = torch.rand(1, 2, 16, 8)
    found = seen(lambda: F.scaled_dot_product_attention(query, query, query), CPU)
    assert found.attention == ["aten::_scaled_dot_product_flash_attention_for_cpu"]
    assert next(iter(found.seconds.values())) == max(found.seconds.values()) > 0


TESTS = """
import pytest
import no_such_package_here
"""
MORE_TESTS = """
import pytest

def test_good(record_property):
    record_property("deviation", 1e-6)
    record_property("where", [1])

def test_bad():
    assert 1 + 1 == 3

@pytest.mark.skip(reason="no card")
def test_skipped():
    pass

@pytest.fixture
def broken():
    raise OSError("fixture")

def test_of_a_fixture(broken):
    pass
"""


def test_tests_become_measurements(tmp_path):
    (tmp_path / "test_missing.py").write_text(TESTS)
    (tmp_path / "test_more.py").write_text(MORE_TESTS)
    lines = tmp_path / "lines"
    options = ["-p", pytest_lines.__name__, "--continue-on-collection-errors", "-q"]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    more = environment() | {pytest_lines.VARIABLE: str(lines)}
    done = subprocess.run([*command, *options], cwd=tmp_path, env=more, capture_output=True)
    assert done.returncode == 1
    found = [measurement(json.loads(line)) for line in lines.read_text().splitlines()]
    by_name = {m.name.rpartition("::")[2]: m for m in found}
    assert {name: m.outcome for name, m in by_name.items()} == {
        "test_missing.py": "skipped",
        "test_good": "ok",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_of_a_fixture": "failed",
    }
    assert by_name["test_missing.py"].reason == "no_such_package_here is not installed"
    assert by_name["test_good"].values == [Value("deviation", 1e-6), Value("where", "[1]")]
    assert "1 + 1 == 3" in by_name["test_bad"].traceback
    assert "no card" in by_name["test_skipped"].reason


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict:
    """The results of all stages, small, on the CPU."""
    folder = tmp_path_factory.mktemp("kit")
    command = [*KIT, "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "# FuScore on a GPU" in (folder / "results.md").read_text()
    return written(folder)


@pytest.mark.slow
class TestQuickRun:
    def test_every_stage_has_results(self, quick):
        assert list(quick["stages"]) == list(FULL.budgets)
        for name, stage in quick["stages"].items():
            assert stage["measurements"], name
            assert stage["outcome"] == "ok", name

    def test_facts_are_there(self, quick):
        facts = quick["environment"]
        assert facts["weights"] == "fuscore-lite-5"
        assert facts["torch"] == torch.__version__
        assert {"python", "transformers", "date", "commit", "fuscore", "cpu"} <= facts.keys()

    def test_claims_are_about_measurements_that_are_made(self, quick):
        for claim in CLAIMS:
            if claim.stage == "tests":
                continue
            found = claims.measurements(claim, quick)
            assert found, claim.text
            if any(m["outcome"] == "ok" for m in found):
                assert len(list(claims.numbers(claim, quick))) == len(claim.numbers), claim.text


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files(tmp_path):
    command = [*KIT, "--out", str(tmp_path), "--only", "environment", "speed"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if b"speed | tensors, bfloat16" in line:
                break
        process.send_signal(signal.SIGKILL)
    found = written(tmp_path)["stages"]
    assert found["environment"]["outcome"] == "ok"
    assert found["speed"]["outcome"] == "running"
    done = [m for m in found["speed"]["measurements"] if m["outcome"] == "ok"]
    assert len(done) >= len(QUICK.batches)
    assert "tensors, float32, batch 1" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_no_cuda_is_said_in_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())
