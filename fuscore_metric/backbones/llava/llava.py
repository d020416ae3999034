"""LLaVA: pixels + prompt -> level logits, with any known tower and language model of transformers.

Beside the tower's tokens, which tell what is in a picture, an image may have tokens of its cell
statistics, as in the embedded family: they see noise and blur at the image's own resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from fuscore_metric.backbones.base import Encoded, no_autocast
from fuscore_metric.backbones.lite.cells import LiteSources, projected_statistics
from fuscore_metric.backbones.llava.architecture import (
    LlavaWithStatistics,
    Statistics,
    statistics_of,
)
from fuscore_metric.backbones.llava.towers import tower_of
from fuscore_metric.backbones.pretrained.chat import Chat
from fuscore_metric.backbones.pretrained.prompted_vl import PromptedVL
from fuscore_metric.backbones.prompt_tree import tree_positions
from fuscore_metric.backbones.sizes import fit_pixels, resize
from fuscore_metric.compute.placement import to_device
from fuscore_metric.prompts import ImageName

MIN_TOKENS = 16
MAX_TOKENS = 256
"""Default budget of one image for towers that take any size: 224x224 pixels for patches of 14."""


class LlavaChat(Chat):
    """The chat of SmolLM2, which is plain ChatML, with an image token."""

    system: ClassVar[str] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    image_token: ClassVar[str] = "<image>"


@dataclass
class LlavaSources(LiteSources):
    """Source pairs, whose cell statistics are computed when the first fused image comes.

    Attributes:
        tower: What the vision tower made of `ir` and `vis`.
    """

    tower: Encoded = field(default_factory=dict)


class Llava(PromptedVL):
    """A LLaVA behind the interface of `Backbone`.

    Encodings hold outputs of the frozen parts, before the projectors: `ir`, `vis`, `fused`
    (B, T, layers x D) of the tower, and `ir_cells`, `vis_cells`, `fused_cells` (B, cells, ...).

    Args:
        model: A `LlavaWithStatistics`.
        tokenizer: Its transformers tokenizer, with ChatML's special tokens and "<image>".
        preprocessing: Over the defaults: `min_pixels`, `max_pixels` (area of one image) for a tower
            that takes any size, else `image_size` (its side, the model's); `patch_size` (the
            model's); `image_mean`, `image_std` (three each); `tower`, false to leave the tower's
            tokens out; `statistics`, false to leave the cell statistics out, true for those of the
            model's config, or these themselves.

    Raises:
        ValueError: The tokenizer does not have the special tokens or splits a level word, or
            `preprocessing` does not fit the model.
    """

    family: ClassVar[str] = "llava"
    architecture: ClassVar[Any] = LlavaWithStatistics
    # Reads `tokenizer.json` and nothing else.
    tokenizer_class: ClassVar[Any] = PreTrainedTokenizerFast
    vision_name: ClassVar[str] = "vision_tower"
    linear_names: ClassVar[tuple[str, ...]] = (
        "vision_tower",
        "multi_modal_projector",
        "language_model",
    )
    projector_names: ClassVar[tuple[str, ...]] = (
        "model.multi_modal_projector",
        "model.statistics.cell_embedding",
        *(f"model.statistics.projectors.{name}" for name in ("ir", "vis", "fused", "whole")),
    )

    def __init__(
        self, model: Any, tokenizer: Any, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, tokenizer, preprocessing)
        self.chat = LlavaChat(tokenizer, model.config.image_token_id)
        if not self.preprocessing["statistics"] and statistics_of(model.config):
            del model.model.statistics  # what nothing reads is neither trained nor stored
            model.config.statistics = None

    @property
    def _statistics(self) -> Statistics | None:
        if not self.preprocessing["statistics"]:
            return None
        statistics: Statistics = self.model.model.statistics
        return statistics

    def encode_sources(self, ir: Tensor, vis: Tensor) -> LlavaSources:
        """Run the vision tower on the sources, and hold the pixels for their statistics."""
        # One pass for both sources: the tower does not distinguish them.
        both = torch.split(self._tower(torch.cat([ir, vis])), len(ir))
        return LlavaSources(ir, vis, tower=dict(zip(("ir", "vis"), both, strict=True)))

    def encode_fused(self, sources: LlavaSources, fused: Tensor, pair: Tensor) -> Encoded:
        """Run the vision tower on fused images, and take the statistics of all three images."""
        encoded = {**sources.tower, "fused": self._tower(fused), "pair": pair}
        if self._statistics is None:
            return encoded
        with no_autocast(fused.device):
            found = projected_statistics(self._statistics.encode_fused(sources, fused, pair))
        return encoded | {f"{name}_cells": statistics for name, statistics in found.items()}

    def pixels(self, images: Tensor) -> Tensor:
        """Resize and normalise.

        Args:
            images: (N, 3, H, W) in [0, 1].

        Returns:
            (N, 3, height, width) float32.
        """
        options = self.preprocessing
        if "image_size" in options:
            size = options["image_size"], options["image_size"]
        else:
            budget = {name: options[name] for name in ("min_pixels", "max_pixels")}
            size = fit_pixels(*images.shape[-2:], multiple=options["patch_size"], **budget)
        resized = resize(images, size)
        normal = [options["image_mean"], options["image_std"]]
        given = torch.tensor(normal, dtype=torch.float32)  # (2, 3)
        mean, std = to_device(given, resized.device)[..., None, None]  # (3, 1, 1) each
        normalised: Tensor = (resized - mean) / std
        return normalised

    def _tower(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, layers x D), with T = 0 where the tower is left out."""
        if not self.preprocessing["tower"]:
            width = self.model.model.multi_modal_projector.linear_1.in_features
            return images.new_empty(len(images), 0, width, dtype=self.dtype)
        pixels = self.pixels(images).to(self.dtype)
        patches = pixels.shape[-2] * pixels.shape[-1] // self.preprocessing["patch_size"] ** 2
        # The largest activation is four times as wide as the rest, as is usual in these towers.
        step = self._rows_at_once(4 * patches * self.model.config.vision_config.hidden_size)
        return torch.cat([self._layers(part) for part in torch.split(pixels, step)])

    def _layers(self, pixels: Tensor) -> Tensor:
        config = self.model.config
        layers = config.vision_feature_layer
        found = self.vision_tower(pixels, output_hidden_states=True).hidden_states
        states = [found[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        # The first token of CLIP and DINOv2 stands for the whole image; SigLIP has none.
        first = 1 if config.vision_feature_select_strategy == "default" else 0
        return torch.cat([state[:, first:] for state in states], dim=-1)

    def _token_count(self, encoded: Encoded, name: ImageName) -> int:
        count, statistics = encoded[name].shape[1], self._statistics
        return count + (statistics.count(name, encoded[f"{name}_cells"]) if statistics else 0)

    def _image_tokens(self, encoded: Encoded, name: ImageName) -> Tensor:
        tokens: Tensor = self.model.model.multi_modal_projector(encoded[name])
        if self._statistics is None:
            return tokens
        cells = self._statistics.read(name, encoded[f"{name}_cells"])
        return torch.cat([tokens, cells.to(tokens)], dim=1)

    def _source_positions(self, encoded: Encoded, length: int) -> Tensor:
        """(1, P) int64."""
        return torch.arange(length)[None]

    def _fused_positions(
        self, encoded: Encoded, before: int, stem: int, branches: Sequence[int]
    ) -> Tensor:
        """(1, L) int64."""
        return tree_positions(before, stem, branches)[None]

    @classmethod
    def _preprocessing(cls, config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        vision, statistics = config.vision_config, statistics_of(config) or False
        tower, patch = tower_of(vision), vision.patch_size
        fixed = {"patch_size": patch} | ({} if tower.native else {"image_size": vision.image_size})
        budget = {"min_pixels": MIN_TOKENS * patch**2, "max_pixels": MAX_TOKENS * patch**2}
        defaults = {
            **(budget if tower.native else {}),
            "image_mean": list(tower.mean),
            "image_std": list(tower.std),
            "tower": True,
            "statistics": statistics,
            **fixed,
        }
        if unknown := sorted(set(given) - set(defaults)):
            raise ValueError(f"Expected `preprocessing` of {', '.join(defaults)}, got {unknown}")
        chosen = {**defaults, **given}
        if chosen["statistics"] is True:
            chosen["statistics"] = statistics or {}
        if chosen["statistics"] is not False:
            fixed["statistics"] = statistics
        elif not chosen["tower"]:
            raise ValueError("Expected `preprocessing` with `tower` or `statistics`, got neither")
        if wrong := {name: chosen[name] for name in fixed if chosen[name] != fixed[name]}:
            raise ValueError(f"Expected `preprocessing` with the model's {fixed}, got {wrong}")
        return chosen
