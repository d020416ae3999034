"""The one interface between FuScore and a model family: pixels + prompt -> level logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from fuscore_metric.backbones.prompt_tree import Prefix
from fuscore_metric.compute.own_terms import own_terms
from fuscore_metric.compute.placement import check_half
from fuscore_metric.errors import CheckpointError

INT8 = "int8"
QUANTIZE = ("4bit", "8bit", INT8)

Encoded = dict[str, Tensor]
"""A batch of triples as a backbone encodes it, before the question; the keys are the family's."""


def own_pairs(pairs: int, fused: int) -> Tensor:
    """The source pair of each fused image, where there is one pair for all or one for each.

    It is on the CPU, like every `pair` that a backbone is given.

    Raises:
        ValueError: There is neither one pair nor one for each.
    """
    if pairs not in (1, fused):
        raise ValueError(f"Expected one source pair, or one for each of {fused}, got {pairs}")
    return torch.arange(fused) * (pairs > 1)


def checked_pairs(pair: Tensor | None, count: int, fused: int) -> Tensor:
    """The source pair of each fused image, on the CPU.

    Args:
        pair: (N,) int64, or None for one pair for all or one for each.
        count: U, the number of source pairs.
        fused: N.

    Raises:
        ValueError: `pair` does not fit.
    """
    if pair is None:
        return own_pairs(count, fused)
    if pair.dtype != torch.int64 or tuple(pair.shape) != (fused,):
        raise ValueError(
            f"Expected `pair` as ({fused},) int64, got {tuple(pair.shape)} {pair.dtype}"
        )
    pair = pair.cpu()
    if not 0 <= int(pair.min()) <= int(pair.max()) < count:
        raise ValueError(f"Expected `pair` with values in [0, {count}), got {pair.tolist()}")
    return pair


def no_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Compute in the dtypes of the tensors, whatever the caller's autocast asks for."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return off


