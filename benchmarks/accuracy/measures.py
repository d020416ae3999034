"""Images -> the ten classic fusion measures that a user would compute instead of FuScore.

Images are uint8, (H, W) or (H, W, 3), in the order ir, vis, fused; only their luma is read.
Entropy, mutual information and SSIM are scikit-image's; VIF, Qabf and Nabf are those of
`fuscore_training.classic_measures`; the others are a line each. How far each agrees with values
that benchmark authors published is tested in `tests/test_accuracy_protocol.py`.
"""

from __future__ import annotations

import numpy as np
from fuscore_training import classic_measures as cm
from fuscore_training.classic_fusions import luma
from numpy.typing import NDArray
from skimage.measure import shannon_entropy
from skimage.metrics import structural_similarity

Pixels = NDArray[np.uint8]
Grey = NDArray[np.float64]

HIGHER_IS_BETTER = {
    "EN": True,
    "SD": True,
    "SF": True,
    "AG": True,
    "MI": True,
    "SCD": True,
    "VIF": True,
    "Qabf": True,
    "SSIM": True,
    "Nabf": False,
}


def classic(ir: Pixels, vis: Pixels, fused: Pixels) -> dict[str, float]:
    """Measure a triple by all of `HIGHER_IS_BETTER`."""
    a, b, f = (grey(image) for image in (ir, vis, fused))
    ir_edges, vis_edges = (cm.edge_preservation(x / 255, f / 255) for x in (a, b))
    return {
        "EN": float(shannon_entropy(f)),
        "SD": float(f.std()),
        "SF": spatial_frequency(f),
        "AG": average_gradient(f),
        "MI": mutual_information(a, f) + mutual_information(b, f),
        "SCD": correlation(f - b, a) + correlation(f - a, b),
        "VIF": cm.vif(a / 255, f / 255) + cm.vif(b / 255, f / 255),
        "Qabf": cm.qabf(ir_edges, vis_edges),
        "SSIM": (similarity(a, f) + similarity(b, f)) / 2,
        "Nabf": cm.nabf(ir_edges, vis_edges),
    }


def grey(image: Pixels) -> Grey:
    """Luma (H, W): whole numbers in [0, 255]."""
    return np.rint(luma(image.astype(np.float64)))


def mutual_information(source: Grey, fused: Grey) -> float:
    """MI of one source and the fused image, in bits, over 256 grey levels."""
    joint = shannon_entropy(256 * source + fused)  # one number a pair of grey levels
    return float(shannon_entropy(source) + shannon_entropy(fused) - joint)


def spatial_frequency(image: Grey) -> float:
    """SF: root of the summed mean squares of row and column differences, in grey levels."""
    rows, columns = np.diff(image, axis=0), np.diff(image, axis=1)
    return float(np.sqrt((rows**2).mean() + (columns**2).mean()))


def average_gradient(image: Grey) -> float:
    """AG: mean of sqrt((dx^2 + dy^2) / 2), central differences, in grey levels."""
    down, across = np.gradient(image)
    return float(np.sqrt((down**2 + across**2) / 2).mean())


def correlation(a: Grey, b: Grey) -> float:
    """Pearson's, 0 with a constant. SCD is its sum over both sources (Aslantas, Bendes 2015)."""
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 0 else 0.0


def similarity(source: Grey, fused: Grey) -> float:
    """SSIM with the Gaussian window of Wang et al. 2004."""
    return float(
        structural_similarity(
            source,
            fused,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
