"""README's picture of the packaged example: python -m benchmarks.report.example.

Needs the extra [report]. The example is rendered by a script of ours, so it may be shown.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import fuscore_metric
from benchmarks import EXAMPLE

FUSIONS = ("good", "average", "noisy")


def main() -> None:
    """Score three fusions of the example and save the figure."""
    fused = [EXAMPLE / f"fused_{name}.png" for name in FUSIONS]
    figure = fuscore_metric.show(EXAMPLE / "ir.png", EXAMPLE / "vis.png", fused)
    picture = Path(__file__).with_name("example.png")
    figure.savefig(picture, dpi=100, bbox_inches="tight")
    with Image.open(picture) as drawn:
        drawn.convert("RGB").save(picture.with_suffix(".webp"), quality=80, method=6)
    picture.unlink()


if __name__ == "__main__":
    main()
