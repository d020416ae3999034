"""The prompt in ChatML: text -> token ids, cut where it is shared.

Up to the fused image's first token it is the same for all candidates of a source pair and for all
aspects; behind the fused image stand the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from fuscore_metric.levels import level_token_ids
from fuscore_metric.prompts import ASPECTS, DEFAULT_ASPECT, Prompt, build_prompt

ASSISTANT = "<|im_start|>assistant\n"


class Question(NamedTuple):
    """One aspect's prompt behind the fused image, and its level words."""

    branch_ids: list[int]
    level_ids: tuple[int, ...]


class Chat:
    """Token ids of the prompt; one image token stands for all of an image.

    Args:
        tokenizer: A tokenizer of transformers.
        image_id: The model's image token.

    Attributes:
        system: System turn that the family's chat template puts first by default; "" for none.
        image_token: The token that stands for an image.
        around_image: What stands before and behind an image's tokens, a special token each or "".
        before: Everything up to the fused image.
        questions: What stands behind it, by aspect.

    Raises:
        ValueError: The tokenizer does not have the family's special tokens or splits a level word.
    """

    system: ClassVar[str] = ""
    image_token: ClassVar[str]
    around_image: ClassVar[tuple[str, str]] = ("", "")

    def __init__(self, tokenizer: Any, image_id: int) -> None:
        self.tokenizer, self.image_id = tokenizer, image_id
        self._check_special_tokens()
        self.before = self._ids(self._text_before())
        self.questions = {aspect: self._question(build_prompt(aspect)) for aspect in ASPECTS}

    def spread(self, ids: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Ids with room for all tokens of each image, in order."""
        left = iter(tokens)
        return [i for one in ids for i in [one] * (next(left) if one == self.image_id else 1)]

    def _question(self, prompt: Prompt) -> Question:
        # Special tokens separate: what stands before them cannot change the pieces after them.
        behind = f"{self.around_image[1]}\n{prompt.question}<|im_end|>\n"
        level_ids = level_token_ids(self.tokenizer, ASSISTANT + prompt.answer_prefix)
        return Question(self._ids(behind + ASSISTANT + prompt.answer_prefix), level_ids)

    def _text_before(self) -> str:
        turn = f"<|im_start|>system\n{self.system}<|im_end|>\n" if self.system else ""
        start, end = self.around_image
        starts = [f"{label}{start}" for _, label in build_prompt(DEFAULT_ASPECT).labels]
        return f"{turn}<|im_start|>user\n" + f"{self.image_token}{end}\n".join(starts)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _check_special_tokens(self) -> None:
        special = (self.image_token, *filter(None, self.around_image), "<|im_start|>", "<|im_end|>")
        for token in special:
            ids = self._ids(token)
            if len(ids) != 1 or (token == self.image_token and ids != [self.image_id]):
                raise ValueError(
                    f"Expected a tokenizer of this family, with {token!r} as one token "
                    f"({self.image_token!r} as {self.image_id}), got {ids}"
                )
