"""Which weights of a big model a run trains: LoRA, all or none, for each of its three parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from fuscore_metric.backbones.pretrained.pretrained_vl import PretrainedVL

Method = Literal["lora", "full", "frozen"]
METHODS: tuple[Method, ...] = get_args(Method)
PARTS = ("language", "projector", "vision")
# Where the parts are in transformers' Qwen-VL and LLaVA classes. The projector brings the vision
# tower's features into the language model; Qwen3-VL has one more for each deepstack layer.
_PROJECTOR = (
    "model.visual.merger",
    "model.visual.deepstack_merger_list",
    "model.multi_modal_projector",
    "model.statistics.projectors",
    "model.statistics.cell_embedding",
)
_VISION = ("model.visual", "model.vision_tower", "model.statistics.vision")
_HEAD = "lm_head"


@dataclass(frozen=True)
class TuneOptions:
    """What is trained, and how."""

    language: str = field(default="lora", metadata={"help": "Language model."})
    projector: str = field(default="lora", metadata={"help": "Vision-to-language projector."})
    vision: str = field(default="frozen", metadata={"help": "Vision tower."})
    rank: int = field(default=16, metadata={"help": "Rank of the LoRA matrices."})
    alpha: int = field(default=32, metadata={"help": "LoRA's scale times its rank."})
    dropout: float = field(default=0.05, metadata={"help": "Dropout before LoRA's first matrix."})
    checkpointing: bool = field(
        default=True,
        metadata={"help": "Keep only each layer's input, compute the rest again going back."},
    )

    def __post_init__(self) -> None:
        for part in PARTS:
            if getattr(self, part) not in METHODS:
                names = ", ".join(METHODS)
                raise ValueError(
                    f"Expected `{part}` to be one of {names}, got {getattr(self, part)!r}"
                )
        if all(getattr(self, part) == "frozen" for part in PARTS):
            raise ValueError(f"Expected one of {', '.join(PARTS)} to be trained, all are frozen")

    def uses(self, method: Method) -> bool:
        """Whether any part is trained so."""
        return any(getattr(self, part) == method for part in PARTS)


def adapter_holds_all(backbone: PretrainedVL, options: TuneOptions) -> bool:
    """Whether an adapter alone has all that is trained: small projectors go with a LoRA."""
    full = {part for part in PARTS if getattr(options, part) == "full"}
    return full <= ({"projector"} if backbone.projector_names else set())


def tune(backbone: PretrainedVL, options: TuneOptions, *, seed: int = 0) -> None:
    """Freeze a backbone but for what the options say, and put LoRA adapters into it.

    The vocabulary head and the word embeddings are trained only with `language: full`: five rows of
    the head are read, so a LoRA on it would have no effect.

    Args:
        backbone: As `from_base` made it; changed in place.
        options: What is trained.
        seed: Seed of the adapters' start.
    """
    backbone.requires_grad_(False)
    if options.uses("lora"):
        _add_lora(backbone, options, seed)
    for name, parameter in backbone.model.named_parameters():
        copied = ".lora_" in name or ".original_module." in name
        if not copied and getattr(options, part_of(name)) == "full":
            parameter.requires_grad_(True)
    if options.checkpointing:
        _checkpoint_activations(backbone.model)


def _checkpoint_activations(model: Any) -> None:
    # transformers is renaming it.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    # Only reentrant checkpointing needs inputs with gradients, which transformers now asks for:
    # a graph of the whole frozen vision tower would be kept for them.
    model.disable_input_require_grads()


def part_of(name: str) -> str:
    """The part of the model that a module or parameter of that name belongs to."""
    if name.startswith(_PROJECTOR):
        return "projector"
    return "vision" if name.startswith(_VISION) else "language"


def _add_lora(backbone: PretrainedVL, options: TuneOptions, seed: int) -> None:
    from peft import LoraConfig, get_peft_model

    targets = [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear)
        and name != _HEAD
        and getattr(options, part_of(name)) == "lora"
    ]
    there = {name for name, _ in backbone.model.named_modules()}
    whole = [name for name in backbone.projector_names if name in there]
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        modules_to_save=whole if options.projector == "full" and whole else None,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Changes the model in place; what comes back is another view of it, for saving.
        backbone.hold_adapter(get_peft_model(backbone.model, config))
