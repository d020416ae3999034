"""The statistics of the cells of a grid: how many there are, and which belong to a fused image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.lite.efficientnet_lite import CHANNELS
from fuscore_metric.backbones.lite.local_statistics import LocalStatistics
from fuscore_metric.backbones.lite.relations import RELATIONS, Relief
from fuscore_metric.backbones.prompt_tree import rows
from fuscore_metric.compute.placement import to_device

PIXEL_CHANNELS = 5
"""Red, green, blue, gradient, Laplacian, at the image's own scale."""
OCTAVES, OCTAVE_CHANNELS = 3, 3
"""Halves of that scale; at each grey, gradient, Laplacian."""
AGREEMENT = PIXEL_CHANNELS + OCTAVES * OCTAVE_CHANNELS + sum(CHANNELS)
"""Correlations of a cell of the fused image with one source: one per channel."""
STATISTICS = PIXEL_CHANNELS + AGREEMENT
"""Statistics of a cell of one image: means of the pixels and edges, spread of every channel."""
REFERENCES = ("ir", "vis", "stronger")
"""What a fused image is compared with; see `local_statistics.stronger`."""
FUSED_STATISTICS = (1 + len(REFERENCES)) * STATISTICS + len(REFERENCES) * AGREEMENT
"""Of a fused cell: its own, those of each reference, and its correlation with each. A model with
relations has `RELATIONS` more."""
WHOLE_STATISTICS = 2 * (FUSED_STATISTICS + RELATIONS)
"""Of a whole fused image, in a model with relations: mean and spread of those over the cells."""
References = tuple[LocalStatistics, ...]
"""Statistics of the images in `REFERENCES`."""
Compared = tuple[References, Relief | None]
"""What fused images are compared with; the second only of a model with relations."""


@dataclass
class LiteSources:
    """Source pairs, whose pixels are encoded when the first fused image comes.

    Attributes:
        ir: (U, 3, H, W) in [0, 1].
        vis: Likewise.
        held: Their statistics, if one pass computed them for all pairs.
    """

    ir: Tensor
    vis: Tensor
    held: Compared | None = None


def beside(references: References, relief: Relief | None, pair: Tensor) -> Compared:
    """The references that each fused image is compared with.

    They stay as they are where one is for all or each image has its own, because maps are large
    and need not be copied then.
    """
    count = len(references[0].mean)
    if count == 1 or torch.equal(pair, torch.arange(count)):
        return references, relief
    numbers = to_device(pair, references[0].mean.device)
    chosen = tuple(reference.rows(numbers) for reference in references)
    return chosen, None if relief is None else relief.rows(numbers)


def projected_statistics(encoded: Encoded) -> Encoded:
    """The input of each image's projector; that of the fused image has the sources in it too."""
    references = [rows(encoded[name], encoded["pair"]) for name in REFERENCES]
    compared = [encoded[name] for name in ("agreement", "relation") if name in encoded]
    fused = torch.cat([encoded["fused"], *references, *compared], dim=-1)
    return {"ir": encoded["ir"], "vis": encoded["vis"], "fused": fused}


def over_cells(statistics: Tensor) -> Tensor:
    """Mean and spread over the cells: (N, K, statistics) -> (N, 1, 2 * statistics)."""
    # The root's slope is infinite at 0, where all cells are alike.
    spread = (statistics.var(1, keepdim=True, correction=0) + 1e-8).sqrt()
    return torch.cat([statistics.mean(1, keepdim=True), spread], dim=-1)
