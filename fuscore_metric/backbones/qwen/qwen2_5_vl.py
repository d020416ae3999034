"""Qwen2.5-VL: pixels + prompt -> level logits, with its own chat format and normalisation."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLForConditionalGeneration

from fuscore_metric.backbones.qwen.qwen_chat import Qwen25Chat, QwenChat
from fuscore_metric.backbones.qwen.qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """Qwen2.5-VL-Instruct, any size."""

    family: ClassVar[str] = "qwen2_5_vl"
    architecture: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    # OpenAI CLIP's, as in its preprocessor_config.json.
    image_mean: ClassVar[tuple[float, float, float]] = (0.48145466, 0.4578275, 0.40821073)
    image_std: ClassVar[tuple[float, float, float]] = (0.26862954, 0.26130258, 0.27577711)
    chat_class: ClassVar[type[QwenChat]] = Qwen25Chat
