"""What the Qwen-VL families share: images -> patches -> image tokens, and their positions.

Native transformers classes and the family's own chat format; the pixels are ours, in torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from fuscore_metric.backbones.base import Encoded
from fuscore_metric.backbones.pretrained.prompted_vl import PromptedVL
from fuscore_metric.backbones.qwen.patches import patchify
from fuscore_metric.backbones.qwen.qwen_chat import QwenChat
from fuscore_metric.backbones.sizes import fit_pixels, resize
from fuscore_metric.compute.placement import to_device
from fuscore_metric.prompts import DEFAULT_ASPECT, IMAGE_ORDER

MIN_TOKENS = 64
MAX_TOKENS = 512
"""Default budget of one image, ours: 512 tokens are 634x634 pixels for patches of 14 (Qwen2.5-VL),
724x724 for 16 (Qwen3-VL). Fusion test sets are mostly 640x480; the families go far beyond."""

FIXED_BY_MODEL = ("patch_size", "merge_size", "temporal_patch_size")


class QwenVL(PromptedVL):
    """A Qwen vision-language model behind the interface of `Backbone`.

    Args:
        model: An instance of `architecture`.
        tokenizer: Its transformers tokenizer.
        preprocessing: Over the defaults: `min_pixels`, `max_pixels` (area of one image),
            `patch_size`, `merge_size`, `temporal_patch_size` (must be the model's),
            `image_mean`, `image_std` (three each).

    Attributes:
        image_mean, image_std: The family's normalisation.

    Raises:
        ValueError: The tokenizer does not have the family's special tokens or splits a level word,
            or `preprocessing` does not fit the model.
    """

    fp16: ClassVar[bool] = False  # these families overflow
    tokenizer_class: ClassVar[Any] = Qwen2Tokenizer
    vision_name: ClassVar[str] = "visual"
    linear_names: ClassVar[tuple[str, ...]] = ("visual", "language_model")
    source_facts: ClassVar[tuple[str, ...]] = ("source_grid",)
    fused_facts: ClassVar[tuple[str, ...]] = ("grid",)
    chat_class: ClassVar[type[QwenChat]] = QwenChat
    image_mean: ClassVar[tuple[float, float, float]]
    image_std: ClassVar[tuple[float, float, float]]

    def __init__(
        self, model: Any, tokenizer: Any, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(model, tokenizer, preprocessing)
        self.chat = self.chat_class(tokenizer, model.config.image_token_id)

    def encode_sources(self, ir: Tensor, vis: Tensor) -> Encoded:
        """Run the vision tower on the sources.

        Returns:
            `ir`, `vis` (U, T, D), image tokens as the language model takes them; what else the
            family's tower gives, as `ir_...`; `source_grid` (U, 3), the patches of each image along
            time, height and width.
        """
        # One pass for both sources: the tower does not distinguish them.
        grid, found = self._image_features(torch.cat([ir, vis]))
        encoded = {"source_grid": grid[: len(ir)]}
        for suffix, features in found.items():
            encoded["ir" + suffix], encoded["vis" + suffix] = torch.split(features, len(ir))
        return encoded

    def encode_fused(self, sources: Encoded, fused: Tensor, pair: Tensor) -> Encoded:
        """Run the vision tower on fused images.

        Returns:
            The sources' encoding, and likewise `fused` (N, T, D), what else there is of it, and
            `grid` (N, 3); `pair` (N,), the source pair of each.
        """
        grid, found = self._image_features(fused)
        own = {"fused" + suffix: features for suffix, features in found.items()}
        return {**sources, **own, "grid": grid, "pair": pair}

    def pixels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Resize, normalise and cut into patches.

        Args:
            images: (N, 3, H, W) in [0, 1].

        Returns:
            Patches (N x patches, 3 x time x patch x patch), float32, and the grid (N, 3): patches
            of each image along time, height and width.
        """
        options = self.preprocessing
        patch, merge, time = (options[name] for name in FIXED_BY_MODEL)
        budget = {name: options[name] for name in ("min_pixels", "max_pixels")}
        size = fit_pixels(*images.shape[-2:], multiple=patch * merge, **budget)
        resized = resize(images, size)
        normal = [options["image_mean"], options["image_std"]]
        given = torch.tensor(normal, dtype=torch.float32)  # (2, 3)
        mean, std = to_device(given, resized.device)[..., None, None]  # (3, 1, 1) each
        patches = patchify((resized - mean) / std, patch, merge, time)
        sides = torch.tensor([1, size[0] // patch, size[1] // patch])
        grid = to_device(sides, images.device)
        return patches, grid.expand(len(images), -1)  # (N, 3)

    def _image_features(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, 3, H, W) -> their grids (B, 3), and what `_tower` makes of them."""
        patches, grid = self.pixels(images)
        each = len(patches) // len(grid)  # patches of an image
        step = self._rows_at_once(each * self.model.config.vision_config.intermediate_size)
        chunks = zip(
            torch.split(patches.to(self.dtype), step * each), torch.split(grid, step), strict=True
        )
        found = [self._tower(*chunk) for chunk in chunks]
        return grid, {suffix: torch.cat([part[suffix] for part in found]) for suffix in found[0]}

    def _tower(self, patches: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """Patches of B images -> features (B, ...) of the vision tower by suffix of their name."""
        found = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        return {"": found.pooler_output.unflatten(0, (len(grid), -1))}  # (B, T, D)

    def _source_positions(self, encoded: Encoded, length: int) -> Tensor:
        """(3, U, P) int64."""
        positions = self._positions(encoded["source_grid"], encoded["ir"].shape[1])
        return positions[..., :length]

    def _fused_positions(
        self, encoded: Encoded, before: int, stem: int, branches: Sequence[int]
    ) -> Tensor:
        """(3, N, L) int64."""
        positions = self._positions(encoded["grid"], encoded["fused"].shape[1])  # (3, N, ...)
        # Each question starts at the same position behind the image, as if it were alone.
        behind = positions[..., before + stem, None]  # (3, N, 1)
        places = [positions[..., before : before + stem]]
        places += [behind + torch.arange(length) for length in branches]
        return torch.cat(places, dim=-1)

    def _positions(self, grid: Tensor, tokens: int) -> Tensor:
        """The model's own positions of the prompt, to the first token after the images, on the CPU.

        Of the text behind it each token stands one further on all axes. On the CPU, because
        `get_rope_index` loops over single numbers. Each row has its own grid: encodings of one
        length may come from images of different shape.

        Args:
            grid: (B, 3) patches of an image along time, height and width.
            tokens: Of an image.

        Returns:
            (3, B, L) int64: along time, height and width.
        """
        behind = self.chat.questions[DEFAULT_ASPECT].branch_ids[0]
        ids = torch.tensor(
            self.chat.spread(
                [*self.chat.before, self.chat.image_id, behind], [tokens] * len(IMAGE_ORDER)
            )
        )
        grids, which = torch.unique(grid.cpu(), dim=0, return_inverse=True)
        positions: Tensor = self.model.model.get_rope_index(
            input_ids=ids.expand(len(grids), -1),  # (B, L)
            mm_token_type_ids=(ids == self.chat.image_id).int().expand(len(grids), -1),  # (B, L)
            image_grid_thw=grids.repeat_interleave(len(IMAGE_ORDER), dim=0),  # (3B, 3)
        )[0]
        return positions[:, which]

    @classmethod
    def _preprocessing(cls, config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        vision = config.vision_config
        token_area = (vision.patch_size * vision.spatial_merge_size) ** 2
        sizes = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        fixed = dict(zip(FIXED_BY_MODEL, sizes, strict=True))
        defaults = {
            "min_pixels": MIN_TOKENS * token_area,
            "max_pixels": MAX_TOKENS * token_area,
            "image_mean": list(cls.image_mean),
            "image_std": list(cls.image_std),
            **fixed,
        }
        if unknown := sorted(set(given) - set(defaults)):
            raise ValueError(f"Expected `preprocessing` of {', '.join(defaults)}, got {unknown}")
        chosen = {**defaults, **given}
        if wrong := {name: chosen[name] for name in fixed if chosen[name] != fixed[name]}:
            raise ValueError(f"Expected `preprocessing` with the model's {fixed}, got {wrong}")
        return chosen
