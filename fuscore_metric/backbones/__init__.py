"""Model families, one file each. Imported on demand: no family costs the users of another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuscore_metric.backbones.base import Backbone

FAMILIES: dict[str, str] = {
    "lite_llama": "fuscore_metric.backbones.lite.lite_llama:LiteLlama",
    "llava": "fuscore_metric.backbones.llava.llava:Llava",
    "qwen2_5_vl": "fuscore_metric.backbones.qwen.qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "fuscore_metric.backbones.qwen.qwen3_vl:Qwen3VL",
}
"""Family name in `fuscore.json` -> where its class is."""


def backbone_class(family: str) -> type[Backbone]:
    """Import the class of a model family.

    Raises:
        ValueError: The family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"Expected `family` to be one of {', '.join(FAMILIES)}, got {family!r}")
    module, name = FAMILIES[family].split(":")
    found: type[Backbone] = getattr(import_module(module), name)
    return found
