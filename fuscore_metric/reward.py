"""(ir, vis, fused) from a fusion network -> reward (N,) or loss: what trains the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fuscore_metric.checkpoints.spec import EMBEDDED
from fuscore_metric.compute.own_terms import on_own_terms
from fuscore_metric.errors import InputError
from fuscore_metric.images.colour import recolour
from fuscore_metric.images.range_guard import RangeGuard
from fuscore_metric.integrations.guest import GuestModel
from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.model import FuScore, ModelLike
from fuscore_metric.prompts import DEFAULT_ASPECT, build_prompt
from fuscore_metric.trust_region import TrustRegion

GreyRule = Literal["recolour", "grey"]


class FuScoreReward(nn.Module):
    """FuScore as a reward for training fusion networks: higher is better.

    The gradient reaches `fused` only; sources and weights get none, and no graph is built for
    them. As a member of a network or a training module it adds no parameters and no state, stays
    in eval mode, keeps its dtype, and follows to another device. What the caller has set in PyTorch
    (autocast, default dtype and device) does not change the reward.

    A network trained on a metric alone learns to please it. Keep the usual loss beside it, and give
    a `TrustRegion`; watch measures that you do not train on.

    Args:
        model: "embedded", a directory or a hub id, whose weights are loaded for this
            reward; or a `FuScore`.
        aspects: An aspect of `fuscore_metric.prompts.ASPECTS`, or weights by aspect: the reward is
            then their weighted mean; the images are encoded once for all.
        trust_region: Charges for leaving what the sources allow; None for none.
        grey: What a one-channel `fused` is. "recolour": a luma (Y), scored with the chroma of
            `vis`, as it will be shown; "grey": a grey picture.

    Raises:
        CheckpointError: No such weights, or weights that this version cannot use.
        ValueError: An unknown aspect or rule, or weights that are negative or all zero.

    Example:
        >>> import torch
        >>> from fuscore_metric import FuScoreReward
        >>> from fuscore_metric import as_images
        >>> ir, vis = (as_images(f"{name}.png", name)[0][None] for name in ("ir", "vis"))
        >>> fused = ((ir + vis) / 2).requires_grad_()  # what your network returns
        >>> reward = FuScoreReward()
        >>> rewards = reward(ir, vis, fused)  # (N,), higher is better
        >>> (-rewards.mean()).backward()
        >>> fused.grad.shape
        torch.Size([1, 3, 480, 640])
    """

    higher_is_better = True
    is_differentiable = True

    def __init__(
        self,
        model: ModelLike = EMBEDDED,
        *,
        aspects: str | Mapping[str, float] = DEFAULT_ASPECT,
        trust_region: TrustRegion | None = None,
        grey: GreyRule = "recolour",
    ) -> None:
        super().__init__()
        self.weights = _aspect_weights(aspects)
        if grey not in get_args(GreyRule):
            raise ValueError(f"Expected `grey` in {', '.join(get_args(GreyRule))}, got {grey!r}")
        self.trust_region, self.grey = trust_region, grey
        self._ranges = RangeGuard()
        self.guest = GuestModel(model)

    @property
    def model(self) -> FuScore:
        """The model."""
        return self.guest.model

    def __repr__(self) -> str:
        return f"FuScoreReward({self._described()})"

    def _described(self) -> str:
        aspects = next(iter(self.weights)) if len(self.weights) == 1 else self.weights
        region = "" if self.trust_region is None else ", with a trust region"
        return f"{self.model!r}, {aspects}{region}"

    @on_own_terms
    def forward(
        self, ir: Tensor, vis: Tensor, fused: Tensor, *, reference: Tensor | None = None
    ) -> Tensor:
        """Score a batch of fusions.

        A network's overshoot is clipped as a display clips it, where the gradient of `fused` is 0.
        Another range than [0, 1] is refused: sources beyond it by more than 0.1, a `fused` of which
        more than 1 % lies beyond it by more than 0.5. On a GPU, which should not wait at every
        step, batches after the first are found wrong a call or more late.

        Args:
            ir: (N, 1, H, W) or (N, 3, H, W) float in [0, 1], on any device; or a single one
                for all of `fused`, several proposals for a scene: it is encoded once.
            vis: Likewise, as many as `ir`.
            fused: Likewise, N images; one channel is read as `grey` says.
            reference: Likewise, for the trust region: a fusion to stay near.

        Returns:
            (N,) float32 on the device of `fused`: scores in [1, 5], minus the charges of the trust
            region.

        Raises:
            InputError: A shape, dtype or range is wrong, or the images differ in shape.
            ValueError: A `reference` without a trust region.
            RuntimeError: Inside `torch.jit.trace` or `torch.export`.
        """
        if reference is not None and self.trust_region is None:
            raise ValueError("Expected `reference` only with a `trust_region`, which reads it")
        ir, vis, given = _rgb(ir, "ir"), _rgb(vis, "vis"), _rgb(fused, "fused")
        picture = self._picture(given, vis, "fused", grey=fused.shape[1] == 1)
        reward = self._score(ir, vis, picture).to(fused.device)
        if self.trust_region is None:
            return reward
        if reference is not None:
            given, grey = _rgb(reference, "reference"), reference.shape[1] == 1
            if given.shape != picture.shape:
                raise InputError(
                    "Expected `reference` with the batch, height and width of `fused` "
                    f"{tuple(picture.shape)}, got {tuple(given.shape)}"
                )
            given = given.to(fused.device)
            reference = self._picture(given, vis, "reference", grey=grey)
        sources = ir.to(fused.device), vis.to(fused.device)
        return reward - self.trust_region.penalty(*sources, picture, reference=reference)

    def _score(self, ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
        """(N,) weighted mean over the aspects."""
        output = self.guest(ir, vis, fused, aspects=tuple(self.weights))
        # No matrix product: autocast would narrow it in the backward pass.
        parts = [weight * output.of(aspect).score for aspect, weight in self.weights.items()]
        return torch.stack(parts).sum(0)

    def _picture(self, fused: Tensor, vis: Tensor, argument: str, *, grey: bool) -> Tensor:
        """The picture that a person would be shown: (N, 3, H, W) in [0, 1]."""
        self._ranges.check(fused, argument)
        shown = fused.float().clamp(0, 1)
        if not grey or self.grey == "grey":
            return shown
        if tuple(vis.shape) not in (tuple(shown.shape), (1, *shown.shape[1:])):
            raise InputError(
                f"Expected `vis` with the batch, height and width of `{argument}` "
                f"{tuple(shown.shape)}, or one for all, got {tuple(vis.shape)}"
            )
        return recolour(shown[:, :1], vis.detach().float().to(shown.device))


class FuScoreLoss(nn.Module):
    """The reward as a loss: mean((5 - reward) / 4), 0 for the best fusion and 1 for the worst.

    Takes the arguments of `FuScoreReward`. Charges of the trust region are in it, divided by 4
    like the score; they can lift it above 1.
    """

    higher_is_better = False
    is_differentiable = True

    def __init__(
        self,
        model: ModelLike = EMBEDDED,
        *,
        aspects: str | Mapping[str, float] = DEFAULT_ASPECT,
        trust_region: TrustRegion | None = None,
        grey: GreyRule = "recolour",
    ) -> None:
        super().__init__()
        self.reward = FuScoreReward(model, aspects=aspects, trust_region=trust_region, grey=grey)

    def __repr__(self) -> str:
        return f"FuScoreLoss({self.reward._described()})"

    def forward(
        self, ir: Tensor, vis: Tensor, fused: Tensor, *, reference: Tensor | None = None
    ) -> Tensor:
        """Take the arguments of `FuScoreReward.forward`; returns a scalar to minimise."""
        low, high = SCORE_RANGE
        reward = self.reward(ir, vis, fused, reference=reference)
        loss: Tensor = ((high - reward) / (high - low)).mean()
        return loss


def _aspect_weights(aspects: str | Mapping[str, float]) -> dict[str, float]:
    """Weights by aspect that sum to 1, those of weight 0 left out."""
    if not isinstance(aspects, (str, Mapping)):
        raise ValueError(f"Expected `aspects` as one aspect or weights by aspect, got {aspects!r}")
    given = {aspects: 1.0} if isinstance(aspects, str) else dict(aspects)
    for aspect, weight in given.items():
        build_prompt(aspect)  # refuses an unknown one
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(
                f"Expected weights in `aspects` to be finite and not negative, got {given}"
            )
    total = sum(given.values())
    if total == 0:
        raise ValueError(f"Expected `aspects` with a weight above 0, got {given}")
    return {aspect: weight / total for aspect, weight in given.items() if weight > 0}


def _rgb(images: Tensor, argument: str) -> Tensor:
    """(N, 1, H, W) or (N, 3, H, W) -> (N, 3, H, W); the rest is checked by the model."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"Expected `{argument}` as a torch tensor (N, 1, H, W) or (N, 3, H, W), "
            f"got {type(images).__name__}"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"Expected `{argument}` with shape (N, 1, H, W) or (N, 3, H, W), "
            f"got {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise InputError(f"Expected `{argument}` with a floating dtype, got {images.dtype}")
    return images.expand(-1, 3, -1, -1)
