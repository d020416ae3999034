"""Sizes and shapes of images, batches and triples: checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fuscore_metric.errors import InputError

MIN_SIDE = 32
"""Smallest height and width of an image, in pixels."""
MAX_PIXELS = 64_000_000
"""Largest height x width of an image; a file's header is checked before its pixels are decoded."""


def check_size(height: int, width: int, name: str) -> None:
    """Check the size of one image.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        name: How the error calls the image, e.g. `fused` or `fused[2]`.

    Raises:
        InputError: If a side is under `MIN_SIDE` or the area is over `MAX_PIXELS`.
    """
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"Expected `{name}` with sides of at least {MIN_SIDE} pixels, got {height}x{width}"
        )
    if height * width > MAX_PIXELS:
        raise InputError(
            f"Expected `{name}` with at most {MAX_PIXELS} pixels, "
            f"got {height}x{width} = {height * width}"
        )


class Sized(Protocol):
    """What has the shape (..., H, W) of an image."""

    @property
    def shape(self) -> Sequence[int]:
        """(..., H, W)."""
        ...


def check_triples(ir: Sequence[Sized], vis: Sequence[Sized], fused: Sequence[Sized]) -> None:
    """Check that three lists of images form triples.

    Args:
        ir: Infrared images, as many as `fused`, or one for all.
        vis: As many visible images.
        fused: Fused images.

    Raises:
        InputError: If the lists differ in length, or the images of a triple in height or width.
    """
    if len(ir) != len(vis) or len(ir) not in (1, len(fused)):
        raise InputError(
            "Expected `ir`, `vis` and `fused` with the same number of images, or one source pair "
            f"for all, got {len(ir)}, {len(vis)} and {len(fused)}"
        )
    for number, image in enumerate(fused):
        triple = {"ir": ir[number % len(ir)], "vis": vis[number % len(vis)], "fused": image}
        several = {"ir": len(ir) > 1, "vis": len(vis) > 1, "fused": len(fused) > 1}
        names = {name: f"`{name}[{number}]`" if several[name] else f"`{name}`" for name in triple}
        for name in ("vis", "fused"):
            if tuple(triple[name].shape[-2:]) != tuple(triple["ir"].shape[-2:]):
                cut = name == "fused" and smaller(image, triple["ir"])
                raise InputError(
                    f"{names['ir']} is {_size(triple['ir'])}, {names[name]} is "
                    f"{_size(triple[name])}: "
                    "the three images of a triple must have the same height and width"
                    + (_CUT_HINT if cut else "")
                )


_CUT_HINT = (
    "; if the method cropped its output, resize='crop' of `score`, `predict`, `rank` and "
    "`evaluate`, or --resize crop, crops the sources alike"
)


def smaller(image: Sized, whole: Sized) -> bool:
    """Whether an image is smaller than another one in a dimension, and larger in none."""
    sides = list(zip(image.shape[-2:], whole.shape[-2:], strict=True))
    return any(one < other for one, other in sides) and all(one <= other for one, other in sides)


def to_batch(images: list[Tensor]) -> Tensor:
    """Stack images of one size.

    Args:
        images: N tensors (3, H, W) on one device.

    Returns:
        (N, 3, H, W).

    Raises:
        InputError: If there are none, or their sizes differ.
    """
    if not images:
        raise InputError("Expected `images` with at least one image, got none")
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise InputError(
                "Expected `images` of one size, "
                f"got {_size(images[0])} and (`images[{i}]`) {_size(image)}"
            )
    return torch.stack(images)  # (N, 3, H, W)


def check_batch(images: Tensor, argument: str) -> None:
    """Check the form of a batch, not its values: on a GPU that would wait for the device.

    Args:
        images: Should be (N, 3, H, W), floating point, N > 0, sides of at least `MIN_SIDE`.
            That the values lie in [0, 1] is left to the caller.
        argument: `ir`, `vis` or `fused`: named in errors.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"Expected `{argument}` as a torch tensor (N, 3, H, W), got {type(images).__name__}"
        )
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise InputError(
            f"Expected `{argument}` with shape (N, 3, H, W), got {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise InputError(f"Expected `{argument}` with a floating dtype, got {images.dtype}")
    check_size(images.shape[-2], images.shape[-1], argument)


def check_batches(**images: Tensor) -> None:
    """Check batches that belong together: each by `check_batch`, all of one shape.

    Args:
        **images: By argument name; the last one's shape is the expected one.

    Raises:
        InputError: One is not a batch, or differs from the last in shape.
    """
    for argument, batch in images.items():
        check_batch(batch, argument)
    name, shape = argument, tuple(batch.shape)
    for argument, batch in images.items():
        if tuple(batch.shape) != shape:
            raise InputError(
                f"Expected `{argument}` with the shape of `{name}` {shape}, "
                f"got {tuple(batch.shape)}"
            )


def check_sources(ir: Tensor, vis: Tensor, fused: Tensor) -> None:
    """Check batches of triples, in which one source pair may be for all of `fused`.

    Raises:
        InputError: One is not a batch, or the sources are neither one pair nor one for each.
    """
    check_batch(ir, "ir")
    check_batch(vis, "vis")
    check_batch(fused, "fused")
    shape, one = tuple(fused.shape), (1, *fused.shape[1:])
    if tuple(ir.shape) == tuple(vis.shape) == one:
        return
    for argument, batch in (("ir", ir), ("vis", vis)):
        if tuple(batch.shape) != shape:
            raise InputError(
                f"Expected `{argument}` with the shape of `fused` {shape}, "
                f"or one source pair for all, got {tuple(batch.shape)}"
            )


def _size(image: Sized) -> str:
    """Height x width of an image (..., H, W), for messages."""
    return "x".join(str(side) for side in image.shape[-2:])
