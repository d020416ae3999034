"""What the Qwen-VL families share: images -> patches -> image tokens + chat -> level logits.

Native transformers classes and the family's own chat format; the pixels are ours, in torch.
Instruct models only: a "thinking" model does not answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from fuscore_metric.backbones.base import Backbone, Encoded
from fuscore_metric.checkpoint import CheckpointError
from fuscore_metric.images import fit_pixels, resize
from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, IMAGE_ORDER, Prompt, build_prompt

MIN_TOKENS = 64
MAX_TOKENS = 512
"""Default budget of one image, ours: 512 tokens are 634x634 pixels for patches of 14 (Qwen2.5-VL),
724x724 for 16 (Qwen3-VL). Fusion test sets are mostly 640x480; the families go far beyond."""

FIXED_BY_MODEL = ("patch_size", "merge_size", "temporal_patch_size")

IMAGE_TOKEN = "<|image_pad|>"
VISION = f"<|vision_start|>{IMAGE_TOKEN}<|vision_end|>"
ASSISTANT = "<|im_start|>assistant\n"
SPECIAL_TOKENS = (IMAGE_TOKEN, "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")


class Question(NamedTuple):
    """One aspect's whole prompt, with one image token for each image, and its level words."""

    prompt_ids: list[int]
    level_ids: tuple[int, ...]


