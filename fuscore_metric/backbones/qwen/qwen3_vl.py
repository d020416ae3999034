"""Qwen3-VL: pixels + prompt -> level logits; features of early vision layers go in deeper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL
from fuscore_metric.compute.placement import to_device
from fuscore_metric.prompts import ImageName


class Qwen3VL(QwenVL):
    """Qwen3-VL-Instruct, any dense size.

    Its vision tower also gives "deepstack" features: outputs of some earlier layers, added to the
    image tokens after each of the first layers of the language model.
    """

    family: ClassVar[str] = "qwen3_vl"
    architecture: ClassVar[Any] = Qwen3VLForConditionalGeneration
    image_mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    image_std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)

    def _tower(self, patches: Tensor, grid: Tensor) -> dict[str, Tensor]:
        found = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        features = torch.stack([found.pooler_output, *found.deepstack_features], dim=1)
        images = features.reshape(len(grid), -1, *features.shape[1:])  # (B, T, 1 + layers, D)
        return {"": images[:, :, 0], "_deepstack": images[:, :, 1:].transpose(1, 2)}

    def _language_options(
        self, encoded: Encoded, names: Sequence[ImageName], is_image: Tensor
    ) -> dict[str, Any]:
        parts = [encoded[f"{name}_deepstack"] for name in names]
        layers = torch.cat(parts, dim=2).transpose(0, 1).flatten(1, 2)  # (layers, B x K T, D)
        mask = to_device(is_image, layers.device)
        return {
            "visual_pos_masks": mask.expand(len(parts[0]), -1),  # (B, L)
            "deepstack_visual_embeds": list(layers),
        }
