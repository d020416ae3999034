"""What turns images into cell tokens: the small convolutional network, statistics, projectors.

For a family whose language part reads such tokens, alone or beside those of a vision tower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.lite.cells import (
    FUSED_STATISTICS,
    OCTAVES,
    REFERENCES,
    STATISTICS,
    WHOLE_STATISTICS,
    Compared,
    LiteSources,
    beside,
    over_cells,
    projected_statistics,
)
from fuscore_metric.backbones.lite.efficientnet_lite import EfficientNetLite
from fuscore_metric.backbones.lite.local_statistics import (
    LocalStatistics,
    Maps,
    edge_pyramid,
    stronger,
)
from fuscore_metric.backbones.lite.projector import Projector
from fuscore_metric.backbones.lite.relations import RELATIONS, make_relief, relations
from fuscore_metric.backbones.sizes import fit_pixels, resize
from fuscore_metric.compute.placement import to_device


class CellTokens(nn.Module):
    """Images -> statistics of their cells -> tokens for a language model.

    Attributes:
        preprocessing: The options of `config.DEFAULT_PREPROCESSING`, at least.
        relations: Whether fused images are also compared with their sources place by place.
        vision: The convolutional network, frozen.
        projectors: Statistics -> tokens of `ir`, `vis`, `fused`, and with relations of the `whole`
            fused image.
        cell_embedding: The place of a cell in the grid.
    """

    preprocessing: dict[str, Any]
    relations: bool

    def make_parts(self, hidden: int, spread: float) -> None:
        """Make the parts, in the order in which seeds draw them.

        Args:
            hidden: Width of the language model.
            spread: Standard deviation of the embedding's start.
        """
        self.vision = EfficientNetLite().eval().requires_grad_(False)
        self.projectors = nn.ModuleDict(
            {
                "ir": Projector(STATISTICS, hidden),
                "vis": Projector(STATISTICS, hidden),
                "fused": Projector(FUSED_STATISTICS + RELATIONS * self.relations, hidden),
            }
            | ({"whole": Projector(WHOLE_STATISTICS, hidden)} if self.relations else {})
        )
        self.cell_embedding = nn.Embedding(self.preprocessing["grid"] ** 2, hidden)
        # The default, a deviation of 1, would drown the projectors' outputs.
        nn.init.normal_(self.cell_embedding.weight, std=spread)

    @property
    def own_statistics(self) -> tuple[str, ...]:
        """Names of the statistics that each fused image has of its own."""
        return ("fused", "agreement", *(["relation"] if self.relations else []))

    def encode_sources(self, ir: Tensor, vis: Tensor) -> LiteSources:
        """Hold the pixels; they are encoded when the first fused image comes."""
        return LiteSources(ir, vis)

    def encode_fused(self, sources: LiteSources, fused: Tensor, pair: Tensor) -> Encoded:
        """Cell statistics of the three images and of fused against each source.

        Returns:
            `ir`, `vis`, `stronger` (U, cells, `STATISTICS`) of U source pairs and `source_cells`
            (U, cells); `fused` (N, cells, `STATISTICS`), `agreement` (N, cells, 3 `AGREEMENT`),
            `cells` (N, cells), the place of each cell in the grid, and `pair` (N,), the source pair
            of each fused image; with relations also `relation` (N, cells, `RELATIONS`). Statistics
            are float32.
        """
        own = self.own_statistics
        found: dict[str, list[Tensor]] = {name: [] for name in (*REFERENCES, *own)}
        # Rows are collected pair by pair, so that a pair's large maps are needed only once, and
        # put back into the order of `fused` at the end.
        order: list[int] = []
        for place, members in self._groups(len(sources.ir), fused, pair):
            references, relief = self._references(sources, place)
            for name, reference in zip(REFERENCES, references, strict=True):
                found[name].append(reference.tokens())
            for numbers, images in members:
                near, relief_beside = beside(references, relief, pair[numbers])
                one = self._statistics(images, near)
                if relief_beside is not None:
                    found["relation"].append(relations(self._greys(one), relief_beside, one.grid))
                found["fused"].append(one.tokens())
                found["agreement"].append(torch.cat(one.correlations(), dim=-1))
                order += numbers
        encoded = {name: torch.cat(parts) for name, parts in found.items()}
        if order != sorted(order):
            back = torch.tensor(order, device=fused.device).argsort()
            encoded |= {name: encoded[name][back] for name in own}
        cells = torch.arange(self.preprocessing["grid"] ** 2, device=fused.device)
        return encoded | {
            "source_cells": cells.expand(len(sources.ir), -1),
            "cells": cells.expand(len(fused), -1),
            "pair": to_device(pair, fused.device),
        }

    def _groups(
        self, pairs: int, fused: Tensor, pair: Tensor
    ) -> Iterator[tuple[slice, list[tuple[list[int], Tensor]]]]:
        """What is encoded together: source pairs, and row numbers and images of `fused`.

        On the CPU one source pair after another, each with its fused images one at a time, so that
        the maps of a single pair are held at once. Rows then come in the order of the pairs.
        """
        if not self.one_by_one:
            yield slice(0, pairs), [(list(range(len(fused))), fused)]
            return
        # Indexing would give each image a gradient of the whole batch's size of its own.
        images = torch.split(fused, 1)
        for number in range(pairs):
            members = (pair == number).nonzero().flatten().tolist()
            yield slice(number, number + 1), [([member], images[member]) for member in members]

    @property
    def one_by_one(self) -> bool:
        """Whether images are encoded one at a time.

        They are on the CPU: feature maps stay in its cache, which is faster than a batch, and the
        numbers do not depend on the batch.
        """
        return self.cell_embedding.weight.device.type == "cpu"

    def _references(self, sources: LiteSources, place: slice) -> Compared:
        """What the fused images of some source pairs are compared with."""
        if sources.held is not None:
            return sources.held
        both = self._statistics(sources.ir[place]), self._statistics(sources.vis[place])
        best = LocalStatistics(stronger(both[0].maps, both[1].maps), both[0].grid)
        relief = make_relief(*map(self._greys, both)) if self.relations else None
        found = (*both, best), relief
        # Feature maps are large: they are held for further fused images only if one pass made those
        # of all pairs, which on a CPU means of a single one.
        if place.stop - place.start == len(sources.ir):
            sources.held = found
        return found

    def _statistics(
        self, images: Tensor, references: Sequence[LocalStatistics] = ()
    ) -> LocalStatistics:
        """Encode images beside the references that they are compared with."""
        options = self.preprocessing
        size = fit_pixels(
            *images.shape[-2:],
            min_pixels=options["min_pixels"],
            max_pixels=options["max_pixels"],
            multiple=options["multiple"],
        )
        # A picture that was turned from HWC to CHW takes half as long again as a contiguous one.
        pixels = ((resize(images, size) - options["mean"]) / options["std"]).contiguous()
        return LocalStatistics(self._maps(pixels), options["grid"], references)

    def _greys(self, statistics: LocalStatistics) -> list[Tensor]:
        """Grey maps in [0, 1] at 1/2, 1/4 and 1/8."""
        mean, std = self.preprocessing["mean"], self.preprocessing["std"]
        return [m[:, :1] * std + mean for m in statistics.maps.pixels[1:]]

    def _maps(self, pixels: Tensor) -> Maps:
        """Compute maps twice, so that a filter's slant and the phase of its strides decide nothing.

        The second time of the mirror image, a row lower: mirroring changes the phase along the
        width only where that is even. Its maps cover the same cells, from right to left.
        """
        given = pixels.to(self.vision.stem.conv.weight.dtype)
        upright, mirrored = self.vision(given), self.vision(given[..., 1:, :].flip(-1))
        features = list(zip(upright, mirrored, strict=True))
        return Maps(edge_pyramid(pixels, OCTAVES), features, mirrored=True)

    def _tokens(self, name: str, statistics: Tensor, cells: Tensor) -> Tensor:
        tokens: Tensor = self.projectors[name](statistics) + self.cell_embedding(cells)
        return tokens

    def _fused_tokens(self, statistics: Tensor, cells: Tensor) -> Tensor:
        """One for each cell, and one for the whole image if there are relations."""
        tokens = self._tokens("fused", statistics, cells)
        if not self.relations:
            return tokens
        return torch.cat([tokens, self.projectors["whole"](over_cells(statistics))], dim=1)

    def standardise(self, encoded: Encoded) -> None:
        """Take the mean and spread of the statistics from these triples; before training."""
        found = projected_statistics(encoded)
        if self.relations:
            found["whole"] = over_cells(found["fused"])
        for name, statistics in found.items():
            cast(Projector, self.projectors[name]).standardise(statistics)
