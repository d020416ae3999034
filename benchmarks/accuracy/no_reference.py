"""Fused image -> pyiqa's no-reference quality measures that need no download.

pyiqa is licensed PolyForm-Noncommercial: to install it is the user's choice, nothing here does.
Of its other classic measures BRISQUE, NIQE, ILNIQE, NRQM and PI fetch parameters at first use.
"""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.triples import Pixels

HIGHER_IS_BETTER = {"pyiqa PIQE": False}
"""pyiqa's entropy works offline as well, but is EN to five digits at eight times PIQE's cost."""


class NoReference:
    """All of `HIGHER_IS_BETTER`, made once."""

    def __init__(self) -> None:
        try:
            import pyiqa
        except ImportError as error:
            message = "no_reference needs pyiqa (PolyForm-Noncommercial): pip install pyiqa"
            raise SystemExit(message) from error
        names = {name: name.split()[-1].lower() for name in HIGHER_IS_BETTER}
        self.metrics = {name: pyiqa.create_metric(key) for name, key in names.items()}

    def __call__(self, ir: Pixels, vis: Pixels, fused: Pixels) -> dict[str, float]:
        """Measure the fused image; the sources are not looked at."""
        import torch

        del ir, vis
        rgb = fused if fused.ndim == 3 else np.repeat(fused[..., None], 3, axis=2)
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)
        return {name: float(metric(image)) for name, metric in self.metrics.items()}
