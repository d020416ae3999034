"""A GPU that is not there: a CUDA run is followed on the CPU, and what a GPU would wait for noted.

Its tensors say "cuda:0" and hold their numbers on the CPU, so that all is computed as it would be,
decisions on the CPU included. (PyTorch's own FakeTensorMode makes the CPU's tensors fake as well,
and they cannot be read.) As on a GPU, tensors of both devices do not meet in one operation.

It cannot say how fast anything is, nor what a real kernel rounds.
"""

from __future__ import annotations

import ctypes
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
# Places in c10's table of device guards: `c10::DeviceType`.
_CUDA, _META, _TYPES = 1, 14, 21

READS = (
    aten._local_scalar_dense,  # .item(), float(), bool(), `if tensor`
    aten._unique2,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten.unique_consecutive,
    aten.unique_dim,
)
"""Operations whose result, or the size of it, the CPU has to know."""
INDEXED = (aten.index, aten.index_put, aten.index_put_)


class GpuTensor(Tensor):
    """A tensor of the GPU that is not there.

    Args:
        numbers: On the CPU; shared, not copied.
    """

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> GpuTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=DEVICE,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, *_: Any):
        raise RuntimeError(f"{operation} outside of `pretended_gpu`")

    def tolist(self) -> Any:
        """PyTorch has none for subclasses."""
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        """PyTorch has none for subclasses."""
        return self.numbers.data_ptr()


class PretendedGpu(TorchDispatchMode):
    """Computes what concerns the GPU.

    Attributes:
        waits: What made the GPU wait for the CPU, or the CPU for the GPU, and how often: kind, and
            the innermost line of ours that asked for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._pinned: list[Tensor] = []  # held, so that no other memory gets their address

    def model(self, model: nn.Module) -> nn.Module:
        """Bring a model to the GPU, in place."""
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    here = GpuTensor(parameter.detach())
                    module._parameters[name] = nn.Parameter(here, requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = GpuTensor(buffer)
        return model

    def __torch_dispatch__(self, operation, _, given=(), options=None):
        options = dict(options or {})
        kind, tensors = operation.overloadpacket, _tensors((given, options))
        if kind is aten.is_pinned:
            return self._is_pinned(given[0])
        if kind is aten._pin_memory:
            return self._pin(given[0].clone())
        if options.pop("pin_memory", None):
            return self._pin(operation(*given, **options))
        ours = any(isinstance(tensor, GpuTensor) for tensor in tensors)
        if not ours and not _on_gpu(options.get("device")):
            return operation(*given, **options)
        if kind is aten._to_copy:
            return self._copy(operation, given[0], options)
        if kind is aten.copy_:
            self._transfer(
                given[1],
                isinstance(given[0], GpuTensor),
                non_blocking=options.pop("non_blocking", _third(given)),
                back_to=given[0],
            )
        elif kind in INDEXED:
            self._index(operation, given)
        else:
            self._meet(operation, tensors)
        if kind in READS:
            self._wait(str(operation))
        return self._compute(operation, given, options)

    def _compute(self, operation, given, options):
        if "device" in options:
            options["device"] = "cpu"
        found = operation(*_unwrapped(given), **_unwrapped(options))
        if operation._schema.name.endswith("_"):  # in place
            return given[0]
        if operation.overloadpacket is aten._local_scalar_dense:
            return found
        return tree_map(lambda x: GpuTensor(x) if isinstance(x, Tensor) else x, found)

    def _copy(self, operation, source, options):
        device, non_blocking = options.pop("device", None), options.pop("non_blocking", False)
        to_gpu = isinstance(source, GpuTensor) if device is None else _on_gpu(device)
        self._transfer(source, to_gpu, non_blocking=non_blocking)
        found = operation(_unwrapped(source), **options)
        return GpuTensor(found) if to_gpu else found

    def _transfer(self, source, to_gpu, *, non_blocking, back_to=None):
        if isinstance(source, GpuTensor) == to_gpu or not source.numel():
            return
        if not to_gpu:
            if not (non_blocking and back_to is not None and self._is_pinned(back_to)):
                self._wait("copy to the CPU")
        elif not non_blocking:
            self._wait("blocking copy to the GPU")
        elif not self._is_pinned(source):
            self._wait("copy to the GPU from memory that is not page-locked")

    def _index(self, operation, given):
        for index in given[1]:
            if index is None:
                continue
            if index.dtype in (torch.bool, torch.uint8):
                self._wait(f"{operation} with a mask")
            if not isinstance(index, GpuTensor):
                self._wait(f"{operation} with an index on the CPU")

    def _meet(self, operation, tensors):
        if any(tensor.ndim and not isinstance(tensor, GpuTensor) for tensor in tensors):
            raise RuntimeError(f"{operation}: tensors are on cuda:0 and on the CPU")

    def _pin(self, tensor):
        self._pinned.append(tensor)
        return tensor

    def _is_pinned(self, tensor):
        if isinstance(tensor, GpuTensor):
            return False
        place = tensor.untyped_storage().data_ptr()
        return any(place == pinned.untyped_storage().data_ptr() for pinned in self._pinned)

    def _wait(self, what):
        for frame in reversed(traceback.extract_stack()):
            path = Path(frame.filename)
            if "fuscore_metric" in path.parts or "transformers" in path.parts:
                self.waits[f"{what}, {path.name}:{frame.lineno}: {frame.line}"] += 1
                return
        self.waits[what] += 1


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Have a GPU while this is open; only on a machine without one, and only without gradients."""
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU: see tests/gpu")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    # A table of pointers. That of "meta", a device without memory, does nothing, as is wanted here.
    symbol = "_ZN3c104impl26device_guard_impl_registryE"
    guards = (ctypes.c_void_p * _TYPES).in_dll(library, symbol)
    before, guards[_CUDA] = guards[_CUDA], guards[_META]
    lift_before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` shows its copy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        # A PyTorch that was built for CUDA asks the GPU which of its kernels to take.
        patch.setattr(functional, "scaled_dot_product_attention", _attention)
        try:
            with torch.no_grad(), PretendedGpu() as gpu:
                yield gpu
        finally:
            guards[_CUDA] = before
            torch._C._set_only_lift_cpu_tensors(lift_before)


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    plain = aten._scaled_dot_product_attention_math
    options = {"scale": scale, "enable_gqa": enable_gqa}
    return plain(query, key, value, attn_mask, dropout_p, is_causal, **options)[0]


def _on_gpu(device) -> bool:
    # The borrowed guard says "meta" where a device's number is asked for.
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _third(given) -> bool:
    return len(given) > 2 and given[2]


def _tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _unwrapped(tree):
    return tree_map(lambda x: x.numbers if isinstance(x, GpuTensor) else x, tree)
