"""A directory with a transformers checkpoint -> model and tokenizer in memory, adapted if need be.

What the big families share: weights over several devices, quantised weights, LoRA adapters. peft,
accelerate and bitsandbytes are imported only where they are needed (extra `large`).
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.utils import logging

from fuscore_metric.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CheckpointError,
    MissingPackageError,
)
from fuscore_metric.optional import require

ADAPTER_NAME = "default"  # peft's own


def read_pretrained(
    architecture: Any,
    directory: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
) -> tuple[Any, Any]:
    """Read model and tokenizer; never pickles, never code from the checkpoint.

    Args:
        architecture: Native transformers class.
        directory: Folder of the checkpoint.
        dtype: Floating dtype of the weights; that of the computation, if they are quantised.
        device_map: Where the parts go, as accelerate understands it, such as "auto".
        quantize: "4bit" (NF4) or "8bit" language model, by bitsandbytes.

    Raises:
        CheckpointError: Weights are missing or misshapen, as when they are of another family.
        ImportError: An optional library is not there; the message names what to install.
    """
    if (Path(directory) / ADAPTER_CONFIG).exists():
        # transformers would put that adapter into the weights, unasked.
        raise CheckpointError(f"Expected whole weights alone in {str(directory)!r}, got an adapter")
    tokenizer = AutoTokenizer.from_pretrained(
        str(directory), trust_remote_code=False, local_files_only=True
    )
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if device_map is not None:
        require("`device_map`", "accelerate", install="fuscore-metric[large]")
        options["device_map"] = device_map
    if quantize is not None:
        options["quantization_config"] = _quantization(quantize, dtype)
    with bars_on_terminals():
        model, info = architecture.from_pretrained(
            str(directory), output_loading_info=True, attn_implementation="sdpa", **options
        )
    # transformers fills what it does not find with random numbers and only logs it.
    if missing := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise CheckpointError(
            f"Expected weights of {architecture.__name__} in {str(directory)!r}, "
            f"{len(missing)} are missing or misshapen, such as {missing[0]}"
        )
    return model, tokenizer


def _quantization(quantize: str, dtype: torch.dtype) -> Any:
    require(f"`quantize={quantize!r}`", "bitsandbytes", install="bitsandbytes")
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    # Five rows of the head are read by hand. The vision tower is a small part of the memory, sees
    # the details that a score hangs on, and its widths don't suit the CPU kernels.
    whole = ["lm_head", "model.visual"]
    if quantize == "8bit":
        return config(load_in_8bit=True, llm_int8_skip_modules=whole)
    return config(
        load_in_4bit=True,
        llm_int8_skip_modules=whole,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def to_int8(module: nn.Module) -> nn.Module:
    """Linear layers with 8-bit weights a channel, whose inputs are rounded as they come, on a CPU.

    PyTorch's own dynamic quantisation: it is deprecated in favour of torchao, which took 2.5 times
    as long in this use (0.18, eager).

    Returns:
        A copy; gradients do not pass through it.

    Raises:
        MissingPackageError: This PyTorch has it no longer.
    """
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:
        raise MissingPackageError(
            "`quantize='int8'` needs a PyTorch with torch.ao.quantization, such as 2.13"
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated")
        quantize: Any = quantize_dynamic
        made: nn.Module = quantize(module, {nn.Linear: per_channel_dynamic_qconfig})
    return made


def load_adapter(model: Any, directory: Path) -> Any:
    """Put a LoRA adapter into a model, in place, and return peft's view of it.

    Args:
        model: The base model; its own class and attributes stay.
        directory: What `save_adapter` wrote.

    Raises:
        CheckpointError: There is no adapter, it is no LoRA, or it does not fit the model.
        ImportError: peft is not installed.
    """
    require("An adapter", "peft", install="fuscore-metric[large]")
    from peft import PeftModel, get_peft_model_state_dict

    weights = directory / ADAPTER_WEIGHTS
    _check_adapter_config(directory)
    if not weights.is_file():
        raise CheckpointError(f"Expected {ADAPTER_WEIGHTS} in {str(directory)!r}, not there")
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise CheckpointError(
            "Expected all weights in memory to put an adapter in, some are kept elsewhere by "
            "`device_map`: merge it first, where there is room, or quantise"
        )
    with warnings.catch_warnings():
        # peft asks transformers (5.24) by a name that is going out.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        adapted = PeftModel.from_pretrained(model, str(directory), adapter_name=ADAPTER_NAME)
    # peft only warns of weights without a place, and of places without weights.
    expected = {name: tuple(x.shape) for name, x in get_peft_model_state_dict(adapted).items()}
    stored = {name: tuple(x.shape) for name, x in load_file(weights).items()}
    if odd := sorted(set(expected.items()) ^ set(stored.items())):
        raise CheckpointError(
            f"Expected an adapter for this base model in {str(directory)!r}, "
            f"{len(odd)} of its weights do not fit, such as {odd[0][0]}"
        )
    return adapted


def _check_adapter_config(directory: Path) -> None:
    path = directory / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text())
        kind, foreign = config["peft_type"], config.get("megatron_config")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"Expected {ADAPTER_CONFIG} of a LoRA in {str(path)!r}") from error
    # peft would import whatever module a Megatron configuration names.
    if kind != "LORA" or foreign is not None:
        raise CheckpointError(f"Expected a plain LoRA in {str(path)!r}, got {kind}")


def save_adapter(adapted: Any, directory: Path, *, state: dict[str, Tensor] | None = None) -> None:
    """Write an adapter alone: `adapter_model.safetensors` and `adapter_config.json`.

    Not `PeftModel.save_pretrained`, which also writes a model card of its own.

    Args:
        adapted: What `load_adapter` or `peft.get_peft_model` returned.
        directory: Where to.
        state: The adapted model's weights, if they had to be gathered from several processes.
    """
    from peft import get_peft_model_state_dict

    directory.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(adapted, state_dict=state)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(whole, directory / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = adapted.peft_config[ADAPTER_NAME]
    trainable, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(directory))
    finally:
        config.inference_mode = trainable


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Have transformers show its progress bars only where somebody may be looking."""
    log: Any = logging
    hidden = log.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hidden:
        log.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            log.enable_progress_bar()


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """Have a module's own weights in memory, also where accelerate keeps them elsewhere.

    accelerate brings offloaded weights in when a module is called; reading `module.weight` beside
    that finds an empty tensor.
    """
    if hasattr(module, "_hf_hook"):
        from accelerate.utils.modeling import align_module_device

        with align_module_device(module):
            yield
    else:
        yield
