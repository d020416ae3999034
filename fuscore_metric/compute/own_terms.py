"""Whatever a caller has set in PyTorch -> FuScore computes the same, forwards and backwards.

Autocast, inference mode, the default dtype and the default device belong to the caller's network.
A metric that followed them would give the same picture another score, or keep results in a form
that is of no use later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")

_WITH_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_FIRST_ORDER = (
    "Expected a gradient of first order: the gradient of a FuScore cannot be differentiated again"
)


@contextmanager
def own_terms() -> Iterator[None]:
    """Compute as if the caller had set nothing, but for gradients: these stay on or off."""
    with ExitStack() as terms:
        if torch.is_inference_mode_enabled():
            # Tensors that are made in it can never enter a graph, and weights and sources are kept.
            terms.enter_context(torch.inference_mode(False))
            terms.enter_context(torch.no_grad())
        for kind in _WITH_AUTOCAST:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                terms.enter_context(torch.autocast(kind, enabled=False))
        # `get_default_device` of torch 2.6 fails once the device was set back to None.
        if torch.empty(0).device.type != "cpu":
            terms.enter_context(torch.device("cpu"))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            terms.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def on_own_terms(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a function compute on its own terms, and beside what `torch.compile` makes of a caller.

    Raises:
        RuntimeError: When called, inside `torch.jit.trace` or `torch.export`.
    """

    @wraps(function)
    def computed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        tracing: Any = torch.jit.is_tracing  # type: ignore[attr-defined]
        if tracing() or torch.compiler.is_compiling():
            raise RuntimeError(
                "FuScore cannot be traced or exported, because its steps depend on the images' "
                "sizes: trace or export your network without it"
            )
        with own_terms():
            return function(*args, **kwargs)

    apart: Any = torch.compiler.disable  # has no types
    return cast("Callable[_P, _R]", apart(computed))


def with_own_gradient(
    compute: Callable[[Tensor], Tensor],
    image: Tensor,
    others: Sequence[Tensor] = (),
    leaves: Sequence[Tensor] = (),
) -> Tensor:
    """Compute something whose backward pass is on our terms too.

    A caller may run it inside autocast, which would narrow its matrix products.

    Args:
        compute: Takes the image; it uses `leaves` besides.
        image: What goes in.
        others: What `leaves` stand for in the caller's graph.
        leaves: Copies of `others` without the caller's graph, from which `compute` builds its own.

    Returns:
        What `compute` returns; as part of a graph, if gradients are on and one is asked for.
    """
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (image, *others))):
        return compute(image)
    apply: Any = _OwnGradient.apply
    made: Tensor = apply(compute, tuple(leaves), image, *others)
    return made


class _OwnGradient(torch.autograd.Function):
    """Holds the inner graph until the backward pass; a second one builds it again."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[Tensor], Tensor], leaves: Sequence[Tensor], *images: Tensor
    ) -> Tensor:
        ctx.compute, ctx.leaves = compute, leaves
        ctx.save_for_backward(*images)
        ctx.graph = _build(compute, images[0])
        made: Tensor = ctx.graph[1]
        return made.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        images, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        with own_terms():
            own, made = ctx.graph or _build(ctx.compute, images[0])
            ctx.graph = None
            leaves = [x for x, needed in zip((own, *ctx.leaves), wanted, strict=True) if needed]
            # What the leaves are in may be part of other graphs.
            found = torch.autograd.grad(
                made, leaves, slope.detach(), retain_graph=bool(ctx.leaves), allow_unused=True
            )
        slopes = iter(found)
        return None, None, *(_once(next(slopes), images) if needed else None for needed in wanted)


def _build(compute: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        own = image.detach().requires_grad_(image.requires_grad)
        return own, compute(own)


def _once(slope: Tensor | None, images: Sequence[Tensor]) -> Tensor | None:
    """A gradient that refuses to be differentiated, rather than being taken for a constant."""
    if slope is None or not torch.is_grad_enabled():
        return slope
    apply: Any = _Once.apply
    refusing: Tensor = apply(slope, *images)
    return refusing


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: Tensor, *images: Tensor) -> Tensor:
        del ctx, images
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(_FIRST_ORDER)
