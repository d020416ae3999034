"""Level words: token ids in context, probabilities, score, variance, preference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fuscore_metric.levels import (
    LEVEL_VALUES,
    expected_score,
    level_probabilities,
    level_token_ids,
    preference,
    score_variance,
)
from fuscore_metric.prompts import ASPECTS, LEVEL_WORDS, build_prompt
from fuscore_metric.thurstone import EPS

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5)


class Pieces:
    """A tokenizer that knows some words whole and spells the others."""

    def __init__(self, *known: str) -> None:
        self.known = known

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids = []
        for word in text.split():
            ids += [self.known.index(word)] if word in self.known else [100 + ord(c) for c in word]
        return ids


def test_ids_are_read_after_the_prefix():
    words = Pieces("is", *LEVEL_WORDS)
    assert level_token_ids(words, "is") == (1, 2, 3, 4, 5)


def test_a_split_word_is_refused():
    with pytest.raises(ValueError, match="'excellent' to be one token"):
        level_token_ids(Pieces("is", "bad", "poor", "fair", "good"), "is")


def test_words_that_share_a_token_are_refused():
    class Same(Pieces):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [7 for _ in text.split()]

    with pytest.raises(ValueError, match="distinct tokens"):
        level_token_ids(Same(), "is")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(LOGITS)
def test_score_and_variance_stay_in_range(logits):
    p = level_probabilities(torch.tensor([logits]))
    assert torch.allclose(p.sum(-1), torch.ones(1))
    assert 1 - 1e-5 <= expected_score(p).item() <= 5 + 1e-5
    assert -1e-5 <= score_variance(p).item() <= 4 + 1e-5


@settings(derandomize=True, deadline=None, max_examples=50)
@given(LOGITS)
def test_against_scipy(logits):
    wide = torch.tensor([logits], dtype=torch.float64)
    p = level_probabilities(wide)
    known = stats.rv_discrete(values=(LEVEL_VALUES, p[0].numpy() / p[0].numpy().sum()))
    assert expected_score(p).item() == pytest.approx(known.mean(), abs=1e-9)
    assert score_variance(p).item() == pytest.approx(known.var(), abs=1e-9)


def test_half_precision_logits_are_read_in_float32():
    for dtype in (torch.float16, torch.bfloat16):
        assert level_probabilities(torch.zeros(2, 5, dtype=dtype)).dtype == torch.float32


def test_results_keep_the_batch_axis_for_one():
    p = level_probabilities(torch.zeros(1, 5))
    assert expected_score(p).shape == (1,)
    assert expected_score(p).item() == pytest.approx(3)


def test_preference_is_thurstones():
    a, b = torch.tensor([3.5, 2.0, 3.0]), torch.tensor([3.0, 4.0, 3.0])
    va, vb = torch.tensor([0.3, 0.2, 0.1]), torch.tensor([0.4, 0.2, 0.1])
    expected = stats.norm.cdf((a - b).numpy() / (va + vb + EPS).sqrt().numpy())
    assert preference(a, b, va, vb).tolist() == pytest.approx(list(expected), abs=1e-6)
    assert torch.allclose(preference(a, b, va, vb) + preference(b, a, vb, va), torch.ones(3))


def test_preference_between_certain_scores_is_finite():
    zero = torch.zeros(1)
    assert preference(zero + 3, zero + 3, zero, zero).item() == 0.5
    assert preference(zero + 4, zero + 3, zero, zero).item() == pytest.approx(1)


def test_every_aspect_has_a_prompt_in_image_order():
    for aspect in ASPECTS:
        prompt = build_prompt(aspect)
        assert [name for name, _ in prompt.labels] == ["ir", "vis", "fused"]
        assert prompt.answer_prefix == prompt.answer_prefix.strip()
    assert len({build_prompt(aspect).question for aspect in ASPECTS}) == len(ASPECTS)


def test_an_unknown_aspect_is_named():
    with pytest.raises(ValueError, match=r"Expected `aspect` to be one of overall, .*got 'beauty'"):
        build_prompt("beauty")
