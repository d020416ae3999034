"""Results of a run on a GPU -> the manual's list of what has run there.

    python -m benchmarks.gpu.claims

The block between the two markers is written from `results.json` beside this file and from nothing
else; while there is no such file, nothing has run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks import REPOSITORY
from benchmarks.gpu.claim_list import CLAIMS, Claim, Number

RESULTS = Path(__file__).with_name("results.json")
MANUAL = REPOSITORY / "fuscore_metric" / "README.md"
BEGIN = "<!-- gpu: written by `python -m benchmarks.gpu.claims` from its results.json -->"
END = "<!-- gpu: end -->"
WIDTH = 100
KIT = "[`benchmarks/gpu`](../benchmarks/gpu/README.md)"

Content = Mapping[str, Any]


def block(content: Content | None) -> str:
    """What stands between the markers.

    Args:
        content: Of `results.json`; None where there is none.

    Raises:
        ValueError: It is of a run on a CPU, or of a quick one, which proves nothing here.
    """
    if content is None:
        unproven = "; ".join(claim.text for claim in CLAIMS)
        return _wrapped(
            f"**Nothing was ever run on a GPU**, for want of one. {KIT} runs all of it by one "
            f"command, and its results will stand here. So never run there: {unproven}."
        )
    if content["run"]["device"] != "cuda" or content["run"]["quick"]:
        raise ValueError("Expected results of a full run on a GPU")
    by_state: dict[str, list[str]] = {"ok": [], "failed": [], "never": []}
    for claim in CLAIMS:
        state, reason = scored(claim, content)
        said = ", ".join(numbers(claim, content)) if state == "ok" else reason
        by_state[state].append(_line(claim.text, said, table=state == "ok"))
    lines = [caption(content), "", "| ran | |", "|---|---|", *by_state["ok"]]
    for state, words in (("failed", "Failed there"), ("never", "Never run")):
        if by_state[state]:
            lines += ["", _wrapped(f"{words}: " + "; ".join(by_state[state]) + ".")]
    return "\n".join(lines)


def scored(claim: Claim, content: Content) -> tuple[str, str]:
    """Whether all of a claim's measurements that ran are "ok", one "failed", or "never" any ran.

    Returns:
        The state, and the reason why it is not "ok", where one is known.
    """
    found = measurements(claim, content)
    for outcome, state in (("failed", "failed"), ("ok", "ok")):
        if chosen := [m for m in found if m["outcome"] == outcome]:
            return state, chosen[0]["reason"]
    return "never", found[0]["reason"] if found else ""


def measurements(claim: Claim, content: Content) -> list[Content]:
    """The measurements that prove a claim."""
    stage = content["stages"].get(claim.stage, {"measurements": []})
    return [m for m in stage["measurements"] if re.fullmatch(claim.proof, m["name"])]


def numbers(claim: Claim, content: Content) -> Iterator[str]:
    """What was measured, in the claim's words; of several values the largest."""
    for number in claim.numbers:
        found = list(_values(number, measurements(claim, content)))
        if found:
            yield number.words.format(max(found))


def _values(number: Number, found: list[Content]) -> Iterator[float]:
    for measurement in found:
        if not re.fullmatch(number.measurement, measurement["name"]):
            continue
        for value in measurement["values"]:
            if re.fullmatch(number.value, value["name"]) and type(value["value"]) in (int, float):
                yield value["value"]


def caption(content: Content) -> str:
    """Card, date, versions, and how the tests ended."""
    facts, seconds = content["environment"], content["run"]["seconds"]
    tests = content["stages"].get("tests", {"measurements": []})["measurements"]
    ends = [m["outcome"] for m in tests if "::" in m["name"]]
    counts = [f"{ends.count(end)} {end}" for end in ("ok", "failed", "skipped") if end in ends]
    return _wrapped(
        f"On one {facts['card']} on {facts['date'][:10]} (driver {facts['driver']}, torch "
        f"{facts['torch']}, transformers {facts['transformers']}, Python {facts['python']}, "
        f"weights {facts['weights']}, commit {facts['commit'][:12]}; {KIT}, {seconds:.0f} s, "
        f"[all numbers](../benchmarks/gpu/results.md)). Tests marked `gpu`: "
        f"{', '.join(counts) or 'not run'}."
    )


def _line(text: str, said: str, *, table: bool) -> str:
    said = " ".join(said.replace("|", "\\|").split())
    if table:
        return f"| {text} | {said or 'ok'} |"
    return f"{text} ({said})" if said else text


def _wrapped(text: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def replaced(manual: str, new: str) -> str:
    """The manual with another block between the markers.

    Raises:
        ValueError: There is not exactly one pair of markers.
    """
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(manual)) != 1:
        raise ValueError(f"Expected one block between {BEGIN!r} and {END!r}")
    return pattern.sub(lambda _: f"{BEGIN}\n{new}\n{END}", manual)


def newest() -> Content | None:
    """The committed results, if there are any."""
    if not RESULTS.is_file():
        return None
    content: Content = json.loads(RESULTS.read_text("utf-8"))
    return content


def main() -> None:
    """Rewrite the manual's block."""
    MANUAL.write_text(replaced(MANUAL.read_text("utf-8"), block(newest())), "utf-8")
    print(f"wrote the block of {MANUAL}")


if __name__ == "__main__":
    main()
