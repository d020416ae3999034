"""A prompt as a tree: sources, fused images behind them, questions behind each fused image.

Every branch is computed once. What stands before it is in a cache of keys and values (the sources)
or in the same sequence (the fused image); branches do not attend to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaModel

from fuscore_metric.compute.placement import to_device

Prefix = list[tuple[Tensor, Tensor]]
"""Keys and values of a language model's layers: (U, heads, P, width) each."""

CACHE = "cache" if "cache" in signature(LlamaModel.forward).parameters else "past_key_values"
"""transformers' name of a model's cache argument: renamed in 5.24, the old one warns."""


def read_prefix(language: Any, **inputs: Any) -> Prefix:
    """Run a language model of transformers over U prompts and keep its keys and values."""
    cache: Any = DynamicCache()
    language(use_cache=True, **{CACHE: cache}, **inputs)
    return [(layer.keys, layer.values) for layer in cache.layers]


def joined(parts: Sequence[Prefix]) -> Prefix:
    """Put the prefixes of some source pairs and of some others together."""
    if len(parts) == 1:
        return parts[0]
    layers = zip(*parts, strict=True)
    return [(torch.cat([k for k, _ in x]), torch.cat([v for _, v in x])) for x in layers]


def read_behind(language: Any, prefix: Prefix, pair: Tensor, **inputs: Any) -> Tensor:
    """Run it over N sequences that stand behind a prefix each.

    Args:
        language: The model that made the prefix.
        prefix: Of U source pairs; stays as it is. Empty: nothing stands before the sequences.
        pair: (N,) the prefix of each sequence.
        inputs: Embeddings (N, L, hidden), positions, attention mask, and what else it takes.

    Returns:
        (N, L, hidden): the last hidden states.
    """
    options: dict[str, Any] = {"use_cache": False}
    if prefix:
        # A cache grows while it is used: each call gets one of its own, and the prefix stays.
        cache = DynamicCache()
        for number, (keys, values) in enumerate(prefix):
            cache.update(rows(keys, pair), rows(values, pair), number)
        options = {"use_cache": True, CACHE: cache}
    read = language(**inputs, **options)
    states: Tensor = read.last_hidden_state
    return states


def rows(sources: Tensor, pair: Tensor) -> Tensor:
    """(U, ...) of the source pairs -> (N, ...) of their fused images, no copy for one pair."""
    if len(sources) == 1:
        return sources.expand(len(pair), *sources.shape[1:])
    return sources[to_device(pair, sources.device)]


def tree_positions(first: int, stem: int, branches: Sequence[int]) -> Tensor:
    """Positions of one stem and of branches side by side behind it, each as if it were alone.

    Args:
        first: Position of the stem's first token.
        stem: Tokens of the stem.
        branches: Tokens of each branch.

    Returns:
        (L,) int64.
    """
    runs = [torch.arange(stem), *(stem + torch.arange(length) for length in branches)]
    return first + torch.cat(runs)


def tree_mask(prefix: int, stem: int, branches: Sequence[int], like: Tensor) -> Tensor | None:
    """The tokens that each token of stem and branches may attend to.

    Args:
        prefix: Tokens in the cache, which all attend to.
        stem: Tokens of the stem, which all that follow attend to.
        branches: Tokens of each branch, which attend to each other only.
        like: Gives device and dtype.

    Returns:
        (1, 1, L, prefix + L) additive mask; None where plain causal attention is the same, which is
        faster.
    """
    if not prefix and len(branches) == 1:
        return None
    lengths = torch.tensor([stem, *branches])
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)  # (L,)
    place = torch.arange(len(owner))
    related = (owner == 0) | (owner == owner[:, None])  # to the stem, or within a branch
    open_to = related & (place <= place[:, None])  # (L, L)
    open_to = torch.cat([torch.ones(len(owner), prefix, dtype=torch.bool), open_to], dim=1)
    lowest = torch.finfo(like.dtype).min
    mask = torch.zeros(open_to.shape, dtype=like.dtype).masked_fill(~open_to, lowest)
    return to_device(mask[None, None], like.device)


def branch_ends(states: Tensor, stem: int, branches: Sequence[int]) -> Tensor:
    """Take the last token of each branch: (N, L, D) -> (N, A, D)."""
    ends = accumulate(branches, initial=stem - 1)
    return torch.stack([states[:, end] for end in list(ends)[1:]], dim=1)
