"""A pretrained model that reads the prompt: image tokens + chat -> level logits, by the tree.

Only what depends on the vision tower and on the positions of its tokens is left to the families.
Instruct models only: a "thinking" model does not answer at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fuscore_metric.backbones.base import Encoded, no_autocast
from fuscore_metric.backbones.pretrained.chat import Chat, Question
from fuscore_metric.backbones.pretrained.pretrained_vl import PretrainedVL
from fuscore_metric.backbones.pretrained.reading import present
from fuscore_metric.backbones.prompt_tree import (
    Prefix,
    branch_ends,
    joined,
    read_behind,
    read_prefix,
    rows,
    tree_mask,
)
from fuscore_metric.compute.placement import to_device
from fuscore_metric.prompts import IMAGE_ORDER, ImageName, build_prompt

CHUNK_BYTES = 32 * 2**20
"""Largest activation on a CPU; glibc maps larger blocks anew each time."""


class PromptedVL(PretrainedVL):
    """A pretrained model whose language part reads the prompt as a tree.

    The caller decides what is frozen and where gradients stop. A LoRA on `lm_head` would be
    bypassed, because only five rows of its weight are used; merge it first.

    Encodings hold what the tower made of `ir` and `vis` (a row for each of U source pairs) and of
    `fused` (N rows), by these names, more of each as `ir_...`, and `pair` (N,).

    Attributes:
        chat: The prompt in the family's chat format.
        source_facts: Names of what else of U rows the positions of the sources need.
        fused_facts: Likewise of N rows.
    """

    chat: Chat
    source_facts: ClassVar[tuple[str, ...]] = ()
    fused_facts: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _source_positions(self, encoded: Encoded, length: int) -> Tensor:
        """Positions of the prompt's `length` tokens up to the fused image, on the CPU."""

    @abstractmethod
    def _fused_positions(
        self, encoded: Encoded, before: int, stem: int, branches: Sequence[int]
    ) -> Tensor:
        """Positions of a stem that ends with the fused image, and of branches side by side.

        Args:
            encoded: N rows.
            before: Tokens before the stem.
            stem: Tokens of the stem.
            branches: Tokens of each branch.

        Returns:
            Of int64, on the CPU, as the language model takes them.
        """

    def _language_options(
        self, encoded: Encoded, names: Sequence[ImageName], is_image: Tensor
    ) -> dict[str, Any]:
        """More arguments of the language model; `is_image` (L,) marks the tokens of `names`."""
        del encoded, names, is_image
        return {}

    def _token_count(self, encoded: Encoded, name: ImageName) -> int:
        """How many tokens the prompt has per image."""
        return encoded[name].shape[1]

    def _image_tokens(self, encoded: Encoded, name: ImageName) -> Tensor:
        """An image as the language model takes it: (B, tokens, D)."""
        return encoded[name]

    def read_sources(self, encoded: Encoded) -> Prefix:
        """Read the chat up to the fused image: U rows of keys and values."""
        names: tuple[ImageName, ...] = ("ir", "vis")
        length = len(self.chat.before) + sum(self._token_count(encoded, name) for name in names)
        parts = self._parts(encoded, (*names, *self.source_facts), length)
        return joined([self._read_sources(part, names) for part in parts])

    def _read_sources(self, encoded: Encoded, names: Sequence[ImageName]) -> Prefix:
        embeddings, is_image = self._embed(encoded, names, self.chat.before)  # (U, P, D), (P,)
        positions = self._source_positions(encoded, len(is_image))
        return read_prefix(
            self.model.model.language_model,
            inputs_embeds=embeddings,
            position_ids=to_device(positions, embeddings.device),
            **self._language_options(encoded, names, is_image),
        )

    def aspect_logits(
        self, encoded: Encoded, aspects: Sequence[str], prefix: Prefix | None = None
    ) -> Tensor:
        """Ask the language model: (N, A, 5), float32 in every dtype of the weights."""
        questions = [self.chat.questions[build_prompt(aspect).aspect] for aspect in aspects]
        names: tuple[ImageName, ...] = ("fused",)
        if prefix is None and self._without_cache:
            # The sources stand before each fused image, in the same sequence.
            encoded, names, prefix = self._repeat_sources(encoded), IMAGE_ORDER, []
        elif prefix is None:
            prefix = self.read_sources(encoded)
        # Rows are independent, so they may be computed in parts that fit the cache of a CPU.
        length = sum(self._token_count(encoded, name) for name in names)
        length += sum(len(question.branch_ids) for question in questions)
        parts = self._parts(encoded, (*names, *self.fused_facts, "pair"), length)
        states = [self._ask(part, names, questions, prefix) for part in parts]
        return self._five_rows(torch.cat(states), torch.tensor([q.level_ids for q in questions]))

    def _ask(
        self,
        encoded: Encoded,
        names: Sequence[ImageName],
        questions: Sequence[Question],
        prefix: Prefix,
    ) -> Tensor:
        """Last hidden states (N, A, D) of each question, behind the images `names`."""
        chat = [self.chat.image_id] if prefix else [*self.chat.before, self.chat.image_id]
        # One sequence per fused image: the image, then all questions side by side. A tree mask
        # keeps the questions apart, so that the image goes through the model once for all aspects.
        images, is_image = self._embed(encoded, names, chat)  # (N, S, D), (S,)
        texts = [self._text(question.branch_ids, images) for question in questions]
        stem, lengths = len(is_image), [text.shape[1] for text in texts]
        before = prefix[0][0].shape[2] if prefix else 0
        positions = self._fused_positions(encoded, before, stem, lengths)
        states = read_behind(
            self.model.model.language_model,
            prefix,
            encoded["pair"],
            inputs_embeds=torch.cat([images, *texts], dim=1),  # (N, L, D)
            attention_mask=tree_mask(before, stem, lengths, images),
            position_ids=to_device(positions, images.device),
            **self._language_options(encoded, names, F.pad(is_image, (0, sum(lengths)))),
        )
        return branch_ends(states, stem, lengths)

    def _rows_at_once(self, numbers: int) -> int:
        """How many rows to compute together, if an activation of one has so many numbers.

        On a CPU few, so that activations stay in its cache and below the size from which glibc maps
        new memory for each, which is slower than the arithmetic; elsewhere all.
        """
        if self.device.type != "cpu":
            return 2**31
        return max(1, CHUNK_BYTES // (numbers * self.dtype.itemsize))

    def _parts(self, encoded: Encoded, names: Sequence[str], length: int) -> list[Encoded]:
        """Rows of an encoding in pieces for the language model.

        Args:
            encoded: Everything.
            names: What is cut; `ir` stands for `ir_...` too. The rest is left out.
            length: Tokens of a row.
        """
        width = self.model.config.text_config.intermediate_size
        step = self._rows_at_once(length * width)
        stems = tuple(f"{name}_" for name in IMAGE_ORDER if name in names)
        chosen = {k: v for k, v in encoded.items() if k in names or k.startswith(stems)}
        pieces = {name: torch.split(tensor, step) for name, tensor in chosen.items()}
        return [dict(zip(pieces, part, strict=True)) for part in zip(*pieces.values(), strict=True)]

    @property
    def _without_cache(self) -> bool:
        """Whether layers will be computed again in the backward pass: then nothing can be kept."""
        layer = self.model.model.language_model.layers[0]
        again: bool = layer.gradient_checkpointing and layer.training
        return again

    def _repeat_sources(self, encoded: Encoded) -> Encoded:
        sources = [name for name in encoded if name.startswith(("ir", "vis"))]
        return encoded | {name: rows(encoded[name], encoded["pair"]) for name in sources}

    def _embed(
        self, encoded: Encoded, names: Sequence[ImageName], ids: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Chat with one image token for each image -> embeddings with all of them.

        Returns:
            (B, L, D), and on the CPU (L,) where image tokens are.
        """
        parts = [self._image_tokens(encoded, name) for name in names]
        images = torch.cat(parts, dim=1)  # (B, K T, D)
        spread = self.chat.spread(ids, [part.shape[1] for part in parts])  # (L,)
        text = self._text(spread, images)
        images = images.to(text)  # parts of a big model may be on different devices
        is_image = torch.tensor(spread) == self.chat.image_id
        places = to_device(is_image.nonzero().flatten(), text.device)
        return text.index_copy(1, places, images), is_image

    def _text(self, ids: list[int], like: Tensor) -> Tensor:
        """Embeddings of tokens, for each row of `like`: (B, L, D)."""
        embedding = self.model.get_input_embeddings()
        embedded: Tensor = embedding(to_device(torch.tensor(ids), like.device))
        return embedded.expand(len(like), -1, -1)

    def _five_rows(self, last: Tensor, level_ids: Tensor) -> Tensor:
        """Last hidden states (N, A, D) and the level words' ids (A, 5) -> level logits (N, A, 5).

        Never in less than float32: bfloat16 has steps of 0.125 near 20, where such logits lie.
        """
        wide = torch.promote_types(last.dtype, torch.float32)
        head = self.model.lm_head
        # Training may run under autocast, which would narrow the product again.
        with present(head), no_autocast(last.device):
            ids = to_device(level_ids, head.weight.device)
            weight = head.weight[ids].to(last.device, wide)  # (A, 5, D)
            logits = torch.einsum("nad,ald->nal", last.to(wide), weight)
            return logits if head.bias is None else logits + head.bias[ids].to(logits)
