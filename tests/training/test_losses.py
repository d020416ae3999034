"""The tripartite objective: golden values against scipy, limits, gradients, extremes, bad input."""

import itertools

import numpy as np
import pytest
import torch
from fuscore_training.losses import (
    PAIR_EPS,
    LossTerms,
    LossWeights,
    cross_source_pairs,
    distribution_loss,
    tripartite_loss,
    within_source_pairs,
)
from fuscore_training.soft_labels import soft_label
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from scipy.stats import norm

LEVELS = np.arange(1.0, 6.0)
DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=30)
NAN, INF = float("nan"), float("inf")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def batch(rows=6, *, dtype=torch.float64, seed=0):
    """Logits, mu, sigma and source ids of a batch with both kinds of pair."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 5, generator=random, dtype=torch.float64)
    mu = 1 + 4 * torch.rand(rows, generator=random, dtype=torch.float64)
    sigma = 0.3 + torch.rand(rows, generator=random, dtype=torch.float64)
    return logits.to(dtype), mu.to(dtype), sigma.to(dtype), torch.arange(rows) // 3


def logits_for_scores(scores, *, step):
    """Logits that peak at the scores asked for, the sharper the larger the step."""
    return -step * (torch.tensor(LEVELS) - doubles(*scores)[:, None]).abs()


def scipy_terms(logits, mu, sigma, source_ids):
    """The objective as the design states it: plain loops, numpy, scipy."""
    logits, mu, sigma = (tensor.detach().double().numpy() for tensor in (logits, mu, sigma))
    label = soft_label(torch.tensor(mu), torch.tensor(sigma)).numpy()
    prediction = softmax(logits, axis=1)
    score = prediction @ LEVELS
    variance = (prediction * (LEVELS - score[:, None]) ** 2).sum(1)
    pairs = {True: [], False: []}
    for i, j in itertools.combinations(range(len(mu)), 2):
        p = norm.cdf((mu[i] - mu[j]) / np.sqrt(sigma[i] ** 2 + sigma[j] ** 2))
        p_hat = norm.cdf((score[i] - score[j]) / np.sqrt(variance[i] + variance[j] + PAIR_EPS))
        loss = 1 - np.sqrt(p * p_hat) - np.sqrt((1 - p) * (1 - p_hat))
        pairs[bool(source_ids[i] == source_ids[j])].append(loss)
    return rel_entr(label, prediction).sum(1).mean(), np.mean(pairs[True]), np.mean(pairs[False])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_golden_tripartite_against_scipy(dtype, tolerance):
    arguments = batch(9, dtype=dtype)
    weights = LossWeights(dist=0.5, within=2.0, cross=3.0)
    terms = tripartite_loss(*arguments, weights=weights)
    dist, within, cross = scipy_terms(*arguments)
    expected = (0.5 * dist + 2 * within + 3 * cross, dist, within, cross)
    assert [term.item() for term in terms] == pytest.approx(expected, abs=tolerance)
    assert all(term.shape == () and term.dtype == dtype for term in terms)


def test_golden_distribution_loss_by_hand():
    # Against a uniform prediction a one-hot label loses log 5 nats, a half/half one log 5 - log 2.
    labels = doubles([0, 0, 1, 0, 0], [0.5, 0.5, 0, 0, 0])
    loss = distribution_loss(torch.zeros(2, 5, dtype=torch.float64), labels)
    assert loss.item() == pytest.approx(np.log(5) - np.log(2) / 2, abs=1e-14)


@DETERMINISTIC
@given(st.lists(st.integers(-2, 2), max_size=9))
def test_pairs_are_the_unordered_ones(ids):
    source_ids = torch.tensor(ids, dtype=torch.int64)
    within = torch.stack(within_source_pairs(source_ids), 1).tolist()
    cross = torch.stack(cross_source_pairs(source_ids), 1).tolist()
    pairs = list(itertools.combinations(range(len(ids)), 2))
    assert within == [[i, j] for i, j in pairs if ids[i] == ids[j]]
    assert cross == [[i, j] for i, j in pairs if ids[i] != ids[j]]


@DETERMINISTIC
@given(st.lists(st.floats(-30, 30), min_size=5, max_size=5), st.floats(1, 5), st.floats(0, 10))
def test_distribution_loss_is_not_negative_and_blind_to_a_shift(logits, mu, sigma):
    logits, label = doubles(logits), soft_label(doubles(mu), doubles(sigma))
    loss = distribution_loss(logits, label)
    assert loss.item() >= -1e-12
    torch.testing.assert_close(distribution_loss(logits + 100, label), loss)
    at_label = distribution_loss(label.clamp(min=1e-300).log(), label)
    assert at_label.item() == pytest.approx(0, abs=1e-12)


def test_order_of_the_batch_does_not_matter():
    arguments = batch(9)
    shuffled = [tensor[torch.tensor([4, 8, 0, 2, 6, 1, 7, 3, 5])] for tensor in arguments]
    torch.testing.assert_close(tripartite_loss(*shuffled), tripartite_loss(*arguments))


@pytest.mark.parametrize(
    ("source_ids", "empty"),
    [([0, 1, 2], {"within"}), ([7, 7, 7], {"cross"}), ([4], {"within", "cross"})],
)
def test_missing_pairs_give_exactly_zero_and_stay_differentiable(source_ids, empty):
    logits, mu, sigma, _ = batch(len(source_ids))
    terms = tripartite_loss(logits.requires_grad_(), mu, sigma, torch.tensor(source_ids))
    for name, term in terms._asdict().items():
        (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
        assert (term.item() == 0) == (not gradient.any()) == (name in empty)


def test_perfect_prediction_of_a_clear_order_costs_nothing():
    mu, source_ids = doubles(1, 3, 5, 2, 4), torch.tensor([0, 0, 0, 1, 1])
    terms = tripartite_loss(logits_for_scores(mu, step=60), mu, 0 * mu, source_ids)
    assert terms.total.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("term", LossTerms._fields)
def test_gradcheck_of_every_term(term):
    logits, *labels = batch()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: getattr(tripartite_loss(x, *labels), term), logits)


EXTREMES = {
    "one level": [[1e4, -1e4, -1e4, -1e4, -1e4]] * 4,
    "reversed": [[-1e4] * 4 + [1e4], [1e4] + [-1e4] * 4, [-1e4] * 4 + [1e4], [1e4] + [-1e4] * 4],
    "all high": [[1e4] * 5] * 4,
    "all low and mixed": [[-1e4] * 5, [1e4, -1e4] * 2 + [0], [0.0] * 5, [1e4, 0, -1e4, 0, 1e4]],
}


@pytest.mark.parametrize("logits", EXTREMES.values(), ids=EXTREMES.keys())
@pytest.mark.parametrize("sigma", [0.0, 1e-3, 10.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_are_finite_at_extremes(logits, sigma, dtype):
    logits = torch.tensor(logits, dtype=dtype, requires_grad=True)
    mu, source_ids = torch.tensor([1.0, 5.0, 3.0, 3.0]), torch.tensor([0, 0, 1, 1])
    terms = tripartite_loss(logits, mu, torch.full((4,), sigma), source_ids)
    for term in terms:
        (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
        assert term.isfinite()
        assert gradient.isfinite().all()
        assert term.dtype == torch.promote_types(dtype, torch.float32)
    assert 0 <= terms.within.item() <= 1 + 1e-6
    assert 0 <= terms.cross.item() <= 1 + 1e-6


def test_distribution_gradient_survives_where_softmax_saturates():
    # Sure of the wrong order: the pair terms are flat here, p - q is not.
    logits = torch.tensor(EXTREMES["reversed"], requires_grad=True)
    mu, sigma = torch.tensor([1.0, 5.0, 1.0, 5.0]), torch.full((4,), 0.3)
    terms = tripartite_loss(logits, mu, sigma, torch.tensor([0, 0, 1, 1]))
    (pair_gradient,) = torch.autograd.grad(terms.within, logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(terms.total, logits)
    assert not pair_gradient.any()
    assert gradient[0, 4].item() == pytest.approx(0.25)
    assert gradient[0, 0].item() == pytest.approx(-0.25)


@pytest.mark.parametrize("step", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
def test_misordered_pair_keeps_its_exact_gradient(step, dtype, tolerance):
    """Labels certain of a > b, model increasingly sure of b > a: z = -1.2, -2.5 and -6.9.

    Then L = 1 - sqrt(Phi(z)), with slope -sqrt(Phi) phi / (2 Phi). At z = -6.9 a Phat made as
    1 - Phi(-z) is exactly 0 in float32.
    """

    def standard_score(step):
        prediction = softmax(logits_for_scores((2, 4), step=step).numpy(), axis=1)
        score = prediction @ LEVELS
        variance = (prediction * (LEVELS - score[:, None]) ** 2).sum()
        return (score[0] - score[1]) / np.sqrt(variance + PAIR_EPS)

    leaf = torch.tensor(step, dtype=dtype, requires_grad=True)
    logits = leaf * logits_for_scores((2, 4), step=1.0).to(dtype)
    same = torch.zeros(2, dtype=torch.int64)
    tripartite_loss(logits, torch.tensor([5.0, 1.0]), torch.zeros(2), same).within.backward()

    z = standard_score(step)
    slope = -0.5 * np.exp(norm.logpdf(z) - 0.5 * norm.logcdf(z))
    growth = (standard_score(step + 1e-5) - standard_score(step - 1e-5)) / 2e-5
    assert leaf.grad.item() == pytest.approx(slope * growth, rel=tolerance)
    assert leaf.grad.item() > 0


def test_labels_and_ratings_are_constants():
    logits, mu, sigma, source_ids = batch()
    label = soft_label(mu, sigma).requires_grad_()
    assert not distribution_loss(logits, label).requires_grad
    total = tripartite_loss(logits, mu.requires_grad_(), sigma.requires_grad_(), source_ids).total
    assert not total.requires_grad


@pytest.mark.parametrize(
    ("weights", "step"),
    [
        (LossWeights(), 3.0),
        # Alone, a pair term needs a start that is not yet sure of the wrong order.
        (LossWeights(dist=0.0, cross=0.0), 0.5),
        (LossWeights(dist=0.0, within=0.0), 0.5),
    ],
    ids=["all", "within", "cross"],
)
def test_adam_turns_a_reversed_order_round(weights, step):
    mu, source_ids = doubles(1.5, 3.0, 4.5, 2.0, 3.5, 4.0), torch.tensor([0, 0, 0, 1, 1, 1])
    logits = logits_for_scores(6 - mu, step=step).requires_grad_()
    adam = torch.optim.Adam([logits], lr=0.3)
    history = []
    for _ in range(40):
        adam.zero_grad()
        terms = tripartite_loss(logits, mu, torch.full_like(mu, 0.3), source_ids, weights=weights)
        terms.total.backward()
        adam.step()
        history.append(terms)

    scores = torch.softmax(logits.detach(), dim=1) @ torch.tensor(LEVELS)
    assert history[-1].total < 0.3 * history[0].total
    for name, pairs in (("within", within_source_pairs), ("cross", cross_source_pairs)):
        if getattr(weights, name) > 0:
            i, j = pairs(source_ids)
            assert torch.equal(scores[i] > scores[j], mu[i] > mu[j])
            assert getattr(history[-1], name) < 0.3 * getattr(history[0], name)
    if weights.dist > 0:
        torch.testing.assert_close(scores, mu, atol=0.3, rtol=0)


def with_bad(**bad):
    """The tripartite loss on a good batch of three with some arguments replaced."""
    logits, mu, sigma, source_ids = batch(3)
    arguments = {"level_logits": logits, "mu": mu, "sigma": sigma, "source_ids": source_ids}
    return lambda: tripartite_loss(**{**arguments, **bad})


ONE = torch.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (with_bad(level_logits=torch.ones(3, 4)), ValueError, ["level_logits", "5)", "(3, 4)"]),
        (with_bad(level_logits=torch.zeros(5)), ValueError, ["level_logits", "(N, 5)", "(5,)"]),
        (with_bad(level_logits=torch.zeros(0, 5)), ValueError, ["level_logits", "N > 0", "(0, 5)"]),
        (with_bad(level_logits=torch.ones(3, 5).int()), TypeError, ["level_logits", "int32"]),
        (with_bad(level_logits=[[0.0] * 5]), TypeError, ["level_logits", "Tensor", "list"]),
        (with_bad(level_logits=torch.zeros(2, 5)), ValueError, ["level_logits", "(2, 3, 3)"]),
        (with_bad(mu=torch.tensor([1.0, 2.0, 5.5])), ValueError, ["mu", "1.0, 5.0", "5.5"]),
        (with_bad(sigma=torch.tensor([1.0, NAN, 1.0])), ValueError, ["sigma", "finite", "nan"]),
        (with_bad(source_ids=torch.zeros(3)), TypeError, ["source_ids", "integer", "float32"]),
        (with_bad(source_ids=torch.ones(3).bool()), TypeError, ["source_ids", "integer", "bool"]),
        (with_bad(source_ids=["a", "a", "b"]), TypeError, ["source_ids", "integer", "list"]),
        (with_bad(source_ids=torch.zeros(2).int()), ValueError, ["source_ids", "(3, 3, 2)"]),
        (with_bad(source_ids=torch.zeros(3, 1).int()), ValueError, ["source_ids", "(3, 1)"]),
        (lambda: distribution_loss(ONE[None], ONE[None]), ValueError, ["level_logits", "(1, 3)"]),
        (lambda: LossWeights(dist=-1.0), ValueError, ["dist", "at least 0", "-1.0"]),
        (lambda: LossWeights(within=NAN), ValueError, ["within", "finite", "nan"]),
        (lambda: LossWeights(cross=INF), ValueError, ["cross", "finite", "inf"]),
        (lambda: within_source_pairs(torch.ones(2, 2).int()), ValueError, ["source_ids", "(2, 2)"]),
    ],
)
def test_bad_input_names_argument_expected_and_got(call, error, words):
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)
