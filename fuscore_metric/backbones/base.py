"""The one interface between FuScore and a model family: pixels + prompt -> level logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

Encoded = dict[str, Tensor]
"""What a backbone makes of a batch of triples before the question; its contents are its own."""


class Backbone(nn.Module, ABC):
    """A multimodal LLM that reads ir, vis and fused and answers with a level word.

    The work is cut where training and scoring want to share it: `encode` does all that does not
    depend on the question, `level_logits` asks. Both are differentiable with respect to the images.

    Attributes:
        family: Name in `fuscore.json`.
        fp16: Whether float16 is known to be safe for this family's activations.
        preprocessing: Everything that defines the pixels-to-tokens path; JSON-ready.
    """

    family: ClassVar[str]
    fp16: ClassVar[bool] = False
    preprocessing: dict[str, Any]

    @abstractmethod
    def encode(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Encoded:
        """Turn a batch of triples into image features.

        Args:
            ir: (N, 3, H, W) in [0, 1], or (1, 3, H, W): one for all, encoded once.
            vis: As many as `ir`.
            fused: (N, 3, H, W) in [0, 1].
        """

    @abstractmethod
    def level_logits(self, encoded: Encoded, aspect: str) -> Tensor:
        """Ask for one aspect: (N, 5) logits of the level words, worst first.

        Only the last position, and only five rows of the vocabulary head, are computed.
        """

    def aspect_logits(self, encoded: Encoded, aspects: Sequence[str]) -> Tensor:
        """Ask for several aspects of the same images: (N, A, 5), in the order of `aspects`.

        A family overrides this where it can read the images once for all questions.
        """
        return torch.stack([self.level_logits(encoded, aspect) for aspect in aspects], dim=1)

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write weights (safetensors), architecture and tokenizer; `fuscore.json` is not ours."""

    @classmethod
    @abstractmethod
    def load(
        cls, directory: Path, preprocessing: dict[str, Any], *, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Read what `save` wrote.

        Args:
            directory: Folder with the checkpoint.
            preprocessing: The `preprocessing` object of its `fuscore.json`.
            dtype: Floating dtype of the weights.
        """

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return next(self.parameters()).dtype
