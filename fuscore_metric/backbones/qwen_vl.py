"""What the Qwen-VL families share: images -> patches -> image tokens + chat -> level logits.

Native transformers classes and the family's own chat format; the pixels are ours, in torch.
Instruct models only: a "thinking" model does not answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from fuscore_metric.backbones.base import INT8, Backbone, Encoded, no_autocast
from fuscore_metric.backbones.patches import patchify
from fuscore_metric.backbones.pretrained import (
    bars_on_terminals,
    load_adapter,
    present,
    read_pretrained,
    save_adapter,
    to_int8,
)
from fuscore_metric.backbones.prompt_tree import (
    Prefix,
    branch_ends,
    joined,
    read_behind,
    read_prefix,
    rows,
    tree_mask,
)
from fuscore_metric.backbones.qwen_chat import Question, QwenChat
from fuscore_metric.checkpoint import CheckpointError
from fuscore_metric.images import fit_pixels, resize
from fuscore_metric.placement import to_device
from fuscore_metric.prompts import (
    DEFAULT_ASPECT,
    IMAGE_ORDER,
    ImageName,
    build_prompt,
)

MIN_TOKENS = 64
MAX_TOKENS = 512
"""Default budget of one image, ours: 512 tokens are 634x634 pixels for patches of 14 (Qwen2.5-VL),
724x724 for 16 (Qwen3-VL). Fusion test sets are mostly 640x480; the families go far beyond."""

FIXED_BY_MODEL = ("patch_size", "merge_size", "temporal_patch_size")

CHUNK_BYTES = 32 * 2**20
"""Largest activation on a CPU; glibc maps larger blocks anew each time."""


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
        self._int8 = False
        self.preprocessing = self._preprocessing(model.config.vision_config, preprocessing or {})
        self.chat = QwenChat(tokenizer, model.config.image_token_id, self.system)

    def encode_sources(self, ir: Tensor, vis: Tensor) -> Encoded:
        """Run the vision tower on the sources.

        Returns:
            `ir`, `vis` (U, T, D), image tokens as the language model takes them; what else the
            family's tower gives, as `ir_...`; `source_grid` (U, 3), the patches of each image along
            time, height and width.
        """
        grid, seen = self._look(torch.cat([ir, vis]))
        encoded = {"source_grid": grid[: len(ir)]}
        for suffix, features in seen.items():
            encoded["ir" + suffix], encoded["vis" + suffix] = torch.split(features, len(ir))
        return encoded

    def encode_fused(self, sources: Encoded, fused: Tensor, pair: Tensor) -> Encoded:
        """Run the vision tower on fused images.

        Returns:
            The sources' encoding, and likewise `fused` (N, T, D), what else there is of it, and
            `grid` (N, 3); `pair` (N,), the source pair of each.
        """
        grid, seen = self._look(fused)
        own = {"fused" + suffix: features for suffix, features in seen.items()}
        return {**sources, **own, "grid": grid, "pair": pair}

    def read_sources(self, encoded: Encoded) -> Prefix:
        """Read the chat up to the fused image: U rows of keys and values."""
        names: tuple[ImageName, ...] = ("ir", "vis")
        length = len(self.chat.before) + 2 * encoded["ir"].shape[1]
        parts = self._parts(encoded, (*names, "source_grid"), length)
        return joined([self._read_sources(part, names) for part in parts])

    def _read_sources(self, encoded: Encoded, names: Sequence[ImageName]) -> Prefix:
        embeddings, is_image = self._embed(encoded, names, self.chat.before)  # (U, P, D), (P,)
        positions = self._positions(encoded["source_grid"], encoded["ir"].shape[1])
        return read_prefix(
            self.model.model.language_model,
            inputs_embeds=embeddings,
            position_ids=to_device(positions[..., : len(is_image)], embeddings.device),
            **self._language_options(encoded, names, is_image),
        )

    def aspect_logits(
        self, encoded: Encoded, aspects: Sequence[str], prefix: Prefix | None = None
    ) -> Tensor:
        """Ask the language model: (N, A, 5), float32 in every dtype of the weights."""
        questions = [self.chat.questions[build_prompt(aspect).aspect] for aspect in aspects]
        names: tuple[ImageName, ...] = ("fused",)
        if prefix is None and self._without_cache:
            # The sources stand before each fused image, in the same sequence.
            encoded, names, prefix = self._repeat_sources(encoded), IMAGE_ORDER, []
        elif prefix is None:
            prefix = self.read_sources(encoded)
        length = len(names) * encoded["fused"].shape[1] + sum(len(q.branch_ids) for q in questions)
        parts = self._parts(encoded, (*names, "grid", "pair"), length)
        states = [self._ask(part, names, questions, prefix) for part in parts]
        return self._five_rows(torch.cat(states), torch.tensor([q.level_ids for q in questions]))

    def _ask(
        self,
        encoded: Encoded,
        names: Sequence[ImageName],
        questions: Sequence[Question],
        prefix: Prefix,
    ) -> Tensor:
        """Last hidden states (N, A, D) of each question, behind the images `names`."""
        chat = [self.chat.image_id] if prefix else [*self.chat.before, self.chat.image_id]
        images, is_image = self._embed(encoded, names, chat)  # (N, S, D), (S,)
        texts = [self._text(question.branch_ids, images) for question in questions]
        stem, lengths = len(is_image), [text.shape[1] for text in texts]
        before = prefix[0][0].shape[2] if prefix else 0
        positions = self._positions(encoded["grid"], encoded["fused"].shape[1])  # (3, N, ...)
        behind = positions[..., before + stem, None]  # (3, N, 1)
        places = [positions[..., before : before + stem]]
        places += [behind + torch.arange(length) for length in lengths]
        states = read_behind(
            self.model.model.language_model,
            prefix,
            encoded["pair"],
            inputs_embeds=torch.cat([images, *texts], dim=1),  # (N, L, D)
            attention_mask=tree_mask(before, stem, lengths, images),
            position_ids=to_device(torch.cat(places, dim=-1), images.device),
            **self._language_options(encoded, names, F.pad(is_image, (0, sum(lengths)))),
        )
        return branch_ends(states, stem, lengths)

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

    def _look(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, 3, H, W) -> their grids (B, 3), and what `_see` makes of them."""
        patches, grid = self.pixels(images)
        each = len(patches) // len(grid)  # patches of an image
        step = self._rows_at_once(each * self.model.config.vision_config.intermediate_size)
        chunks = zip(
            torch.split(patches.to(self.dtype), step * each), torch.split(grid, step), strict=True
        )
        seen = [self._see(*chunk) for chunk in chunks]
        return grid, {suffix: torch.cat([part[suffix] for part in seen]) for suffix in seen[0]}

    def _rows_at_once(self, numbers: int) -> int:
        """How many rows to compute together, if an activation of one has so many numbers.

        On a CPU few, so that activations stay in its cache and below the size from which glibc maps
        new memory for each, which is slower than the arithmetic; elsewhere all.
        """
        if self.device.type != "cpu":
            return 2**31
        return max(1, CHUNK_BYTES // (numbers * self.dtype.itemsize))

    def _parts(self, encoded: Encoded, names: Sequence[str], length: int) -> list[Encoded]:
        """Rows of an encoding in pieces for the language model.

        Args:
            encoded: Everything.
            names: What is cut; `ir` stands for `ir_...` too. The rest is left out.
            length: Tokens of a row.
        """
        width = self.model.config.text_config.intermediate_size
        step = self._rows_at_once(length * width)
        stems = tuple(f"{name}_" for name in IMAGE_ORDER if name in names)
        chosen = {k: v for k, v in encoded.items() if k in names or k.startswith(stems)}
        pieces = {name: torch.split(tensor, step) for name, tensor in chosen.items()}
        return [dict(zip(pieces, part, strict=True)) for part in zip(*pieces.values(), strict=True)]

    def _see(self, patches: Tensor, grid: Tensor) -> dict[str, Tensor]:
        """Patches of B images -> features (B, ...) of the vision tower by suffix of their name."""
        seen = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        return {"": seen.pooler_output.unflatten(0, (len(grid), -1))}  # (B, T, D)

    def _language_options(
        self, encoded: Encoded, names: Sequence[ImageName], is_image: Tensor
    ) -> dict[str, Any]:
        """More arguments of the language model; `is_image` (L,) marks the tokens of `names`."""
        del encoded, names, is_image
        return {}

    @property
    def _without_cache(self) -> bool:
        """Whether layers will be computed again in the backward pass: then nothing can be kept."""
        layer = self.model.model.language_model.layers[0]
        again: bool = layer.gradient_checkpointing and layer.training
        return again

    def _repeat_sources(self, encoded: Encoded) -> Encoded:
        sources = [name for name in encoded if name.startswith(("ir", "vis"))]
        return encoded | {name: rows(encoded[name], encoded["pair"]) for name in sources}

    def _embed(
        self, encoded: Encoded, names: Sequence[ImageName], ids: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Chat with one image token for each image -> embeddings with all of them.

        Returns:
            (B, L, D), and on the CPU (L,) where image tokens are.
        """
        images = torch.cat([encoded[name] for name in names], dim=1)  # (B, K T, D)
        spread = self.chat.spread(ids, images.shape[1] // len(names))  # (L,)
        text = self._text(spread, images)
        images = images.to(text.device)  # parts of a big model may be on different devices
        is_image = torch.tensor(spread) == self.chat.image_id
        places = to_device(is_image.nonzero().flatten(), text.device)
        return text.index_copy(1, places, images), is_image

    def _text(self, ids: list[int], like: Tensor) -> Tensor:
        """Embeddings of tokens, for each row of `like`: (B, L, D)."""
        embedding = self.model.get_input_embeddings()
        embedded: Tensor = embedding(to_device(torch.tensor(ids), like.device))
        return embedded.expand(len(like), -1, -1)

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
            self.chat.spread([*self.chat.before, self.chat.image_id, behind], tokens)
        )
        grids, which = torch.unique(grid.cpu(), dim=0, return_inverse=True)
        positions: Tensor = self.model.model.get_rope_index(
            input_ids=ids.expand(len(grids), -1),  # (B, L)
            mm_token_type_ids=(ids == self.chat.image_id).int().expand(len(grids), -1),  # (B, L)
            image_grid_thw=grids.repeat_interleave(len(IMAGE_ORDER), dim=0),  # (3B, 3)
        )[0]
        return positions[:, which]

    def _five_rows(self, last: Tensor, level_ids: Tensor) -> Tensor:
        """Last hidden states (N, A, D) and the level words' ids (A, 5) -> level logits (N, A, 5).

        Never in less than float32: bfloat16 has steps of 0.125 near 20, where such logits lie.
        """
        wide = torch.promote_types(last.dtype, torch.float32)
        head = self.model.lm_head
        # Training may run under autocast, which would narrow the product again.
        with present(head), no_autocast(last.device):
            ids = to_device(level_ids, head.weight.device)
            weight = head.weight[ids].to(last.device, wide)  # (A, 5, D)
            logits = torch.einsum("nad,ald->nal", last.to(wide), weight)
            return logits if head.bias is None else logits + head.bias[ids].to(logits)

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
        return self._embedding.device if found is None else torch.device(found)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights, also where most are quantised."""
        return self._embedding.dtype

    @property
    def _embedding(self) -> Tensor:
        """Weights that nothing quantises; replicas of `nn.DataParallel` have no parameters."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def layer_classes(self) -> list[str]:
        """Names of the classes whose instances must stay in one piece, for what splits models."""
        return sorted(self.model._no_split_modules)

    @property
    def differentiable(self) -> bool:
        """Whether gradients pass through the weights: not through 8-bit linear layers."""
        return not self._int8

    def quantize_linear(self) -> None:
        """Bring the linear layers of both parts to 8 bits, in place; an adapter is merged first.

        The five rows of the head stay as they are.

        Raises:
            ValueError: The weights are not in float32.
            MissingPackageError: This PyTorch cannot.
        """
        if self.dtype != torch.float32:
            raise ValueError(f"Expected `quantize='int8'` of float32 weights, got {self.dtype}")
        if self.adapter is not None:
            self.merge_adapter()
        inner = self.model.model
        inner.visual, inner.language_model = map(to_int8, (inner.visual, inner.language_model))
        self._int8 = True

    def compile_parts(self) -> None:
        """Compile the layers of both parts, but for attention with its growing cache."""
        for block in self.model.model.visual.blocks:
            block.compile(dynamic=True)
        for layer in self.model.model.language_model.layers:
            for part in (layer.input_layernorm, layer.post_attention_layernorm, layer.mlp):
                part.compile(dynamic=True)

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
        if self._int8 or getattr(self.model, "is_quantized", False):
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
            cls.architecture,
            directory,
            dtype=dtype,
            device_map=device_map,
            quantize=None if quantize == INT8 else quantize,
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
