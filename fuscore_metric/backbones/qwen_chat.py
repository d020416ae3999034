"""The prompt in the chat format of the Qwen-VL families: text -> token ids, cut where it is shared.

Up to the fused image's first token it is the same for all candidates of a source pair and for all
aspects; behind the fused image stand the questions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT, Prompt, build_prompt

IMAGE_TOKEN = "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
ASSISTANT = "<|im_start|>assistant\n"
SPECIAL_TOKENS = (IMAGE_TOKEN, VISION_START, VISION_END, "<|im_start|>", "<|im_end|>")


class Question(NamedTuple):
    """One aspect's prompt behind the fused image, and its level words."""

    branch_ids: list[int]
    level_ids: tuple[int, ...]


class QwenChat:
    """Token ids of the prompt; one image token stands for all of an image.

    Args:
        tokenizer: A Qwen tokenizer of transformers.
        image_id: The model's image token.
        system: System turn that the family's chat template puts first by default; "" for none.

    Attributes:
        before: Everything up to the fused image.
        questions: What stands behind it, by aspect.

    Raises:
        ValueError: The tokenizer has not the family's special tokens or splits a level word.
    """

    def __init__(self, tokenizer: Any, image_id: int, system: str) -> None:
        self.tokenizer, self.image_id = tokenizer, image_id
        self._check_special_tokens()
        self.before = self._ids(_text_before(system))
        self.questions = {aspect: self._question(build_prompt(aspect)) for aspect in ASPECTS}

    def spread(self, ids: list[int], tokens: int) -> list[int]:
        """Ids with room for all tokens of each image."""
        return [i for one in ids for i in [one] * (tokens if one == self.image_id else 1)]

    def _question(self, prompt: Prompt) -> Question:
        # Special tokens separate: what stands before them cannot change the pieces after them.
        text = f"{VISION_END}\n{prompt.question}<|im_end|>\n{ASSISTANT}{prompt.answer_prefix}"
        level_ids = level_token_ids(self.tokenizer, ASSISTANT + prompt.answer_prefix)
        return Question(self._ids(text), level_ids)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _check_special_tokens(self) -> None:
        for token in SPECIAL_TOKENS:
            ids = self._ids(token)
            if len(ids) != 1 or (token == IMAGE_TOKEN and ids != [self.image_id]):
                raise ValueError(
                    f"Expected a tokenizer of the Qwen-VL families, with {token!r} as one token "
                    f"({IMAGE_TOKEN!r} as {self.image_id}), got {ids}"
                )


def _text_before(system: str) -> str:
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    starts = [f"{label}{VISION_START}" for _, label in build_prompt(DEFAULT_ASPECT).labels]
    return f"{turn}<|im_start|>user\n" + f"{IMAGE_TOKEN}{VISION_END}\n".join(starts)
