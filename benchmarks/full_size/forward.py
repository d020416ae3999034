"""One real look of a 2 B model of random weights: python -m benchmarks.full_size.forward.

Shows that the path holds at width: seconds and peak memory of one triple of the packaged example in
float32, beside what `memory.py` counts for the same. The score means nothing; it must be finite,
and must change with the image.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks import EXAMPLE
from benchmarks.full_size.memory import GIB, scoring, without_weights
from benchmarks.full_size.shapes import SHAPES
from benchmarks.resident import peak, reset_peak
from benchmarks.tiny_qwen import qwen_class, tokenizer
from fuscore_metric import FuScore, FuScoreSpec
from fuscore_metric.images.checks import to_batch
from fuscore_metric.images.lazy import load_triples


def make_model(name: str) -> FuScore:
    """A FuScore of that shape with random weights; its tokenizer is small."""
    shape = SHAPES[name]
    torch.manual_seed(0)
    backbone = qwen_class(shape.family)(shape.model(device="cpu", dtype=torch.float32), tokenizer())
    return FuScore(backbone, FuScoreSpec(name, shape.family, backbone.preprocessing, "none"))


def main() -> None:
    """Run one triple, then the same with another fusion."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Qwen3-VL-2B", choices=sorted(SHAPES))
    name = parser.parse_args().model
    start = time.perf_counter()
    model = make_model(name)
    weights = 4 * sum(p.numel() for p in model.parameters())
    print(f"{name}, float32, {torch.get_num_threads()} threads; {weights / GIB:.1f} GiB of weights")
    print(f"made in {time.perf_counter() - start:.0f} s, peak so far {peak() / GIB:.1f} GiB")
    scores = []
    reset_peak()
    before = peak()
    for kind in ("good", "noisy"):
        files = (EXAMPLE / f"{part}.png" for part in ("ir", "vis", f"fused_{kind}"))
        triple = [to_batch(list(images)) for images in load_triples(*files)]
        start = time.perf_counter()
        with torch.no_grad():
            out = model(*triple)
        seconds = time.perf_counter() - start
        scores.append(out.level_logits)
        print(f"fused_{kind}: {seconds:.0f} s, level logits {out.level_logits[0].tolist()}")
    height, width = triple[0].shape[-2:]
    counted = scoring(without_weights(SHAPES[name], dtype=torch.float32), 1, (height, width))
    print(
        f"peak {peak() / GIB:.2f} GiB, {(peak() - before) / GIB:.2f} more than before; counted "
        f"{counted.peak / GIB:.2f} beside weights, {counted.flops / 1e12:.1f} TFLOP per triple, "
        f"so {counted.flops / 1e9 / seconds:.0f} GFLOP/s"
    )
    if not torch.stack(scores).isfinite().all() or torch.equal(*scores):
        raise SystemExit("the level logits are not finite, or do not depend on the image")


if __name__ == "__main__":
    main()