class QwenVL(Backbone):
    """A Qwen vision-language model behind the interface of `Backbone`.

    Nothing is frozen and no gradient is stopped here: both are the caller's business. A LoRA on
    `lm_head` would be bypassed, because only five rows of its weight are read; merge it first.

    Args:
        model: An instance of `architecture`.
        tokenizer: Its transformers tokenizer.
        preprocessing: Over the defaults: `min_pixels`, `max_pixels` (area of one image),
            `patch_size`, `merge_size`, `temporal_patch_size` (must be the model's),
            `image_mean`, `image_std` (three each).

    Attributes:
        architecture: Native transformers class, `...ForConditionalGeneration`.
        image_mean, image_std: The family's normalisation.
        system: System turn that the family's chat template puts first by default; "" for none.

    Raises:
        ValueError: The tokenizer has not the family's special tokens or splits a level word, or
            `preprocessing` does not fit the model.
    """

    fp16: ClassVar[bool] = False  # these families overflow
    architecture: ClassVar[Any]
    image_mean: ClassVar[tuple[float, float, float]]
    image_std: ClassVar[tuple[float, float, float]]
    system: ClassVar[str] = ""
    model: Any

    def __init__(
        self, model: Any, tokenizer: Any, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.preprocessing = self._preprocessing(model.config.vision_config, preprocessing or {})
        self._check_special_tokens()
        self._questions = {aspect: self._question(build_prompt(aspect)) for aspect in ASPECTS}

    def encode(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Encoded:
        """Run the vision tower on all images of the batch at once.

        Returns:
            `ir`, `vis`, `fused` (N, T, D), image tokens as the language model takes them; what
            else the family's tower gives, as `ir_...`; `grid_thw` (N, 3), the patches of each of
            the three images along time, height and width.
        """
        patches, grid = self.pixels(torch.cat([ir, vis, fused]))
        encoded = {"grid_thw": grid[:1].expand(len(fused), -1)}  # (N, 3)
        for suffix, features in self._see(patches.to(self.dtype), grid).items():
            parts = torch.split(features, [len(ir), len(vis), len(fused)])
            for name, part in zip(IMAGE_ORDER, parts, strict=True):
                encoded[name + suffix] = part.expand(len(fused), *part.shape[1:])
        return encoded

    def level_logits(self, encoded: Encoded, aspect: str) -> Tensor:
        """Ask the language model for one aspect: (N, 5), float32 in every dtype of the weights."""
        question = self._questions[build_prompt(aspect).aspect]
        images = torch.cat([encoded[name] for name in IMAGE_ORDER], dim=1)  # (N, 3T, D)
        ids, is_image = self._spread(question.prompt_ids, images.shape[1])
        text = self.model.get_input_embeddings()(ids.to(images.device))  # (L, D)
        embeddings = text.expand(len(images), -1, -1).index_copy(
            1, is_image.nonzero().flatten().to(images.device), images
        )  # (N, L, D)
        read = self.model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=self._positions(ids, is_image, encoded["grid_thw"]).to(images.device),
            use_cache=False,
            **self._language_options(encoded, is_image.to(images.device)),
        )
        return self._five_rows(read.last_hidden_state[:, -1], question.level_ids)

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
        mean = resized.new_tensor(options["image_mean"]).view(-1, 1, 1)  # (3, 1, 1)
        std = resized.new_tensor(options["image_std"]).view(-1, 1, 1)  # (3, 1, 1)
        patches = patchify((resized - mean) / std, patch, merge, time)
        grid = torch.tensor([1, size[0] // patch, size[1] // patch], device=images.device)
        return patches, grid.expand(len(images), -1)  # (N, 3)

    def _see(self, patches: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """Patches of B images -> features (B, ...) of the vision tower by suffix of their name."""
        seen = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        return {"": seen.pooler_output.unflatten(0, (len(grid), -1))}  # (B, T, D)

    def _language_options(self, encoded: Encoded, is_image: Tensor) -> dict[str, Any]:
        """More arguments of the language model; `is_image` (L,) marks the image tokens."""
        del encoded, is_image
        return {}

    def _spread(self, prompt_ids: list[int], image_tokens: int) -> tuple[Tensor, Tensor]:
        """The prompt with room for all image tokens, and where: (L,) each, on the CPU."""
        ids = torch.tensor(prompt_ids)
        is_image = ids == self.model.config.image_token_id
        times = torch.where(is_image, image_tokens // len(IMAGE_ORDER), 1)
        return ids.repeat_interleave(times), is_image.repeat_interleave(times)  # (L,)

    def _positions(self, ids: Tensor, is_image: Tensor, grid: Tensor) -> Tensor:
        """The model's own three-axis positions: (3, N, L), on the CPU.

        There, because `get_rope_index` loops over single numbers. Each row has its own grid:
        encodings of one length may come from images of different shape.
        """
        positions: Tensor = self.model.model.get_rope_index(
            input_ids=ids.expand(len(grid), -1),  # (N, L)
            mm_token_type_ids=is_image.int().expand(len(grid), -1),  # (N, L)
            image_grid_thw=grid.cpu().repeat_interleave(len(IMAGE_ORDER), dim=0),  # (3N, 3)
        )[0]
        return positions

    def _five_rows(self, last: Tensor, level_ids: tuple[int, ...]) -> Tensor:
        """Last hidden states (N, D) -> level logits (N, 5).

        Never in less than float32: bfloat16 has steps of 0.125 near 20, where such logits lie.
        """
        wide = torch.promote_types(last.dtype, torch.float32)
        head, rows = self.model.lm_head, list(level_ids)
        bias = None if head.bias is None else head.bias[rows].to(wide)
        return F.linear(last.to(wide), head.weight[rows].to(wide), bias)

    def _question(self, prompt: Prompt) -> Question:
        text = self._chat(prompt) + prompt.answer_prefix
        # Special tokens separate: what stands before them cannot change the pieces after them.
        return Question(
            self.tokenizer.encode(text, add_special_tokens=False),
            level_token_ids(self.tokenizer, ASSISTANT + prompt.answer_prefix),
        )

    def _chat(self, prompt: Prompt) -> str:
        system = f"<|im_start|>system\n{self.system}<|im_end|>\n" if self.system else ""
        images = "".join(f"{label}{VISION}\n" for _, label in prompt.labels)
        return f"{system}<|im_start|>user\n{images}{prompt.question}<|im_end|>\n{ASSISTANT}"

    def _check_special_tokens(self) -> None:
        image_id = self.model.config.image_token_id
        for token in SPECIAL_TOKENS:
            ids = self.tokenizer.encode(token, add_special_tokens=False)
            if len(ids) != 1 or (token == IMAGE_TOKEN and ids != [image_id]):
                raise ValueError(
                    f"Expected a tokenizer of the family {self.family}, with {token!r} as one "
                    f"token ({IMAGE_TOKEN!r} as {image_id}), got {ids}"
                )

    @classmethod
    def _preprocessing(cls, vision: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given options over the defaults, checked against the model's vision config."""
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

    def save(self, directory: Path) -> None:
        """Write model and tokenizer in transformers' own format, weights as safetensors."""
        directory.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    @classmethod
    def load(
        cls, directory: Path, preprocessing: dict[str, Any], *, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Read what `save` wrote."""
        model, tokenizer = cls._read(str(directory), dtype, local_files_only=True)
        backbone = cls(model, tokenizer, preprocessing)
        # A default filled in here might be another one in a later version.
        if missing := sorted(set(backbone.preprocessing) - set(preprocessing)):
            raise CheckpointError(f"Expected `preprocessing` with {', '.join(missing)}")
        return backbone

    @classmethod
    def from_base(
        cls,
        name_or_path: str,
        *,
        preprocessing: Mapping[str, Any] | None = None,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        local_files_only: bool = False,
    ) -> Self:
        """Start from a plain model of the family: zero-shot, to be fine-tuned.

        Args:
            name_or_path: Directory or hub id of the base model.
            preprocessing: Over the defaults, such as another `max_pixels`.
            revision: Hub revision; pin a commit hash.
            dtype: Floating dtype of the weights.
            local_files_only: Never download.

        Raises:
            CheckpointError: Weights are missing, as when they are of another family.
        """
        source = {"revision": revision, "local_files_only": local_files_only}
        return cls(*cls._read(name_or_path, dtype, **source), preprocessing)

    @classmethod
    def _read(cls, name: str, dtype: torch.dtype, **source: Any) -> tuple[Any, Any]:
        """Model and tokenizer; never pickles, never code from the checkpoint."""
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **source)
        options = {"dtype": dtype, "use_safetensors": True, "attn_implementation": "sdpa"}
        model, info = cls.architecture.from_pretrained(
            name, output_loading_info=True, **options, **source
        )
        # transformers fills what it does not find with random numbers and only logs it.
        if missing := [*info["missing_keys"], *info["mismatched_keys"]]:
            raise CheckpointError(
                f"Expected weights of the family {cls.family} in {name!r}, "
                f"{len(missing)} are missing or misshapen, such as {missing[0]}"
            )
        return model, tokenizer


def patchify(images: Tensor, patch: int, merge: int, time: int) -> Tensor:
    """Cut images into flat patches in the order of Qwen's processors.

    The patches of one merge window (which become one token) follow each other; windows are in
    reading order. A still image is repeated to fill the frames of a patch.

    Args:
        images: (N, C, H, W), sides multiples of `patch * merge`.
        patch: Side of a patch, in pixels.
        merge: Side of a merge window, in patches.
        time: Frames in a patch.
    """
    count, channels, height, width = images.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    # (N, C, rows, merge, patch, columns, merge, patch)
    cut = images.reshape(count, channels, rows, merge, patch, columns, merge, patch)
    windows = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)  # (N, r, c, m, m, C, 1, p, p)
    frames = windows.expand(*[-1] * 6, time, -1, -1)  # (N, r, c, m, m, C, t, p, p)
    return frames.flatten(5).flatten(0, 4)  # (patches of all images, C x t x p x p)
