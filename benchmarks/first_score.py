"""How long a user waits: cold start to the first score, seconds a warm triple, peak memory.

    python benchmarks/first_score.py

Run it on a machine that does nothing else. Each number is the median of several runs.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import fuscore_metric
from fuscore_metric.scoring import default_model

EXAMPLE = Path(fuscore_metric.__file__).parent / "assets" / "example"
RUNS = 5


def median_seconds(call: Callable[[], object], runs: int = RUNS) -> float:
    """Median wall time of `call`."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def cold(*code: str) -> float:
    """Median wall time of a fresh Python process."""
    return median_seconds(
        lambda: subprocess.run([sys.executable, *code], check=True, capture_output=True)
    )


def main() -> None:
    """Print a Markdown table."""
    arguments = [
        part
        for name, file in (("ir", "ir"), ("vis", "vis"), ("fused", "fused_good"))
        for part in (f"--{name}", str(EXAMPLE / f"{file}.png"))
    ]
    rows = {
        "cold: `fuscore score` (s)": cold("-m", "fuscore_metric.cli", "score", *arguments),
        "cold: `import torch, transformers` + Llama (s)": cold(
            "-c", "import torch; from transformers import LlamaForCausalLM"
        ),
    }
    model = default_model("cpu")
    for batch in (1, 8):
        images = [torch.rand(batch, 3, 480, 640) for _ in range(3)]
        with torch.inference_mode():
            model(*images)
            rows[f"warm: 640x480 triple, batch {batch} (s)"] = (
                median_seconds(lambda images=images: model(*images)) / batch
            )
    rows["peak memory (MiB)"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32\n")
    print("| what | value |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    main()
