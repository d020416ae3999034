"""Level words: next-token logits -> level logits -> probabilities -> score, std, preference.

The last step of the data flow. Pure functions on tensors; nothing here depends on a model.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fuscore_metric.prompts import LEVEL_WORDS
from fuscore_metric.thurstone import standard_difference

LEVEL_VALUES: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
SCORE_RANGE: tuple[float, float] = (LEVEL_VALUES[0], LEVEL_VALUES[-1])


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that the level words need."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of ``text``."""
        ...


def level_token_ids(tokenizer: Tokenizer, answer_prefix: str) -> tuple[int, ...]:
    """Find the token id that each level word has right after the answer prefix.

    A word's pieces depend on what stands before it (Qwen splits a bare "excellent" in two, but
    not " excellent"), so the ids are read off the tokenised continuation, never off the bare word.

    Args:
        tokenizer: Anything with transformers' ``encode``.
        answer_prefix: The text right before the level word, without trailing space.

    Returns:
        One id per level word, worst first, all distinct.

    Raises:
        ValueError: A word is not exactly one further token, or two words share a token.
    """
    prefix = tokenizer.encode(answer_prefix, add_special_tokens=False)
    ids = []
    for word in LEVEL_WORDS:
        whole = tokenizer.encode(f"{answer_prefix} {word}", add_special_tokens=False)
        if whole[: len(prefix)] != prefix or len(whole) != len(prefix) + 1:
            raise ValueError(
                f"Expected level word {word!r} to be one token after {answer_prefix!r}, "
                f"got tokens {whole[len(prefix) :]}: this tokenizer cannot answer in these words"
            )
        ids.append(whole[-1])
    if len(set(ids)) != len(ids):
        raise ValueError(f"Expected distinct tokens for level words {LEVEL_WORDS}, got {ids}")
    return tuple(ids)


def level_probabilities(level_logits: Tensor) -> Tensor:
    """Softmax over the level logits, never in less than float32.

    Args:
        level_logits: (N, 5) logits of the level words, worst first; any float dtype.

    Returns:
        (N, 5) probabilities; float64 for float64 input, else float32.
    """
    wide = torch.float64 if level_logits.dtype == torch.float64 else torch.float32
    return torch.softmax(level_logits.to(wide), dim=-1)


def _values(probabilities: Tensor) -> Tensor:
    """`LEVEL_VALUES` (5,), counted on the device: a copy from the CPU would make a GPU wait."""
    count = len(LEVEL_VALUES)
    values = torch.arange(count, device=probabilities.device, dtype=probabilities.dtype)
    return LEVEL_VALUES[0] + values


def expected_score(probabilities: Tensor) -> Tensor:
    """The score: the expected level value, sum of c_k p_k.

    Args:
        probabilities: (N, 5) level probabilities.

    Returns:
        (N,) scores in [1, 5], higher is better.
    """
    return (probabilities * _values(probabilities)).sum(-1)  # (N,)


def score_variance(probabilities: Tensor) -> Tensor:
    """The model's own uncertainty: sum of p_k (c_k - s)^2.

    Args:
        probabilities: (N, 5) level probabilities.

    Returns:
        (N,) variances in [0, 4], in squared score units.
    """
    distance = _values(probabilities) - expected_score(probabilities).unsqueeze(-1)  # (N, 5)
    return (probabilities * distance.square()).sum(-1)  # (N,)


def preference(
    score_a: Tensor,
    score_b: Tensor,
    variance_a: Tensor,
    variance_b: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Probability that a person prefers a to b: Phi((s_a - s_b) / (T sqrt(v_a + v_b))).

    `fuscore_metric.preference` takes outputs of a model, and their temperature. The two may come
    from different scenes.

    Args:
        score_a: (N,) scores of the first images.
        score_b: (N,) scores of the second images.
        variance_a: (N,) variances of the first scores.
        variance_b: (N,) variances of the second scores.
        temperature: T > 0; below 1 makes the answer surer. `FuScoreSpec.temperature` calibrates.

    Returns:
        (N,) probabilities in [0, 1]; 0.5 for equal scores.

    Raises:
        ValueError: The temperature is not above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"Expected `temperature` to be above 0, got {temperature}")
    z = standard_difference(score_a - score_b, variance_a + variance_b, temperature=temperature)
    # erfc, as torch's ndtr is 0.5 + 0.5 erf, which loses every P below 1e-16.
    return 0.5 * torch.erfc(-z / math.sqrt(2.0))
