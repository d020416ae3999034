"""The friendly doors: anything that holds images -> scores. A thin shell over `FuScore.forward`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache

import torch
from torch import Tensor

from fuscore_metric.images import ImagesLike, load_triples, to_batch
from fuscore_metric.model import FuScore, FuScoreOutput
from fuscore_metric.prompts import ALL_ASPECTS, DEFAULT_ASPECT, build_prompt

DEFAULT_BATCH_SIZE = 8


def score(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: FuScore | None = None,
    aspect: str = DEFAULT_ASPECT,
    device: str | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Tensor:
    """Say how good a person would find each fusion.

    Each of the three arguments is one image, a batch or a list; all three hold equally many. An
    image is a path, a PIL image, a numpy array (HW, HWC; uint8, uint16, float in [0, 1]) or a
    tensor (CHW, NCHW); see `fuscore_metric.images.as_images` for what the numbers mean. The three
    images of a triple have one size; triples may differ in size.

    Args:
        ir: Infrared image(s).
        vis: Visible image(s) of the same scene(s).
        fused: Fusion(s) of the two.
        model: What judges; the embedded weights by default, loaded once a device.
        aspect: `overall`, `thermal_retention`, `texture_preservation`, `artifacts` (higher =
            fewer) or `sharpness`; "all" for the five in this order, from one look at the images.
        device: Where to compute, if no `model` is given: by default where `fused` is.
        batch_size: Triples computed at once. Does not change the scores.

    Returns:
        (N,) float32 scores in [1, 5], higher is better, on the model's device; (N, 5) of "all".
        Differentiable if an input tensor requires gradients.

    Raises:
        InputError: An image cannot be used; one line that names the argument.
    """
    return predict(
        ir, vis, fused, model=model, aspect=aspect, device=device, batch_size=batch_size
    ).score


def predict(
    ir: ImagesLike,
    vis: ImagesLike,
    fused: ImagesLike,
    *,
    model: FuScore | None = None,
    aspect: str = DEFAULT_ASPECT,
    device: str | torch.device | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> FuScoreOutput:
    """Like `score`, with standard deviations, level probabilities and level logits.

    Takes the arguments of `score` and raises what it raises.

    Returns:
        A `FuScoreOutput` of N triples, in the order given.
    """
    if aspect != ALL_ASPECTS:
        build_prompt(aspect)  # an unknown aspect should not cost the loading of any image
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be a positive integer, got {batch_size!r}")
    triples = list(zip(*load_triples(ir, vis, fused), strict=True))
    if model is None:
        model = default_model(str(device or triples[0][2].device))
    needs_graph = any(image.requires_grad for triple in triples for image in triple)
    outputs: dict[int, FuScoreOutput] = {}
    with torch.set_grad_enabled(needs_graph and torch.is_grad_enabled()):
        for chosen in _batches(triples, batch_size):
            batch = (to_batch([triples[i][k] for i in chosen]).to(model.device) for k in range(3))
            output = model(*batch, aspect=aspect)
            outputs |= {i: _row(output, n) for n, i in enumerate(chosen)}
    return _stack([outputs[i] for i in range(len(triples))])


def _batches(triples: Sequence[tuple[Tensor, ...]], batch_size: int) -> list[list[int]]:
    """Indices of triples of one size, `batch_size` at a time: no padding, so no changed score."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, triple in enumerate(triples):
        by_size[tuple(triple[2].shape)].append(number)
    return [
        indices[start : start + batch_size]
        for indices in by_size.values()
        for start in range(0, len(indices), batch_size)
    ]


def _row(output: FuScoreOutput, number: int) -> FuScoreOutput:
    values = (getattr(output, field.name)[number : number + 1] for field in fields(FuScoreOutput))
    return FuScoreOutput(*values)


def _stack(rows: list[FuScoreOutput]) -> FuScoreOutput:
    names = [field.name for field in fields(FuScoreOutput)]
    return FuScoreOutput(*(torch.cat([getattr(row, name) for row in rows]) for name in names))


@lru_cache(maxsize=2)
def default_model(device: str) -> FuScore:
    """The embedded model on a device; kept, so that repeated calls do not load it again.

    This cache is the package's only state. Its key is the device's name.
    """
    return FuScore.from_pretrained(device=device)
