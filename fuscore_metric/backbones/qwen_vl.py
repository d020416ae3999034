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

from fuscore_metric.backbones.base import Backbone, Encoded, no_autocast
from fuscore_metric.backbones.patches import patchify
from fuscore_metric.backbones.pretrained import (
    bars_on_terminals,
    load_adapter,
    present,
    read_pretrained,
    save_adapter,
)
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
    large: ClassVar[bool] = True
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
        images = images.to(text.device)  # parts of a big model may be on different devices
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
        # Training may run under autocast, which would narrow the product again.
        with present(head), no_autocast(last.device):
            weight = head.weight[rows].to(last.device, wide)
            bias = None if head.bias is None else head.bias[rows].to(last.device, wide)
            return F.linear(last.to(wide), weight, bias)

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

    @property
    def device(self) -> torch.device:
        """Where images go in; the main device of a model on several."""
        hook = getattr(self.model, "_hf_hook", None)
        found = getattr(hook, "execution_device", None)
        return self.model.device if found is None else torch.device(found)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights, also where most are quantised."""
        found: torch.dtype = self.model.dtype
        return found

    @property
    def layer_classes(self) -> list[str]:
        """Names of the classes whose instances must stay in one piece, for what splits models."""
        return sorted(self.model._no_split_modules)

    def add_adapter(self, directory: Path) -> None:
        """Put a LoRA adapter into the model; see `pretrained.load_adapter` for what it raises."""
        self.hold_adapter(load_adapter(self.model, directory))
        self.eval()

    def merge_adapter(self) -> None:
        """Add the adapter to the weights and forget it.

        Raises:
            ValueError: There is no adapter, or the weights are quantised.
        """
        if self.adapter is None:
            raise ValueError("Expected a model with an adapter to merge, got one without")
        self._check_not_quantised("merge into")
        self.model = self.adapter.merge_and_unload()
        self.hold_adapter(None)

    def save(self, directory: Path) -> None:
        """Write model and tokenizer in transformers' own format, weights as safetensors.

        Of a model with an adapter, the adapter alone.

        Raises:
            ValueError: The weights are quantised: they cannot be written back as they were.
        """
        if self.adapter is not None:
            save_adapter(self.adapter, directory)
            return
        self._check_not_quantised("save")
        directory.mkdir(parents=True, exist_ok=True)
        with bars_on_terminals():
            self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def _check_not_quantised(self, what: str) -> None:
        if getattr(self.model, "is_quantized", False):
            raise ValueError(f"Expected whole weights to {what}, got quantised ones")

    @classmethod
    def load(
        cls,
        directory: Path,
        preprocessing: dict[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        quantize: str | None = None,
    ) -> Self:
        """Read what `save` wrote, or the base model of an adapter."""
        model, tokenizer = read_pretrained(
            cls.architecture, directory, dtype=dtype, device_map=device_map, quantize=quantize
        )
        backbone = cls(model, tokenizer, preprocessing)
        # A default filled in here might be another one in a later version.
        if missing := sorted(set(backbone.preprocessing) - set(preprocessing)):
            raise CheckpointError(f"Expected `preprocessing` with {', '.join(missing)}")
        return backbone

    @classmethod
    def from_base(
        cls,
        directory: str | Path,
        *,
        preprocessing: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Start from a plain model of the family: zero-shot, to be fine-tuned.

        Args:
            directory: Folder of the base model; `fuscore_metric.locate.locate` gets one of the hub.
            preprocessing: Over the defaults, such as another `max_pixels`.
            dtype: Floating dtype of the weights.

        Raises:
            CheckpointError: Weights are missing, as when they are of another family.
        """
        model, tokenizer = read_pretrained(cls.architecture, directory, dtype=dtype)
        return cls(model, tokenizer, preprocessing)
