"""Uploaded files -> what FuScore says of them, as plain data: between the app's slots and views."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fuscore_metric import FuScore, InputError, as_images, predict, preference
from fuscore_metric.drawing.overlay import painted
from fuscore_metric.images.checks import check_triples
from fuscore_metric.images.doubts import are_swapped
from fuscore_metric.prompts import ASPECTS, build_prompt

Payload: TypeAlias = dict[str, Any] | None
"""An upload as Gradio hands it over unread: `path` on this machine, `orig_name` of the user's."""

MAX_CANDIDATES = 30
_THUMBNAIL = (480, 480)
_BATCH = 4


@dataclass(frozen=True)
class Answer:
    """What was said of one fusion.

    Attributes:
        aspect: What was asked for.
        score: In [1, 5], higher is better.
        std: The model's own uncertainty, in points of score.
        probabilities: Of the five level words, worst first.
        aspects: Score and std of every aspect, from the same look at the images.
    """

    aspect: str
    score: float
    std: float
    probabilities: tuple[float, ...]
    aspects: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Ranked:
    """One line of a ranking.

    Attributes:
        name: File name as the user knows it.
        score: In [1, 5].
        std: In points of score.
        preferred: P(better than the next line), calibrated by the weights; None for the last.
        thumbnail: RGB, at most 480 pixels a side.
    """

    name: str
    score: float
    std: float
    preferred: float | None
    thumbnail: Image.Image


def score(model: FuScore, ir: Payload, vis: Payload, fused: Payload, aspect: str) -> Answer:
    """Score one fusion.

    Raises:
        InputError: A slot is empty, a file is no image, or the sizes differ.
        ValueError: The aspect is unknown.
    """
    build_prompt(aspect)
    triple = load_triple(ir, vis, fused)
    # The files' own tensors, so that the score is that of `fuscore_metric.score` on the files.
    out = predict(*triple, model=model, aspects=ASPECTS)
    number = ASPECTS.index(aspect)
    scores, stds = out.score[0].tolist(), out.std[0].tolist()
    return Answer(
        aspect,
        scores[number],
        stds[number],
        tuple(out.probabilities[0, number].tolist()),
        {name: (scores[n], stds[n]) for n, name in enumerate(ASPECTS)},
    )


def locate_loss(
    model: FuScore, ir: Payload, vis: Payload, fused: Payload, aspect: str
) -> NDArray[np.uint8]:
    """Paint where a fusion lost its score, as `fuscore explain` does.

    Returns:
        (H, W, 3) picture.

    Raises:
        InputError: As `score`.
    """
    triple = load_triple(ir, vis, fused)
    one, two, three = (image.unsqueeze(0).to(model.device) for image in triple)  # (1, 3, H, W)
    found: NDArray[np.float32] = model.attribution(one, two, three, aspect=aspect)[0].cpu().numpy()
    return painted(_eight_bits(triple[2]), found)


def rank(
    model: FuScore, ir: Payload, vis: Payload, candidates: list[dict[str, Any]] | None
) -> list[Ranked]:
    """Score several fusions of one source pair by overall quality, best first.

    Raises:
        InputError: A slot is empty, there are too many files, one is no image, or sizes differ.
    """
    if not candidates:
        raise InputError("Expected at least one candidate: choose fused images of this pair")
    if len(candidates) > MAX_CANDIDATES:
        raise InputError(f"Expected at most {MAX_CANDIDATES} candidates, got {len(candidates)}")
    (ir_image,), (vis_image,) = _load(ir, "ir"), _load(vis, "vis")
    images = [_load(one, "fused", name=_name(one))[0] for one in candidates]
    triples = [ir_image] * len(images), [vis_image] * len(images), images
    for one, image in zip(candidates, images, strict=True):
        _check_size(ir_image, vis_image, image, name=_name(one))
    out = predict(*triples, model=model, batch_size=_BATCH)
    order = torch.argsort(out.score, descending=True, stable=True).tolist()
    better = preference(out[order[:-1]], out[order[1:]]).tolist()
    return [
        Ranked(
            _name(candidates[n]), out.score[n].item(), out.std[n].item(), chance, _thumb(images[n])
        )
        for n, chance in zip(order, [*better, None], strict=True)
    ]


def write_csv(ranking: list[Ranked], model: FuScore, path: Path) -> None:
    """Write a ranking, each line with the weights and what they learned from."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "file", "score", "std", "p_better_than_next", "weights", "labels"])
        for place, one in enumerate(ranking, 1):
            chance = "" if one.preferred is None else one.preferred
            origin = (model.spec.name, model.spec.label_statement())
            writer.writerow([place, one.name, one.score, one.std, chance, *origin])


def doubt(ir: Payload, vis: Payload) -> str:
    """What is odd about sources that can be scored all the same; empty if nothing is.

    Raises:
        InputError: A slot is empty, or a file is no image.
    """
    (ir_image,), (vis_image,) = _load(ir, "ir"), _load(vis, "vis")
    if are_swapped(ir_image, vis_image):
        return "The infrared image has colours and the visible one is grey: are they swapped?"
    return ""


def load_triple(ir: Payload, vis: Payload, fused: Payload) -> tuple[torch.Tensor, ...]:
    """Read three uploads: tensors (3, H, W) in [0, 1], of one size.

    Raises:
        InputError: A slot is empty, a file is no image, or the sizes differ.
    """
    slots = {"ir": ir, "vis": vis, "fused": fused}
    if empty := [f"`{name}`" for name, payload in slots.items() if not payload]:
        raise InputError(f"Expected three images, {' and '.join(empty)} still empty")
    triple = tuple(_load(payload, name)[0] for name, payload in slots.items())
    check_triples(*([image] for image in triple))
    return triple


def _load(payload: Payload, argument: str, *, name: str = "") -> list[torch.Tensor]:
    if not payload:
        raise InputError(f"Expected `{argument}` as an image, the slot is still empty")
    path = str(payload["path"])
    try:
        return as_images(path, argument)
    except InputError as error:
        # The user knows the file by its own name, not by ours.
        message = str(error).replace(repr(path), repr(_name(payload)))
        raise InputError(
            f"{name}: {message}" if name and name not in message else message
        ) from error


def _check_size(ir: torch.Tensor, vis: torch.Tensor, fused: torch.Tensor, *, name: str) -> None:
    try:
        check_triples([ir], [vis], [fused])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _name(payload: dict[str, Any]) -> str:
    return str(payload.get("orig_name") or Path(payload["path"]).name)


def _eight_bits(image: torch.Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] -> (H, W, 3) for the screen."""
    pixels: NDArray[np.uint8] = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels


def _thumb(image: torch.Tensor) -> Image.Image:
    picture = Image.fromarray(_eight_bits(image))
    picture.thumbnail(_THUMBNAIL)
    return picture
