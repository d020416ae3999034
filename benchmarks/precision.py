"""Scores in half precision against float32, on real triples: python -m benchmarks.precision.

Half precision is slow on CPUs without native support; scores are what is compared here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fuscore_metric import FuScore, predict
from fuscore_metric.prompts import ASPECTS

DTYPES = ("bfloat16", "float16")


def real_triples(folder: Path) -> list[list[str]]:
    """Two methods each of every fourth scene that has fusions: paths of ir, vis, fused.

    Args:
        folder: `<set>/ir`, `<set>/vis`, `<set>/fused/<method>`, by scene.
    """
    triples = []
    scenes = sorted(path for path in folder.glob("*/ir/*") if path.is_file())
    fused_of = {ir: sorted(ir.parents[1].glob(f"fused/*/{ir.stem}.*")) for ir in scenes}
    for ir in [ir for ir, fused in fused_of.items() if fused][::4]:
        (vis,) = ir.parents[1].glob(f"vis/{ir.stem}.*")
        fused = fused_of[ir]
        triples += [(str(ir), str(vis), str(x)) for x in fused[:: max(1, len(fused) // 2)][:2]]
    return [list(column) for column in zip(*triples, strict=True)]


def main() -> None:
    """Print the largest and the mean change of a score, by dtype and aspect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    triples = real_triples(given.data)
    full = predict(*triples, aspects=ASPECTS).score
    print(f"{len(full)} triples, embedded weights, {given.device} against float32 on the CPU\n")
    print("| largest (mean) change | " + " | ".join(ASPECTS) + " |\n" + "|---" * 6 + "|")
    for dtype in DTYPES:
        model = FuScore.from_pretrained(dtype=dtype, device=given.device)
        moved = (predict(*triples, model=model, aspects=ASPECTS).score.cpu() - full).abs()
        cells = zip(moved.amax(0).tolist(), moved.mean(0).tolist(), strict=True)
        print(f"| {dtype} | " + " | ".join(f"{m:.4f} ({a:.4f})" for m, a in cells) + " |")


if __name__ == "__main__":
    main()
