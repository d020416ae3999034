"""A directory with a transformers checkpoint -> model and tokenizer in memory, adapted if need be.

What the big families share: weights over several devices, quantised weights, LoRA adapters. peft,
accelerate and bitsandbytes are imported only where they are needed (extra `large`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging

from fuscore_metric.backbones.stored_weights import check_finite, check_header, read_tensors
from fuscore_metric.checkpoints.fields import TEXTS, Kind, misfits, number, whole
from fuscore_metric.checkpoints.spec import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from fuscore_metric.checkpoints.strict_json import read_json, readable, short, walk
from fuscore_metric.errors import CheckpointError, MissingPackageError
from fuscore_metric.optional import require

ADAPTER_NAME = "default"  # peft's own
MAX_CONFIG_BYTES = 4_000_000
MAX_LAYERS = 512
_LENGTHS = ("num_hidden_layers", "depth", "num_labels")


def read_pretrained(
    architecture: Any,
    tokenizer_class: Any,
    directory: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
    unquantized: Sequence[str] = (),
) -> tuple[Any, Any]:
    """Read model and tokenizer; never pickles, never code from the checkpoint.

    All weights in memory are checked for NaN and infinity, whatever the device: one pass at the
    speed of its memory, some 2 s for 15 GB on two CPU threads.

    Args:
        architecture: Native transformers class, or one derived from it.
        tokenizer_class: Tokenizer class of transformers. Not `AutoTokenizer`: which class reads the
            files would be the checkpoint's choice, and some read pickles.
        directory: Folder of the checkpoint.
        dtype: Floating dtype of the weights; that of the computation, if they are quantised.
        device_map: Where the parts go, as accelerate understands it, such as "auto".
        quantize: "4bit" (NF4) or "8bit" language model, by bitsandbytes.
        unquantized: Modules that stay as they are all the same.

    Raises:
        CheckpointError: Weights are missing, misshapen or unknown, as when they are of another
            family, stored in another dtype than float32, bfloat16 or float16, or not finite.
        ImportError: An optional library is not there; the message names what to install.
    """
    directory = Path(directory)
    if (directory / ADAPTER_CONFIG).exists():
        # transformers would put that adapter into the weights, unasked.
        raise CheckpointError(f"Expected whole weights alone in {str(directory)!r}, got an adapter")
    options: dict[str, Any] = {"dtype": dtype}
    if device_map is not None:
        require("`device_map`", "accelerate", install="fuscore-metric[large]")
        options["device_map"] = device_map
    if quantize is not None:
        options["quantization_config"] = _quantization(quantize, dtype, unquantized)
    try:
        _check_size(architecture, directory)
        model, tokenizer, info = _read(architecture, tokenizer_class, str(directory), options)
    except (CheckpointError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers raises anything at files that it did not expect
        raise CheckpointError(
            f"Cannot load {architecture.__name__} from {str(directory)!r}: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    _check_complete(info, architecture, directory)
    check_finite((*model.named_parameters(), *model.named_buffers()), directory)
    _check_vocabulary(tokenizer, model, directory)
    return model, tokenizer


def _read(
    architecture: Any, tokenizer_class: Any, folder: str, options: dict[str, Any]
) -> tuple[Any, Any, Any]:
    tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
    with bars_on_terminals():
        model, info = architecture.from_pretrained(
            folder,
            output_loading_info=True,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are named
            **options,
        )
    return model, tokenizer, info


def _check_size(architecture: Any, directory: Path) -> None:
    """Refuse a configuration of far more weights than are stored, before memory is taken for them.

    transformers creates weights that it does not find. Making the model without memory takes
    0.04 s for 8 billion.
    """
    files = sorted(directory.glob("*.safetensors"))
    for file in files:
        check_header(file)
    path = directory / "config.json"
    for key, value in walk(read_json(path, limit=MAX_CONFIG_BYTES, unique_keys=False)):
        # Checked before transformers reads it and makes a layer or a label for each.
        long = isinstance(value, list) and len(value) > MAX_LAYERS
        if long or (key in _LENGTHS and not (type(value) is int and value <= MAX_LAYERS)):
            raise CheckpointError(
                f"Expected `{readable(key)}` up to {MAX_LAYERS} in {str(path)!r}, "
                f"got {len(value) if long else short(value)}"
            )
    config = architecture.config_class.from_pretrained(
        str(directory), local_files_only=True, attn_implementation="sdpa"
    )
    with torch.device("meta"):
        model = architecture(config)
    numbers = sum(x.numel() for x in (*model.parameters(), *model.buffers()))
    # Two bytes each, and as much again for a head that is stored with the embedding.
    if numbers > (stored := sum(file.stat().st_size for file in files)):
        raise CheckpointError(
            f"Expected weights of {architecture.__name__} in {str(directory)!r}, most are missing: "
            f"its config.json describes {numbers} numbers, there are {stored} bytes"
        )


def _check_complete(info: dict[str, Any], architecture: Any, directory: Path) -> None:
    """Refuse what transformers only logs: it fills up with random numbers, and drops the rest.

    A head that was trained for something else may be dropped, and so may frequencies, which
    are computed; weights of more layers than the configuration has may not.
    """
    dropped = [
        name
        for name in info["unexpected_keys"]
        if name.startswith(("model.", "lm_head.")) and not name.endswith("inv_freq")
    ]
    for what, names in (
        ("are missing", info["missing_keys"]),
        ("are misshapen", [name for name, *_ in info["mismatched_keys"]]),
        ("are not known", dropped),
    ):
        if names:
            raise CheckpointError(
                f"Expected weights of {architecture.__name__} in {str(directory)!r}, "
                f"{len(names)} {what}, such as {readable(min(names))}"
            )


def _check_vocabulary(tokenizer: Any, model: Any, directory: Path) -> None:
    highest, rows = max(tokenizer.get_vocab().values()), model.config.text_config.vocab_size
    if highest >= rows:
        raise CheckpointError(
            f"Expected token ids below {rows}, the rows of the embedding, in {str(directory)!r}, "
            f"got {highest}"
        )


def _quantization(quantize: str, dtype: torch.dtype, unquantized: Sequence[str]) -> Any:
    require(f"`quantize={quantize!r}`", "bitsandbytes", install="bitsandbytes")
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    # Five rows of the head are read directly.
    whole = ["lm_head", *unquantized]
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
        MissingPackageError: This PyTorch does not have it any more.
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
    """Put a LoRA adapter into a model, in place, and return peft's wrapper of it.

    Args:
        model: The base model; its own class and attributes stay.
        directory: What `save_adapter` wrote.

    Raises:
        CheckpointError: There is no adapter, it is not a LoRA, or it does not fit the model.
        ImportError: peft is not installed.
    """
    require("An adapter", "peft", install="fuscore-metric[large]")
    from peft import PeftModel, get_peft_model_state_dict

    weights = directory / ADAPTER_WEIGHTS
    _check_adapter_config(directory)
    if not weights.is_file():
        raise CheckpointError(f"Expected {ADAPTER_WEIGHTS} in {str(directory)!r}, not there")
    tensors = read_tensors(weights)
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise CheckpointError(
            "Expected all weights in memory to put an adapter in, some are kept elsewhere by "
            "`device_map`: merge it first, where there is room, or quantise"
        )
    with warnings.catch_warnings():
        # peft calls transformers (5.24) by a name that is deprecated.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        adapted = PeftModel.from_pretrained(model, str(directory), adapter_name=ADAPTER_NAME)
    # peft only warns of weights without a place, and of places without weights.
    expected = {name: tuple(x.shape) for name, x in get_peft_model_state_dict(adapted).items()}
    stored = {name: tuple(x.shape) for name, x in tensors.items()}
    if odd := sorted(set(expected.items()) ^ set(stored.items())):
        raise CheckpointError(
            f"Expected an adapter for this base model in {str(directory)!r}, "
            f"{len(odd)} of its weights do not fit, such as {odd[0][0]}"
        )
    return adapted


def _check_adapter_config(directory: Path) -> None:
    from peft import LoraConfig

    path = directory / ADAPTER_CONFIG
    try:
        config = read_json(path, limit=MAX_CONFIG_BYTES)
        kind = config["peft_type"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"Expected {ADAPTER_CONFIG} of a LoRA in {str(path)!r}") from error
    if kind != "LORA":
        raise CheckpointError(f"Expected a plain LoRA in {str(path)!r}, got {short(kind)}")
    # For others peft would import modules, read further files or change the base model's weights.
    plain: Any = LoraConfig()
    defaults = plain.to_dict()
    asked = {
        name
        for name, value in config.items()
        if value not in _NOTHING and value != defaults.get(name)
    }
    if odd := sorted(asked - _LORA.keys() - _LORA_NOTES):
        raise CheckpointError(
            f"Expected a plain LoRA in {str(path)!r}, got {short(odd[0])}: {short(config[odd[0]])}"
        )
    for wrong in misfits({name: config[name] for name in asked}, _LORA):
        raise CheckpointError(f"{wrong} in {str(path)!r}")


_NOTHING: tuple[Any, ...] = (None, False, {}, [], "")
_LORA = {
    "r": whole(1, 4096),
    "lora_alpha": number(0, 1e6),
    "lora_dropout": number(0, 1),
    "bias": Kind("none", lambda x: x == "none"),
    "init_lora_weights": Kind('true or "gaussian"', lambda x: x is True or x == "gaussian"),
    "target_modules": TEXTS,
    "use_rslora": Kind("true or false", lambda x: x is True),
    "use_dora": Kind("true or false", lambda x: x is True),
    "modules_to_save": TEXTS,
}
"""The settings of a plain LoRA. Modules must not be a regular expression, which can be made to
take forever."""
_LORA_NOTES = {
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "auto_mapping",
}
"""What peft writes besides; `PeftModel` does not act on it."""


def save_adapter(adapted: Any, directory: Path) -> None:
    """Write an adapter alone: `adapter_model.safetensors` and `adapter_config.json`.

    Not `PeftModel.save_pretrained`, which also writes a model card of its own.

    Args:
        adapted: What `load_adapter` or `peft.get_peft_model` returned.
        directory: Where to.
    """
    from peft import get_peft_model_state_dict

    directory.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(adapted)
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
    """Let transformers show its progress bars on terminals only."""
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
