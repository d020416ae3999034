"""A FuScore inside another module, such as a training module, that must not store or train it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from fuscore_metric.checkpoints.weights import weights_name
from fuscore_metric.model import FuScore, ModelLike
from fuscore_metric.outputs import FuScoreOutput


class GuestModel(nn.Module):
    """Holds a model that its host should neither train, store nor copy.

    - It has no parameters, no buffers and an empty `state_dict`: a checkpoint of the host does not
      grow by the model, optimisers and DistributedDataParallel do not find it.
    - `copy.deepcopy` shares the model, which never changes. `pickle` carries it whole, so that the
      copy works where the original's files are not.
    - `.to(device)` of the host moves the model, for all who share it; that changes no score,
      because images are brought to where the model is. A change of dtype (`.half()`) passes it by:
      the dtype decides the scores and is chosen when loading.

    Args:
        model: A `FuScore`, or a name. What is named is loaded for this host alone, because it may
            move it.

    Raises:
        CheckpointError: No such weights.
        TypeError: It is not a model, a name or a path.
    """

    model: FuScore

    def __init__(self, model: ModelLike) -> None:
        super().__init__()
        if not isinstance(model, FuScore):
            model = FuScore.from_pretrained(weights_name(model))
        self.__dict__["model"] = model  # past nn.Module, which would make it a submodule

    def __repr__(self) -> str:
        return f"GuestModel({self.model!r})"

    def forward(
        self, ir: Tensor, vis: Tensor, fused: Tensor, *, aspects: Sequence[str]
    ) -> FuScoreOutput:
        """Score a batch wherever it is; the gradient reaches `fused` only.

        Args:
            ir: (N, 3, H, W) float in [0, 1], or one for all; no graph is built for it.
            vis: (N, 3, H, W), likewise.
            fused: (N, 3, H, W) float in [0, 1].
            aspects: A of `fuscore_metric.prompts.ASPECTS`.

        Returns:
            A `FuScoreOutput` of fields (N, A) on the model's device.

        Raises:
            InputError: A shape or dtype is wrong, or the three differ in shape.
        """
        device = self.model.device
        sources = (images.detach().to(device) for images in (ir, vis))
        output: FuScoreOutput = self.model(*sources, fused.to(device), aspects=aspects)
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the host to another device: what `.to()`, `.cuda()` and `.cpu()` come down to."""
        device = fn(torch.empty(0, device=self.model.device)).device
        if device != self.model.device:
            self.model.to(device)
        applied: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return applied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.model)] = self.model
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made
