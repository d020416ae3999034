"""What a computation must do: multiply-adds, and bytes that its operations read and write.

torch's `FlopCounterMode` counts matrix products and convolutions by formulas, which are used here.
Attention is counted here: torch has no formula for it on a CPU, and on a GPU one that counts masked
pairs and wants as many heads of keys as of queries. Everything else is left out by both. The
embedded model spends much of its time on it, bound by memory, so bytes are counted beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten: Any = torch.ops.aten
_FLASH = (
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention,
)
"""Take dropout and `is_causal` behind query, key and value."""
_BIASED = (
    _aten._scaled_dot_product_efficient_attention,
    _aten._scaled_dot_product_cudnn_attention,
)
"""Take a mask, and whether to keep sums, before dropout and `is_causal`."""


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second, measured: `clock.rates`.

    Attributes:
        flops: Of a large matrix product.
        bytes: Read and written by an elementwise operation on tensors larger than the cache.
    """

    flops: float
    bytes: float


class Work(TorchDispatchMode):
    """Adds up the work of what runs within it.

    Attributes:
        operations: FLOPs and bytes of each operation that is no view.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[int, int]] = []

    @property
    def flops(self) -> int:
        """Two for each multiply-add of matrix products, convolutions and attention."""
        return sum(flops for flops, _ in self.operations)

    @property
    def bytes(self) -> int:
        """Read and written, as if nothing stayed in a cache between operations."""
        return sum(size for _, size in self.operations)

    def seconds(self, rates: Rates) -> float:
        """Least time at these rates: each operation takes the longer of its two needs."""
        return sum(max(f / rates.flops, size / rates.bytes) for f, size in self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        size = _bytes(func, (args, kwargs), made)
        self.operations.append((_flops(func, args, kwargs, made), size))
        return made


def work(call: Callable[[], object]) -> Work:
    """Count what a call does, without gradients."""
    counted = Work()
    with torch.no_grad(), counted:
        call()
    return counted


def attention_flops(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> int:
    """FLOPs of attention over the pairs that may see each other.

    Args:
        query: (N, heads, L, width).
        key: (N, fewer or as many heads, S, width).
        value: Likewise.
        *rest: Dropout, and whether it is causal, as the operation takes them.
        **options: `attn_mask`, among others.
    """
    count, heads, length, width = query.shape
    causal = rest[1] if len(rest) > 1 else options.get("is_causal", False)
    mask = options.get("attn_mask")
    pairs = length * key.shape[2]
    if causal:
        pairs = sum(min(place + 1, key.shape[2]) for place in range(length))
    elif mask is not None:
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
        pairs = int(seen.sum()) // (seen.shape[0] * seen.shape[1])
    return 2 * count * heads * pairs * (width + value.shape[-1])


def _flops(func: Any, args: Any, kwargs: Any, made: Any) -> int:
    if func._overloadpacket in _FLASH:
        return attention_flops(*args, **kwargs)
    if func._overloadpacket in _BIASED:
        query, key, value, mask, _, *rest = args
        return attention_flops(query, key, value, *rest, **{**kwargs, "attn_mask": mask})
    formula = flop_registry.get(func._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=made))


def _bytes(func: Any, given: Any, made: Any) -> int:
    inputs = {_place(x): x for x in tree_leaves(given) if isinstance(x, Tensor)}
    outputs = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
    if not func._schema.is_mutable and all(_place(x) in inputs for x in outputs):
        return 0  # a view
    return sum(map(_size, [*inputs.values(), *outputs]))


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _size(tensor: Tensor) -> int:
    """Bytes of the numbers behind a tensor: those of an expanded axis are one."""
    sizes = (n for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step or not n)
    return math.prod(sizes) * tensor.element_size()
