"""Normalised pixels -> flat patches, in the order that Qwen's vision towers take them."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, patch: int, merge: int, time: int) -> Tensor:
    """Cut images into flat patches in the order of Qwen's processors.

    The patches of one merge window (which become one token) follow each other; windows are in
    reading order. A still image is repeated to fill the frames of a patch.

    Args:
        images: (N, C, H, W), sides multiples of `patch * merge`.
        patch: Side of a patch, in pixels.
        merge: Side of a merge window, in patches.
        time: Frames in a patch.
    """
    count, channels, height, width = images.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    # (N, C, rows, merge, patch, columns, merge, patch)
    cut = images.reshape(count, channels, rows, merge, patch, columns, merge, patch)
    windows = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)  # (N, r, c, m, m, C, 1, p, p)
    frames = windows.expand(*[-1] * 6, time, -1, -1)  # (N, r, c, m, m, C, t, p, p)
    return frames.flatten(5).flatten(0, 4)  # (patches of all images, C x t x p x p)
