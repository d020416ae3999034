"""What differs between the vision towers of transformers that a LLaVA may have."""

from __future__ import annotations

from typing import Any, NamedTuple

Three = tuple[float, float, float]

CLIP_MEAN, CLIP_STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tower(NamedTuple):
    """A kind of tower.

    Attributes:
        mean: Its normalisation, as its own image processor has it.
        std: Likewise.
        native: Whether it interpolates its positions, and so takes images of any size and shape.
    """

    mean: Three
    std: Three
    native: bool = False


TOWERS: dict[str, Tower] = {
    "clip_vision_model": Tower(CLIP_MEAN, CLIP_STD),
    "siglip_vision_model": Tower((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dinov2": Tower(IMAGENET_MEAN, IMAGENET_STD, native=True),
}
"""By `model_type` of the tower's config."""


def tower_of(vision: Any) -> Tower:
    """The kind of tower that a vision config describes.

    Raises:
        ValueError: It is not a known one.
    """
    if vision.model_type not in TOWERS:
        raise ValueError(
            f"Expected a vision tower of {', '.join(TOWERS)}, got {vision.model_type!r}"
        )
    return TOWERS[vision.model_type]
