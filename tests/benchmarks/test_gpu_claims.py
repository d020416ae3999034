"""The manual's block on what has run on a GPU: written from results and from nothing else."""

import re

import pytest

from benchmarks.gpu import claims
from benchmarks.gpu.claim_list import CLAIMS, Claim, Number
from benchmarks.gpu.plan import COUNTED
from tests.helpers import ROOT

MANUAL = ROOT / "fuscore_metric" / "README.md"


def test_the_manual_says_what_the_committed_results_say():
    manual = MANUAL.read_text()
    assert claims.replaced(manual, claims.block(claims.newest())) == manual


def test_no_other_place_says_what_never_ran_on_a_gpu():
    """What stands in the block grows old elsewhere."""
    for path in (ROOT / "README.md", MANUAL, ROOT / "training" / "README.md"):
        text = re.sub(f"{claims.BEGIN}.*?{claims.END}", "", path.read_text(), flags=re.DOTALL)
        for sentence in re.split(r"(?<=[.;:])\s", " ".join(text.split())):
            never = "never run" in sentence.lower() or "never was run" in sentence.lower()
            assert not (never and "GPU" in sentence) or "several GPUs" in sentence, sentence


def made_up(**stages) -> dict:
    facts = {"card": "Card X", "date": "2030-01-02T03:04:05+00:00", "driver": "1.2", "torch": "9"}
    facts |= {"transformers": "8", "python": "3.12", "weights": "w", "commit": "c" * 40}
    kept = {name: {"measurements": found} for name, found in stages.items()}
    run = {"device": "cuda", "quick": False, "seconds": 300.4}
    return {"run": run, "environment": facts, "stages": kept}


def made(name: str, outcome: str = "ok", reason: str = "", **values: float) -> dict:
    shown = [{"name": key.replace("_", " "), "value": value} for key, value in values.items()]
    return {"name": name, "outcome": outcome, "reason": reason, "values": shown}


def test_a_block_of_what_ran_failed_and_never_ran():
    golden = "gpu/test_gpu_golden.py::test_golden_scores[float32-{}]"
    tests = [made(golden.format(n)) for n in range(2)]
    for test, moved in zip(tests, (2e-6, 7e-6), strict=True):
        test["values"] = [{"name": "deviation, float32, TF32 off, overall", "value": moved}]
    tests.append(made("gpu/test_gpu_loop.py::test_two_streams_at_once[a]", "failed", "late"))
    tests.append(made("gpu/test_gpu_loop.py::test_two_streams_at_once[b]"))
    speed = [made("tensors, float32, batch 4", score=300.0, model=999.0)]
    speed += [made("tensors, float32, batch 64", score=612.3)]
    speed += [made("tensors, float32, batch 256", "skipped", "out of memory")]
    large = [made("bitsandbytes, 4 bits", "skipped", "bitsandbytes is not installed")]
    block = claims.block(made_up(tests=tests, speed=speed, large=large))
    assert "On one Card X on 2030-01-02 (driver 1.2, torch 9" in block
    assert "Tests marked `gpu`: 3 ok, 1 failed" in " ".join(block.split())
    assert "| golden scores | float32 moves no score by more than 7e-06 |" in block
    assert "612 triples/s in float32 |" in block
    ran, failed, never = re.split("Failed there|Never run", block)
    assert "two streams at once (late)" in failed
    assert "two streams" not in ran + never
    flat = " ".join(never.split())
    assert "bitsandbytes, 4 bits (bitsandbytes is not installed)" in flat
    assert "DeepSpeed" in flat
    assert "golden scores" not in flat
    assert "Nothing was ever run" in claims.block(None)


@pytest.mark.parametrize("change", [{"device": "cpu"}, {"quick": True}])
def test_a_run_that_proves_nothing_is_refused(change):
    content = made_up()
    content["run"] |= change
    with pytest.raises(ValueError, match="full run on a GPU"):
        claims.block(content)


def test_of_several_values_the_largest_number_is_shown():
    claim = Claim("x", "s", "a.*", (Number("n", "{:.0f}", "a1"), Number("m", "{:.0f} m")))
    found = [made("a1", n=3.0, m=1.0), made("a2", n=9.0, m=2.0)]
    found[1]["values"].append({"name": "m", "value": "a word"})
    assert list(claims.numbers(claim, made_up(s=found))) == ["3", "2 m"]


def test_claims_are_about_tests_that_exist():
    files = (ROOT / "tests" / "gpu").glob("test_*.py")
    text = "\n".join(path.read_text() for path in files)
    names = [f"x.py::{name}" for name in re.findall(r"def (test_\w+)", text)]
    for claim in CLAIMS:
        if claim.stage == "tests":
            assert any(re.fullmatch(claim.proof, name) for name in names), claim.text


def test_the_counted_memory_is_that_of_the_table():
    table = (ROOT / "training" / "README.md").read_text()
    (row,) = re.findall(r"Qwen2\.5-VL-7B, LoRA, checkpointing \| 4 x 4, 2 \|.*", table)
    assert row.split("|")[-3].strip() == str(COUNTED)
