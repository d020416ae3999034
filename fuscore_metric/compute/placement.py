"""Where weights and images go and in which dtype, checked before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuscore_metric.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fuscore_metric.backbones.base import Backbone

DTYPES = ("float32", "bfloat16", "float16")
"""Names, as torch has them: the command line refuses others before it imports torch."""


def check_device(device: str | int | torch.device) -> torch.device:
    """Return a device that works here; a number is a GPU's, as everywhere in torch.

    Raises:
        ValueError: PyTorch does not know it, or cannot use it on this machine.
    """
    import torch

    try:
        return torch.empty(0, device=device).device
    # A build without CUDA asserts; what is neither text nor number is a type error.
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected `device` that works here, got {str(device)!r}: {reason}"
        ) from error


def default_device() -> torch.device:
    """The default device: the current CUDA device, or the CPU where there is none.

    Also on the CPU in a process that was forked from one that used CUDA: it cannot use it again.
    Apple's GPUs have to be asked for ("mps"), because FuScore was never run on one.
    """
    import torch

    usable = torch.cuda.is_available() and not torch.cuda._is_in_bad_fork()
    return torch.device("cuda" if usable else "cpu")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device without making a GPU wait for the copy.

    From the CPU it goes through page-locked memory, which is copied while the GPU still computes
    what came before. A tensor that carries a graph is copied plainly: page-locked memory would
    leave the graph.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.requires_grad:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def choose_dtype(
    dtype: str | torch.dtype | None, family: type[Backbone], *, on_cpu: bool
) -> torch.dtype:
    """Return the dtype to load a family's weights in.

    Args:
        dtype: What the user asked for; None for the default, which is float32, or bfloat16 for the
            big families on anything but a CPU.
        family: Class of the model family.
        on_cpu: Whether the weights will be on the CPU.

    Raises:
        ValueError: No such dtype.
        CheckpointError: float16 for a family whose activations overflow in it.
    """
    import torch

    known = {name: getattr(torch, name) for name in DTYPES}
    if dtype is None:
        return torch.bfloat16 if family.large and not on_cpu else torch.float32
    wanted = known.get(dtype) if isinstance(dtype, str) else dtype
    if wanted is None or wanted not in known.values():
        raise ValueError(f"Expected `dtype` to be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_half(wanted, family)
    return wanted


def check_half(dtype: torch.dtype, family: type[Backbone]) -> None:
    """Refuse float16 for a family whose activations overflow in it.

    Raises:
        CheckpointError: The dtype is float16, and the family cannot compute in it.
    """
    import torch

    if dtype == torch.float16 and not family.fp16:
        raise CheckpointError(
            f"Expected float32 or bfloat16 for family {family.family}, got float16: "
            "its activations overflow in float16"
        )