def in_its_dtype(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What `.to()` and its like do to a tensor, but for a change of its dtype."""

    def applied(tensor: Tensor) -> Tensor:
        found = fn(tensor)
        return found if found.dtype == tensor.dtype else tensor.to(found.device)

    return applied


class Backbone(nn.Module, ABC):
    """A multimodal LLM that reads ir, vis and fused and answers with a level word.

    The work is cut where training and scoring share it. The vision part encodes the sources
    (`encode_sources`), then the fused images (`encode_fused`); the language part reads the prompt
    up to `fused` (`read_sources`), then `fused` and the questions (`aspect_logits`). All four steps
    are differentiable with respect to the images.

    U source pairs have N fused images; `pair` (N,) holds the source pair of each.

    Attributes:
        family: Name in `fuscore.json`.
        fp16: Whether float16 is known to be safe for this family's activations.
        large: Whether `device_map`, `quantize` and adapters are for this family.
        preprocessing: Everything that defines the pixels-to-tokens path; JSON-ready.
    """

    family: ClassVar[str]
    fp16: ClassVar[bool] = False
    large: ClassVar[bool] = False
    preprocessing: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        # It is in a list, because the weights of a submodule would appear twice, under two names.
        self._adapters: list[Any] = []

    @property
    def adapter(self) -> Any:
        """The model as peft wraps it; None without an adapter."""
        return self._adapters[0] if self._adapters else None

    def hold_adapter(self, adapter: Any) -> None:
        """Remember peft's wrapper of a model that has an adapter already; None to forget it."""
        self._adapters[:] = [] if adapter is None else [adapter]

    @abstractmethod
    def encode_sources(self, ir: Tensor, vis: Tensor) -> Any:
        """Encode U source pairs for `encode_fused`; each family has its own form.

        Args:
            ir: (U, 3, H, W) in [0, 1].
            vis: Likewise.
        """

    @abstractmethod
    def encode_fused(self, sources: Any, fused: Tensor, pair: Tensor) -> Encoded:
        """Encode fused images beside their sources.

        Args:
            sources: What `encode_sources` returned; may be used again for other fused images.
            fused: (N, 3, H, W) in [0, 1].
            pair: (N,) int64 on the CPU: the source pair of each.
        """

    def encode(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Encoded:
        """Turn a batch of triples into image features.

        Args:
            ir: (N, 3, H, W) in [0, 1], or (1, 3, H, W): one for all, encoded once.
            vis: As many as `ir`.
            fused: (N, 3, H, W) in [0, 1].
        """
        pair = own_pairs(len(ir), len(fused))
        return self.encode_fused(self.encode_sources(ir, vis), fused, pair)

    @abstractmethod
    def read_sources(self, encoded: Encoded) -> Prefix:
        """Read the prompt up to the fused image: U rows of keys and values, for `aspect_logits`."""

    @abstractmethod
    def aspect_logits(
        self, encoded: Encoded, aspects: Sequence[str], prefix: Prefix | None = None
    ) -> Tensor:
        """Ask for several aspects: (N, A, 5) logits of the level words, worst first.

        The images are encoded once for all questions. Only the last position of each question, and
        only five rows of the vocabulary head, are computed.

        Args:
            encoded: What `encode` or `encode_fused` returned.
            aspects: A of `prompts.ASPECTS`.
            prefix: What `read_sources` returned for the same source pairs; computed anew if None.

        Raises:
            ValueError: An unknown aspect.
        """

    def level_logits(self, encoded: Encoded, aspect: str) -> Tensor:
        """Ask for one aspect: (N, 5)."""
        return self.aspect_logits(encoded, (aspect,))[:, 0]

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write weights (safetensors), architecture and tokenizer; not `fuscore.json`."""

    @classmethod
    @abstractmethod
    def load(
        cls,
        directory: Path,
        preprocessing: dict[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        quantize: str | None = None,
    ) -> Self:
        """Read what `save` wrote.

        Args:
            directory: Folder with the checkpoint.
            preprocessing: The `preprocessing` object of its `fuscore.json`.
            dtype: Floating dtype of the weights.
            device_map: Where the parts of a big model go, as accelerate understands it.
            quantize: One of `QUANTIZE`, for big models. `INT8` is left to `quantize_linear`.
        """

    @classmethod
    def check_options(
        cls, *, device_map: str | dict[str, Any] | None, quantize: str | None
    ) -> None:
        """Refuse options of `load` that this family does not have.

        Raises:
            ValueError: A small family was asked to spread or quantise, or in an unknown way.
        """
        if not cls.large and (device_map is not None or quantize is not None):
            raise ValueError(f"Expected no `device_map` or `quantize` for family {cls.family}")
        if quantize not in (None, *QUANTIZE):
            names = ", ".join(QUANTIZE)
            raise ValueError(f"Expected `quantize` to be one of {names}, got {quantize!r}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Change dtype or device: what `.to()`, `.half()` and `.cuda()` come down to.

        Buffers keep their dtype, as when loading in another one: means, spreads and rotary
        frequencies, from which small differences are taken.

        Raises:
            CheckpointError: float16 for a family whose activations overflow in it.
        """
        keep = in_its_dtype(fn)

        def applied(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                return keep(tensor)
            found = fn(tensor)
            if found.dtype != tensor.dtype:
                check_half(found.dtype, type(self))
            return found

        with own_terms():
            moved: Self = super()._apply(applied, recurse)  # type: ignore[no-untyped-call]
        return moved

    @property
    def differentiable(self) -> bool:
        """Whether gradients pass through the weights as they are."""
        return True

    def quantize_linear(self) -> None:
        """Bring the linear layers to 8 bits, in place, for a CPU: faster, without gradients.

        Raises:
            ValueError: This family has no 8-bit layers.
        """
        raise ValueError(f"Expected no `quantize` for family {self.family}")

    def compile_parts(self) -> None:
        """Have `torch.compile` speed up what it can, in place; the first batches take longer."""

    def add_adapter(self, directory: Path) -> None:
        """Put an adapter into the model.

        Raises:
            CheckpointError: This family has no adapters, or the adapter does not fit.
        """
        raise CheckpointError(
            f"Expected whole weights for family {self.family}, got an adapter in {str(directory)!r}"
        )

    def merge_adapter(self) -> None:
        """Add the adapter to the weights and forget it.

        Raises:
            ValueError: There is no adapter.
        """
        raise ValueError("Expected a model with an adapter to merge, got one without")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return next(self.parameters()).dtype
