"""Golden scores: what the embedded weights say of fixed triples, recorded with where and why.

    python tests/golden/record.py --reason "what changed and why it may" [--data DIR]
    python tests/golden/record.py --show [--data DIR]  # print, write nothing

`test_golden.py` holds every door to what is in `scores.json`. Recording again moves the promise
that a score stays the same, so it demands a reason, keeps the earlier ones, and prints how far each
score moved. Images are not stored, only their hashes: the real ones may not be shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from fuscore_metric import FuScore, __version__, predict
from fuscore_metric.checkpoints.locate import fingerprint, locate
from fuscore_metric.prompts import ASPECTS, PROMPT_VERSION
from fuscore_metric.results.settings import versions

ROOT = Path(__file__).parents[2]
SCORES = Path(__file__).with_name("scores.json")
EXAMPLE = ROOT / "fuscore_metric" / "assets" / "example"
DATA = ROOT.parent / "shared" / "data"
COMMAND = 'python tests/golden/record.py --reason "..."'

NOISE = 1e-5
"""Scores that moved by less are the same: other threads and batches move them by some 1e-6."""
DIGITS = 7

REAL = (
    # JPEG, RGB: two fusions of one scene, wide and small ones, the good and the blotched.
    "VIFB/carLight/SeAFusion",
    "VIFB/carLight/GFF",
    "VIFB/carShadow/CBF",
    "VIFB/walkingnight/SwinFusion",  # ir has one channel
    "VIFB/manlight/MSVD",
    # PNG, grey scenes; fusions with one channel and with three.
    "TNO/05/IFCNN",
    "TNO/37/PIAFusion",
    # JPEG sources, fusions as BMP and PNG.
    "RoadScene/FLIR_00233/U2Fusion",
    "RoadScene/FLIR_05016/AUIF",
    "RoadScene/FLIR_04593/DenseFuse",
    # PNG in colour; the largest.
    "MSRS/00633D/PIAFusion",
    "M3FD/M3FD_00000/IGNet",
)
"""Real triples as set/scene/method. All of them are 8-bit: the data has no other."""


@dataclass(frozen=True)
class Triple:
    """Files of a triple.

    Attributes:
        name: In `scores.json`.
        ir: Infrared image.
        vis: Visible image.
        fused: Fusion of the two.
    """

    name: str
    ir: Path
    vis: Path
    fused: Path

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file."""
        files = {"ir": self.ir, "vis": self.vis, "fused": self.fused}
        return {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def example_triples() -> list[Triple]:
    """The shipped source pair with each of its fusions."""
    fusions = sorted(EXAMPLE.glob("fused_*.png"))
    return [Triple(path.stem, EXAMPLE / "ir.png", EXAMPLE / "vis.png", path) for path in fusions]


def real_triples(data: Path) -> list[Triple]:
    """The triples of `REAL`.

    Args:
        data: Folder of the real data.

    Raises:
        FileNotFoundError: A file is not there.
    """
    found = []
    for name in REAL:
        group, scene, method = name.split("/")
        folders = [data / group / part for part in ("ir", "vis", f"fused/{method}")]
        found.append(Triple(name, *(_only(folder, scene) for folder in folders)))
    return found


def _only(folder: Path, stem: str) -> Path:
    files = list(folder.glob(f"{stem}.*"))
    if len(files) != 1:
        raise FileNotFoundError(f"Expected one file {folder / stem}.*, got {len(files)}")
    return files[0]


def measure(triples: list[Triple]) -> dict[str, dict[str, Any]]:
    """Hashes, scores and standard deviations of all aspects by the name of a triple.

    The plainest way: from the files, a triple at a time, float32 on one thread of the CPU.
    """
    torch.set_num_threads(1)
    model = FuScore.from_pretrained(device="cpu", dtype="float32")
    found = {}
    for triple in triples:
        output = predict(triple.ir, triple.vis, triple.fused, model=model, aspects=ASPECTS)
        found[triple.name] = {
            "sha256": triple.hashes(),
            "score": _by_aspect(output.score[0]),
            "std": _by_aspect(output.std[0]),
        }
    return found


def _by_aspect(values: torch.Tensor) -> dict[str, float]:
    """(A,) -> a value for each aspect."""
    return {name: round(v, DIGITS) for name, v in zip(ASPECTS, values.tolist(), strict=True)}


def surroundings() -> dict[str, Any]:
    """What scores depend on beside the images: weights, question, versions, machine."""
    return {
        "weights_hash": fingerprint(locate("embedded")),
        "prompt_version": PROMPT_VERSION,
        "package": __version__,
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions(),
    }


def load() -> dict[str, Any]:
    """What was recorded; nothing at the first time."""
    if not SCORES.is_file():
        return {"recorded": None, "history": [], "triples": {}}
    content: dict[str, Any] = json.loads(SCORES.read_text("utf-8"))
    return content


def movements(old: dict[str, Any], new: dict[str, Any]) -> dict[str, float]:
    """How far each score moved whose triple was recorded before, by "triple aspect"."""
    return {
        f"{triple} {aspect}": value - old[triple]["score"][aspect]
        for triple, values in new.items()
        if triple in old
        for aspect, value in values["score"].items()
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes a new recording another than the old one, as lines; nothing if they agree."""
    if old["recorded"] is None:
        return ["nothing was recorded before"]
    lines = [
        f"{name}: {old['recorded'][name]} -> {new['recorded'][name]}"
        for name in ("weights_hash", "prompt_version")
        if old["recorded"][name] != new["recorded"][name]
    ]
    was, now = old["triples"], new["triples"]
    lines += [f"{name}: new" for name in now if name not in was]
    lines += [f"{name}: gone" for name in was if name not in now]
    lines += [
        f"{name}: other files"
        for name in now
        if name in was and now[name]["sha256"] != was[name]["sha256"]
    ]
    moved = movements(was, now)
    return lines + [f"{name}: {by:+.6f}" for name, by in moved.items() if abs(by) > NOISE]


def record(reason: str, triples: dict[str, Any]) -> str:
    """Write `scores.json`, if anything is other than it says.

    Args:
        reason: Why the scores may change.
        triples: What `measure` returned.

    Returns:
        What is to be told.

    Raises:
        ValueError: No reason is given.
    """
    if len(reason.split()) < 2:
        raise ValueError(f"Expected `reason` to say why scores may move, got {reason!r}")
    old = load()
    stamp = {"date": datetime.now(timezone.utc).isoformat("T", "seconds"), "reason": reason}
    new = {"recorded": stamp | surroundings(), "history": old["history"], "triples": triples}
    changed = differences(old, new)
    moved = movements(old["triples"], triples)
    largest = max(map(abs, moved.values()), default=0.0)
    if not changed:
        return f"unchanged: no score moved by more than {largest:.1e}; nothing written"
    if old["recorded"] is not None:
        kept = {name: old["recorded"][name] for name in ("date", "reason", "weights_hash")}
        new["history"] = [*old["history"], kept | {"largest_move_after": round(largest, DIGITS)}]
    SCORES.write_text(json.dumps(new, indent=1) + "\n", "utf-8")
    return "\n".join([*changed, f"largest move: {largest:.6f}", f"recorded in {SCORES}"])


def main() -> None:
    """Measure; then record, or show."""
    parser = argparse.ArgumentParser(description="Record the golden scores again.")
    parser.add_argument("--reason", default="", help="why scores may move")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real data")
    parser.add_argument("--only", choices=("example", "real"), help="with --show: a part of them")
    parser.add_argument("--show", action="store_true", help="print what is measured as JSON")
    options = parser.parse_args()
    if not options.show and (not options.reason.strip() or options.only):
        parser.error("recording demands a --reason, and all triples")
    try:
        triples = example_triples() if options.only != "real" else []
        triples += real_triples(options.data) if options.only != "example" else []
        found = measure(triples)
        shown = surroundings() | {"triples": found}
        said = json.dumps(shown, indent=1) if options.show else record(options.reason, found)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
