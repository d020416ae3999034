"""The visible change of a damaged picture from the one that it was made of: MS-GMSDc.

Gradient magnitude similarity deviation on multiple scales, with chroma: B. Zhang, P. V. Sander and
A. Bermak, ICASSP 2017. By the published formula; `test_visible_change.py` holds it against
numbers of another implementation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fuscore_training.fusions.classic import Image

SCALE_WEIGHTS = (0.096, 0.596, 0.289, 0.019)
MASKING = 0.5
STABLE = 170.0
CHROMA_WEIGHT, CHROMA_LEVEL, CHROMA_RATE = 0.01, 0.32, 15.0
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def visible_change(image: Image, base: Image) -> float:
    """MS-GMSDc between two pictures of one size, 0 for equal ones, hardly ever above 0.5.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1], at least 17 pixels a side.
        base: Likewise.
    """
    one, other, squares = _yiq(image), _yiq(base), []
    for number in range(len(SCALE_WEIGHTS)):
        if number:
            one, other = _halved(one), _halved(other)
        squares.append(_deviation(one[0], other[0]) ** 2)
    # At the coarsest scale, as `piq` does: fine changes of colour alone are hardly visible.
    chroma = np.sqrt(((one[1:] - other[1:]) ** 2).mean((1, 2)).sum())
    luma = float(np.sqrt(np.dot(SCALE_WEIGHTS, squares)))
    share = 2 / (1 + CHROMA_LEVEL * np.exp(-CHROMA_RATE * luma)) - 1
    return float(share * luma + (1 - share) * CHROMA_WEIGHT * chroma)


def _yiq(image: Image) -> NDArray[np.float64]:
    """(3, H, W) in grey levels."""
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return np.moveaxis(255.0 * colours @ YIQ.T, 2, 0)


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2 x 2 pixels; both sides take zeros if one is odd, as `piq` does."""
    odd = max(side % 2 for side in image.shape[1:])
    padded = np.pad(image, ((0, 0), (0, odd), (0, odd)))
    height, width = (side // 2 for side in padded.shape[1:])
    whole = padded[:, : 2 * height, : 2 * width]
    return np.asarray(whole.reshape(-1, height, 2, width, 2).mean((2, 4)))


def _deviation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Standard deviation of the masked similarity of gradient magnitudes (Prewitt)."""
    x, y = _gradient(a), _gradient(b)
    shared = (2 - MASKING) * x * y + STABLE
    return float((shared / (x**2 + y**2 - MASKING * x * y + STABLE)).std())


def _gradient(image: NDArray[np.float64]) -> NDArray[np.float64]:
    across = ndimage.prewitt(image, axis=0, mode="constant") / 3
    along = ndimage.prewitt(image, axis=1, mode="constant") / 3
    return np.hypot(across, along)
