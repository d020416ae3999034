"""FuScore as a torchmetrics metric: batches of (fused, sources) -> the mean score, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.errors import InputError
from fuscore_metric.images.convert import ImagesLike
from fuscore_metric.integrations.guest import GuestModel
from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.model import ModelLike
from fuscore_metric.prompts import DEFAULT_ASPECT, build_prompt
from fuscore_metric.scoring import DEFAULT_BATCH_SIZE, predict

Reduction = Literal["mean", "none"]


class FuScoreMetric(Metric):
    """Mean FuScore over all triples of all updates, on any number of processes.

    As input to `forward` and `update`:

    - `preds`: fused image(s).
    - `ir`, `vis`: by keyword, the source images of each. `target` is then what other metrics of a
      `MetricCollection` compare `preds` with, and is ignored:
      `collection(preds, target, ir=ir, vis=vis)`.
    - Or `target`: a dictionary with `ir` and `vis`.

    Images in any form that `fuscore_metric.score` takes: tensors (N, C, H, W) or (C, H, W) with
    C = 1 or 3, floats in [0, 1] or 8 bits; paths, PIL images, arrays, or lists. What `forward`
    returns for a batch carries the gradient to `preds`; the accumulated value does not.

    Clones share the model. It is not in the `state_dict`, keeps its dtype, and follows to
    another device.

    Args:
        model: "embedded", a directory or a hub id, whose weights are loaded for this
            metric; or a `FuScore`.
        aspect: One of `fuscore_metric.prompts.ASPECTS`.
        reduction: "mean" of all scores, a scalar; or "none", all of them (N,), in the order of
            the updates, process after process.
        batch_size: Triples computed at once.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: An unknown aspect or reduction; several aspects have no single value.
        CheckpointError: No such weights.
    """

    is_differentiable = True
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = SCORE_RANGE[0]
    plot_upper_bound = SCORE_RANGE[1]

    score_sum: Tensor
    total: Tensor
    scores: list[Tensor] | Tensor

    def __init__(
        self,
        model: ModelLike = EMBEDDED,
        *,
        aspect: str = DEFAULT_ASPECT,
        reduction: Reduction = "mean",
        batch_size: int = DEFAULT_BATCH_SIZE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        build_prompt(aspect)
        if reduction not in get_args(Reduction):
            expected = ", ".join(get_args(Reduction))
            raise ValueError(f"Expected `reduction` in {expected}, got {reduction!r}")
        self.aspect, self.reduction, self.batch_size = aspect, reduction, batch_size
        self.guest = GuestModel(model)
        if reduction == "mean":
            # float64: a sum of many scores loses digits in float32.
            zero = torch.tensor(0.0, dtype=torch.float64)
            self.add_state("score_sum", zero, dist_reduce_fx="sum")
            self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        else:
            self.add_state("scores", [], dist_reduce_fx="cat")

    def __repr__(self) -> str:
        return f"FuScoreMetric({self.guest.model!r}, {self.aspect}, {self.reduction})"

    def update(
        self,
        preds: ImagesLike,
        target: Any = None,
        *,
        ir: ImagesLike | None = None,
        vis: ImagesLike | None = None,
    ) -> None:
        """Score a batch and add it to the state.

        Args:
            preds: N fused images.
            target: A dictionary of `ir` and `vis`, N images each; or anything, if those are given.
            ir: N infrared images.
            vis: N visible images.

        Raises:
            InputError: A source is missing or given twice, or an image cannot be used.
        """
        ir, vis = (_detached(images) for images in _sources(target, ir, vis))
        scores = predict(
            ir,
            vis,
            preds,
            model=self.guest.model,
            aspect=self.aspect,
            batch_size=self.batch_size,
        ).score.to(self.device)
        if self.reduction == "none":
            cast("list[Tensor]", self.scores).append(scores)
        else:
            self.score_sum = self.score_sum + scores.double().sum()
            self.total = self.total + len(scores)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Add a batch, as `update`, and return its own value, as `compute`: differentiable."""
        value: Tensor = super().forward(*args, **kwargs)
        # What is kept must not hold the batch's graph: memory would grow, and clones would fail.
        self._forward_cache = value.detach()  # type: ignore[assignment]
        if self.reduction == "none":
            self.scores = [scores.detach() for scores in self.scores]
        return value

    def compute(self) -> Tensor:
        """Return the scores so far as `reduction` asks: a scalar, or (N,); float32."""
        if self.reduction == "none":
            if isinstance(self.scores, list) and not self.scores:
                return torch.empty(0, dtype=torch.float32, device=self.device)
            return dim_zero_cat(self.scores)  # gathered from several processes it is a tensor
        return (self.score_sum / self.total).float()

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None
    ) -> _PLOT_OUT_TYPE:
        """Plot one value, or several over steps, between 1 and 5.

        Args:
            val: What `forward` or `compute` returned, or a list of that; the current value by
                default.
            ax: A matplotlib axis to draw on.

        Returns:
            A matplotlib figure and axis.
        """
        return self._plot(val, ax)


def _sources(
    target: Any, ir: ImagesLike | None, vis: ImagesLike | None
) -> tuple[ImagesLike, ImagesLike]:
    if ir is not None or vis is not None:
        if ir is None or vis is None:
            missing = "ir" if ir is None else "vis"
            raise InputError(f"Expected both `ir` and `vis` by keyword, got no `{missing}`")
        if isinstance(target, Mapping) and target.keys() & {"ir", "vis"}:
            raise InputError("Expected `ir` and `vis` once, got them in `target` and by keyword")
        return ir, vis
    if not isinstance(target, Mapping):
        raise InputError(
            "Expected `ir` and `vis` by keyword, or `target` as a dictionary with `ir` and `vis`, "
            f"got {type(target).__name__}"
        )
    if set(target) != {"ir", "vis"}:
        keys = ", ".join(sorted(map(str, target))) or "nothing"
        raise InputError(f"Expected `target` with the keys `ir` and `vis`, got {keys}")
    return target["ir"], target["vis"]


def _detached(images: ImagesLike) -> ImagesLike:
    return images.detach() if isinstance(images, Tensor) else images
