"""Images of another study -> checked files and what importers must know about each.

Every image is really decoded, by the rules that scoring uses, but none is held: an importer keeps
its size, a hash of its pixels and a perceptual hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor

from fuscore_metric.errors import InputError
from fuscore_metric.images.checks import check_triples
from fuscore_metric.images.convert import as_images
from fuscore_training.fusions.classic import luma, to_bytes
from fuscore_training.importers.optional import optional_module

HASH_SIDE = 16
"""Side of the square of frequencies in a perceptual hash, which has `HASH_SIDE`^2 bits."""


@dataclass(frozen=True)
class StoredImage:
    """What is known of an image that decodes.

    Attributes:
        path: The file.
        size: (height, width) in pixels.
        pixels: SHA-256 of the decoded pixels: equal for lossless copies in any format.
        hash: Perceptual hash (`HASH_SIDE`^2,) of bool; None where none was asked for.
    """

    path: str
    size: tuple[int, int]
    pixels: str
    hash: NDArray[np.bool_] | None = None


def perceptual_hash(image: Tensor) -> NDArray[np.bool_]:
    """DCT hash ("pHash") of an image's luma, as `imagehash.phash` computes it.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        (`HASH_SIDE`^2,) of bool.

    Raises:
        ImportError: `imagehash` is not installed.
    """
    grey = PILImage.fromarray(to_bytes(luma(image.movedim(0, -1).double().numpy())))
    bits = optional_module("imagehash").phash(grey, hash_size=HASH_SIDE).hash
    return np.asarray(bits, dtype=np.bool_).ravel()


def inspect_image(path: str | os.PathLike[str], argument: str, *, hashed: bool) -> StoredImage:
    """Decode an image file and keep what importers need.

    Args:
        path: The file.
        argument: "ir", "vis" or "fused": the rule for 16 bits, see `fuscore_metric.images`.
        hashed: Whether to compute the perceptual hash.

    Raises:
        InputError: It cannot be scored: not there, broken, too small, ...
    """
    image = as_images(path, argument)[0]  # (3, H, W)
    height, width = image.shape[-2:]
    digest = sha256(f"{height}x{width}".encode() + image.numpy().tobytes()).hexdigest()
    return StoredImage(
        os.fspath(path), (height, width), digest, perceptual_hash(image) if hashed else None
    )


def check_sizes(ir: StoredImage, vis: StoredImage, fused: StoredImage) -> None:
    """Check that three images form a triple, as scoring does.

    Raises:
        InputError: Their sizes differ.
    """
    # `check_triples` reads shapes alone, so tensors without memory will do.
    shapes = ([torch.empty(3, *one.size, device="meta")] for one in (ir, vis, fused))
    check_triples(*shapes)


class ImageStore:
    """Files by the hash of their bytes, each written, decoded and checked once.

    Args:
        folder: Where they go; made when the first image comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, str], StoredImage | InputError] = {}

    def add(self, data: bytes, argument: str) -> StoredImage:
        """Keep the bytes of an image file, unchanged.

        Args:
            data: The file's content.
            argument: "ir", "vis" or "fused"; sources get a perceptual hash.

        Raises:
            InputError: The image cannot be scored; no file is left.
        """
        key = sha256(data).hexdigest(), argument
        if key not in self._known:
            try:
                self._known[key] = self._stored(data, *key)
            except InputError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, InputError):
            raise found
        return found

    def _stored(self, data: bytes, name: str, argument: str) -> StoredImage:
        final = self.folder / name[:2] / f"{name[:32]}{_suffix(data)}"
        hashed = argument != "fused"
        if final.is_file():
            return inspect_image(final, argument, hashed=hashed)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_suffix(".part")  # so that a broken or half-written file gets no name
        try:
            part.write_bytes(data)
            found = inspect_image(part, argument, hashed=hashed)
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
        return replace(found, path=os.fspath(final))


_SUFFIXES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
}


def _suffix(data: bytes) -> str:
    """A file's usual suffix, for people: Pillow goes by the content."""
    return next((end for start, end in _SUFFIXES.items() if data.startswith(start)), ".img")
