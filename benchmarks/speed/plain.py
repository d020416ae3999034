"""Files of triples -> classic measures as evaluators in Python usually compute them.

One triple after another, in numpy, scipy and scikit-image, two-dimensional windows and all; written
for comparison, after what the evaluator of CDDFuse does. The numbers are those of
`fuscore_metric.measure`, where the evaluators' slips are left out.

Without torch: each process that is started would have to import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity
from typing_extensions import Self

Triple = tuple[Path, Path, Path]
Grey = NDArray[np.float64]

SOBEL = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def plain(triple: Triple) -> dict[str, float]:
    """What a usual table has, but Nabf, which those evaluators do not have."""
    ir, vis, fused = (np.array(Image.open(path).convert("L"), dtype=float) for path in triple)
    return {
        "EN": _entropy(np.histogram(fused, 256, (0, 256))[0]),
        "SD": float(fused.std()),
        "SF": _spatial_frequency(fused),
        "AG": _average_gradient(fused),
        "MI": _information(ir, fused) + _information(vis, fused),
        "SCD": _correlation(fused - vis, ir) + _correlation(fused - ir, vis),
        "VIF": _fidelity(ir, fused) + _fidelity(vis, fused),
        "Qabf": _edges_kept(ir, vis, fused),
        "SSIM": (_similarity(ir, fused) + _similarity(vis, fused)) / 2,
    }


class PlainPool:
    """`plain` in several processes, which are started once.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        # Not forked: this process has threads of torch's.
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

    def score(self, triples: Sequence[Triple]) -> list[dict[str, float]]:
        """Measure triples."""
        return list(self._pool.map(plain, triples))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def _entropy(counts: NDArray[Any]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _information(source: Grey, fused: Grey) -> float:
    joint = np.histogram2d(source.ravel(), fused.ravel(), 256, ((0, 256), (0, 256)))[0]
    return _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint)


def _spatial_frequency(image: Grey) -> float:
    rows, columns = np.diff(image, axis=0), np.diff(image, axis=1)
    return float(np.sqrt((rows**2).mean() + (columns**2).mean()))


def _average_gradient(image: Grey) -> float:
    down, across = np.gradient(image)
    return float(np.sqrt((down**2 + across**2) / 2).mean())


def _correlation(one: Grey, other: Grey) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def _similarity(source: Grey, fused: Grey) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(source, fused, data_range=255, **options))


def _fidelity(source: Grey, fused: Grey) -> float:
    seen = shown = 0.0
    for width in (17, 9, 5, 3):
        place = np.arange(width) - width // 2
        line = np.exp(-(place**2) / (2 * (width / 5) ** 2))
        window = np.outer(line, line) / line.sum() ** 2

        def mean(image: Grey, window: Grey = window) -> Grey:
            return np.asarray(convolve2d(image, window, "valid"))

        if width < 17:
            source, fused = mean(source)[::2, ::2], mean(fused)[::2, ::2]
        own = np.maximum(mean(source**2) - mean(source) ** 2, 0)
        whole = np.maximum(mean(fused**2) - mean(fused) ** 2, 0)
        shared = np.maximum(mean(source * fused) - mean(source) * mean(fused), 0)
        gain = shared / (own + 1e-10)
        noise = np.maximum(whole - gain * shared, 1e-10)
        seen += np.log10(1 + gain**2 * own / (noise + 2)).sum()
        shown += np.log10(1 + own / 2).sum()
    return seen / shown


def _edges(image: Grey) -> tuple[Grey, Grey]:
    across = np.asarray(convolve2d(image, SOBEL, "same"))
    down = np.asarray(convolve2d(image, SOBEL.T, "same"))
    return np.hypot(across, down), np.arctan2(down, across)


def _edges_kept(ir: Grey, vis: Grey, fused: Grey) -> float:
    strength, direction = _edges(fused)
    kept = total = 0.0
    for own, angle in map(_edges, (ir, vis)):
        ratio = np.minimum(own, strength) / np.maximum(np.maximum(own, strength), 1e-12)
        aligned = np.abs(np.abs(np.abs(angle - direction) - np.pi) - np.pi / 2) * 2 / np.pi
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
        quality *= 0.9879 / (1 + np.exp(-22 * (aligned - 0.8)))
        kept, total = kept + (quality * own).sum(), total + own.sum()
    return kept / total
