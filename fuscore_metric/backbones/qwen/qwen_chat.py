"""The prompt in the chat format of the Qwen-VL families."""

from __future__ import annotations

from typing import ClassVar

from fuscore_metric.backbones.pretrained.chat import Chat


class QwenChat(Chat):
    """Without a system turn, as of Qwen3-VL."""

    image_token: ClassVar[str] = "<|image_pad|>"
    around_image: ClassVar[tuple[str, str]] = ("<|vision_start|>", "<|vision_end|>")


class Qwen25Chat(QwenChat):
    """With the system turn of Qwen2.5-VL."""

    system: ClassVar[str] = "You are a helpful assistant."
