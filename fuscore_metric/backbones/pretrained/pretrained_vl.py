"""A pretrained vision-language model of transformers: loading, adapters, quantising, saving."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from typing_extensions import Self

from fuscore_metric.backbones.base import INT8, Backbone
from fuscore_metric.backbones.pretrained.reading import (
    bars_on_terminals,
    load_adapter,
    read_pretrained,
    save_adapter,
    to_int8,
)
from fuscore_metric.errors import CheckpointError


class PretrainedVL(Backbone):
    """A big backbone around a model and a tokenizer of transformers.

    Args:
        model: An instance of `architecture`.
        tokenizer: Its transformers tokenizer.
        preprocessing: Over the family's defaults.

    Attributes:
        architecture: Native transformers class, `...ForConditionalGeneration`.
        tokenizer_class: Its tokenizer's class, which reads `tokenizer.json` or plain text.
        vision_name: Name of the vision tower in `model.model`.
        linear_names: Parts of `model.model` whose linear layers `int8` brings to 8 bits.
        projector_names: Parts of `model` that bring images into the language model, and that are
            small: where they are trained in full beside a LoRA, they go with the adapter.
    """

    large: ClassVar[bool] = True
    architecture: ClassVar[Any]
    tokenizer_class: ClassVar[Any]
    vision_name: ClassVar[str]
    linear_names: ClassVar[tuple[str, ...]]
    projector_names: ClassVar[tuple[str, ...]] = ()
    model: Any

    def __init__(
        self, model: Any, tokenizer: Any, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self._int8 = False
        self.preprocessing = self._preprocessing(model.config, preprocessing or {})

    @classmethod
    @abstractmethod
    def _preprocessing(cls, config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given options over the defaults, checked against the model's config."""

    @property
    def vision_tower(self) -> nn.Module:
        """The part of the model that sees images."""
        tower: nn.Module = getattr(self.model.model, self.vision_name)
        return tower

    @property
    def device(self) -> torch.device:
        """Where images go in: the main device of a model that is spread over several."""
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
            MissingPackageError: This PyTorch cannot compute in 8 bits.
        """
        if self.dtype != torch.float32:
            raise ValueError(f"Expected `quantize='int8'` of float32 weights, got {self.dtype}")
        if self.adapter is not None:
            self.merge_adapter()
        inner = self.model.model
        for name in self.linear_names:
            setattr(inner, name, to_int8(getattr(inner, name)))
        self._int8 = True

    def compile_parts(self) -> None:
        """Compile the layers of both parts, but for attention with its growing cache."""
        for block in self.vision_tower.modules():
            if isinstance(block, GradientCheckpointingLayer):
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
        # The vision tower is a small part of the memory, a score depends on the details in it, and
        # its widths do not suit the CPU kernels.
        model, tokenizer = read_pretrained(
            cls.architecture,
            cls.tokenizer_class,
            directory,
            dtype=dtype,
            device_map=device_map,
            quantize=None if quantize == INT8 else quantize,
            unquantized=[f"model.{cls.vision_name}", *cls.projector_names],
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
            directory: Folder of the base model; `checkpoints.locate.locate` gets one of the hub.
            preprocessing: Over the defaults, such as another `max_pixels`.
            dtype: Floating dtype of the weights.

        Raises:
            CheckpointError: Weights are missing, as when they are of another family.
        """
        model, tokenizer = read_pretrained(
            cls.architecture, cls.tokenizer_class, directory, dtype=dtype
        )
        return cls(model, tokenizer, preprocessing)
