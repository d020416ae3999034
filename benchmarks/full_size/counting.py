"""Bytes that a computation holds, counted on the meta device, where nothing is computed.

Attention is counted as kernels do it that never hold a whole L x L matrix.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten: Any = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """Adds up what is alive on the meta device; small tensors on the CPU steer, and don't count.

    Positions, grids and masks have values that decide on shapes, so they stay on the CPU and join
    their big neighbours where an operation takes both.

    Attributes:
        now: Bytes alive that were made within this mode.
        peak: Most of them at a time.
        flops: Two for each multiply-add of the matrix products and convolutions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak, self.flops = 0, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._to_copy.default and _is_mask(args[0]):
            return args[0]
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            args = (args[0], _places(args[1]), *args[2:])
        if any(_on_meta(x) for x in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(_to_meta, (args, kwargs))
        made = func(*args, **kwargs)
        self.flops += _flops(func, args, made)
        for tensor in tree_leaves(made):
            if _on_meta(tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def know(self, module: torch.nn.Module) -> None:
        """Leave a module's weights out of the count."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._known.add(tensor.untyped_storage()._cdata)


def _on_meta(x: Any) -> bool:
    return isinstance(x, Tensor) and x.device.type == "meta"


def _is_mask(x: Any) -> bool:
    return isinstance(x, Tensor) and x.device.type == "cpu" and x.dtype == torch.bool


def _to_meta(x: Any) -> Any:
    if isinstance(x, Tensor) and x.device.type == "cpu":
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    return x


def _places(indices: Any) -> list[Any]:
    """Masks among indices as the places where they are true: only those have a known number."""
    found: list[Any] = []
    for index in indices:
        found += index.nonzero(as_tuple=True) if _is_mask(index) else [index]
    return found


def _flops(func: Any, args: Any, made: Any) -> int:
    if func in (aten.mm.default, aten.bmm.default):
        return 2 * int(made.numel()) * int(args[0].shape[-1])
    if func is aten.addmm.default:
        return 2 * int(made.numel()) * int(args[1].shape[-1])
    if func is aten.convolution.default:
        return 2 * int(made.numel()) * int(args[1][0].numel())
    return 0


class _Attention(torch.autograd.Function):
    """Holds what a fused kernel keeps: its inputs, its output, and a number for each row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Have `scaled_dot_product_attention` counted as a fused kernel."""
    original: Callable[..., Tensor] = F.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return _Attention.apply(query, key, value)  # type: ignore[no-any-return, no-untyped-call]

    F.scaled_dot_product_attention = counted
    torch.nn.functional.scaled_dot_product_attention = counted
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = original
