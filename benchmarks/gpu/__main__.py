"""Command line -> results: `python -m benchmarks.gpu --out DIR [--only STAGE ...]`.

Light to import: processes that a stage spawns import it again.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from benchmarks.gpu.plan import FULL, QUICK


def main() -> None:
    """Run the stages; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="+", metavar="STAGE", choices=FULL.budgets)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small everything: to try the kit")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported; nothing is downloaded

    import torch

    from benchmarks.gpu.kit import Kit
    from benchmarks.gpu.run import run

    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available here; --device cpu --quick tries the kit")
    gc.collect()
    gc.freeze()  # modules and the like, through which each later collection would go again
    plan = QUICK if given.quick else FULL
    kit = Kit(torch.device(given.device), given.out.resolve(), plan, quick=given.quick)
    sys.exit(0 if run(kit, given.only or list(plan.budgets)) else 1)


if __name__ == "__main__":
    main()
