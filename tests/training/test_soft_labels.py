"""Soft labels: the limits the formula promises, over the whole range of ratings."""

import numpy as np
import pytest
import torch
from fuscore_training.soft_labels import check_soft_labels, label_sigma, soft_label
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import softmax

LEVELS = torch.arange(1.0, 6.0, dtype=torch.float64)
DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=30)
NAN, INF = float("nan"), float("inf")

means = st.one_of(
    st.floats(1, 5),
    st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]),
    # Just off a level, where the tilt that restores the mean is largest.
    st.builds(
        lambda level, power, sign: min(max(level + sign * 10.0**-power, 1.0), 5.0),
        st.integers(1, 5),
        st.integers(1, 16),
        st.sampled_from([-1, 1]),
    ),
)
sigmas = st.one_of(st.floats(0, 10), st.sampled_from([0.0, 1e-300, 1e-8, 1e-3, 0.03, 0.3, 10.0]))


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def mean_of(label):
    return label.double() @ LEVELS


def std_of(label):
    deviation = LEVELS - mean_of(label)[:, None]
    return (label * deviation.square()).sum(1).sqrt()


def interpolation(mu):
    """The sigma = 0 label: a hat function on each level."""
    return (1 - (LEVELS - mu[:, None]).abs()).clamp(min=0)


@DETERMINISTIC
@given(means, sigmas)
def test_label_is_a_distribution_with_exactly_the_mean(mu, sigma):
    label = soft_label(doubles(mu), doubles(sigma))
    assert (label >= 0).all()
    assert label.sum().item() == pytest.approx(1, abs=1e-12)
    assert mean_of(label).item() == pytest.approx(mu, abs=1e-12)


def test_mean_is_exact_on_a_dense_float32_grid():
    mu, sigma = torch.meshgrid(torch.linspace(1, 5, 101), torch.logspace(-4, 1, 21), indexing="ij")
    mu, sigma = mu.flatten(), sigma.flatten()
    label = soft_label(mu, sigma)
    assert label.dtype == torch.float32
    assert label.isfinite().all()
    torch.testing.assert_close(mean_of(label), mu.double(), atol=1e-6, rtol=0)


@DETERMINISTIC
@given(sigmas, st.sampled_from([1.0, 5.0]), st.sampled_from([torch.float32, torch.float64]))
def test_ends_of_the_scale_are_one_hot(sigma, mu, dtype):
    label = soft_label(torch.tensor([mu], dtype=dtype), torch.tensor([sigma], dtype=dtype))
    assert label.tolist() == [[float(mu == level) for level in range(1, 6)]]


@DETERMINISTIC
@given(means, st.sampled_from([0.0, 1e-300, 1e-8, 1e-3, 1e-2]))
def test_vanishing_sigma_is_linear_interpolation(mu, sigma):
    label = soft_label(doubles(mu), doubles(sigma))
    torch.testing.assert_close(label, interpolation(doubles(mu)), atol=1e-12, rtol=0)


def test_sigma_zero_on_a_level_is_exactly_one_hot():
    assert torch.equal(soft_label(LEVELS, torch.zeros(5).double()), torch.eye(5).double())


@DETERMINISTIC
@given(means, sigmas)
def test_mirrored_rating_gives_mirrored_label(mu, sigma):
    mirrored = soft_label(6 - doubles(mu), doubles(sigma)).flip(1)
    # 6 - mu rounds, so the mirror image is that of a rating up to 1e-15 away.
    torch.testing.assert_close(
        mirrored, soft_label(doubles(mu), doubles(sigma)), atol=1e-12, rtol=0
    )


@DETERMINISTIC
@given(means, sigmas, sigmas)
def test_std_never_shrinks_as_sigma_grows(mu, sigma_1, sigma_2):
    narrow, wide = sorted((sigma_1, sigma_2))
    label = soft_label(doubles(mu, mu), doubles(narrow, wide))
    # Compared as variances: a root turns a rounding of 1e-17 at a one-hot label into 3e-9.
    variance_narrow, variance_wide = std_of(label).square().tolist()
    assert variance_wide >= variance_narrow - 1e-12


def test_std_strictly_grows_between_its_limits():
    sigma = torch.linspace(0.2, 10, 50, dtype=torch.float64)
    for mu in (1.3, 2.0, 3.0, 4.5):
        assert (std_of(soft_label(torch.full_like(sigma, mu), sigma)).diff() > 0).all()


def test_huge_sigma_is_the_flattest_label_of_the_mean():
    label = soft_label(doubles(3.0, 2.0), doubles(1e6, 1e200))
    torch.testing.assert_close(label[0], torch.full_like(label[0], 0.2), atol=1e-9, rtol=0)
    # Maximum entropy at a fixed mean is geometric in the level.
    ratio = label[1, 1:] / label[1, :-1]
    torch.testing.assert_close(ratio, ratio[:1].expand(4), atol=0, rtol=1e-9)


@pytest.mark.parametrize(
    ("mu", "sigma"), [(1.4, 0.5), (2.0, 0.3), (2.7, 1.0), (3.0, 0.7), (4.9, 2.0), (4.25, 10.0)]
)
def test_golden_against_the_formula_solved_by_scipy(mu, sigma):
    levels = np.arange(1.0, 6.0)

    def label(slope):
        return softmax(-((levels - mu) ** 2) / (2 * sigma**2) + slope * levels)

    slope = brentq(lambda x: label(x) @ levels - mu, -30, 30, xtol=1e-14)
    ours = soft_label(doubles(mu), doubles(sigma))[0].numpy()
    np.testing.assert_allclose(ours, label(slope), atol=1e-10)


def test_golden_by_hand():
    # mu = 3 needs no tilt: q is the plain bell, with weights 1, x, x^4 for x = exp(-1/2).
    x = np.exp(-0.5)
    bell = np.array([x**4, x, 1, x, x**4])
    ours = soft_label(doubles(3.0), doubles(1.0))[0].numpy()
    np.testing.assert_allclose(ours, bell / bell.sum(), rtol=1e-12)


def test_batch_equals_singles_and_may_be_empty():
    mu, sigma = doubles(1.0, 2.2, 3.0, 4.999), doubles(0.0, 0.3, 1.0, 5.0)
    singles = [soft_label(mu[n : n + 1], sigma[n : n + 1]) for n in range(4)]
    torch.testing.assert_close(soft_label(mu, sigma), torch.cat(singles), atol=1e-15, rtol=0)
    assert soft_label(mu[:0], sigma[:0]).shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_follows_the_input_and_passes_the_loss_check(dtype):
    label = soft_label(torch.tensor([1.0, 2.3, 4.7], dtype=dtype), torch.full((3,), 0.5).to(dtype))
    assert label.dtype == dtype
    check_soft_labels(label, shape=torch.Size((3, 5)))


def test_labels_are_data_without_gradient():
    mu, sigma = doubles(2.3).requires_grad_(), doubles(0.4).requires_grad_()
    assert not soft_label(mu, sigma).requires_grad
    assert not label_sigma(torch.full((1, 4), 3.0, requires_grad=True)).requires_grad


@DETERMINISTIC
@given(st.lists(st.floats(1, 5), min_size=4, max_size=4), st.floats(0, 2), st.floats(0, 3))
def test_label_sigma_against_numpy(sub_scores, sigma_min, kappa):
    ours = label_sigma(doubles(sub_scores), sigma_min=sigma_min, kappa=kappa)
    expected = np.sqrt(sigma_min**2 + kappa**2 * np.var(sub_scores))
    assert ours.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_label_sigma_golden_by_hand():
    # Var(1, 1, 5, 5) = 4 over the population (16/3 over a sample).
    sub_scores = torch.tensor([[3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 5.0, 5.0]])
    sigma = label_sigma(sub_scores)
    assert sigma.dtype == torch.float32
    torch.testing.assert_close(sigma, torch.tensor([0.3, (0.09 + 4) ** 0.5]))


TWO = torch.tensor([2.0, 3.0])


def check(label):
    check_soft_labels(label, shape=torch.Size((1, 5)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: soft_label(torch.tensor([0.99, 3.0]), TWO),
            ValueError,
            ["mu", "1.0, 5.0", "0.99"],
        ),
        (
            lambda: soft_label(torch.tensor([5.01, 3.0]), TWO),
            ValueError,
            ["mu", "1.0, 5.0", "5.01"],
        ),
        (lambda: soft_label(torch.tensor([NAN, 3.0]), TWO), ValueError, ["mu", "finite", "nan"]),
        (lambda: soft_label(TWO, torch.tensor([-0.1, 1])), ValueError, ["sigma", "0.0", "-0.1"]),
        (lambda: soft_label(TWO, torch.tensor([NAN, 1])), ValueError, ["sigma", "finite", "nan"]),
        (lambda: soft_label(TWO, torch.tensor([INF, 1])), ValueError, ["sigma", "finite", "inf"]),
        (lambda: soft_label(TWO, TWO[:1]), ValueError, ["sigma", "(2,)", "(1,)"]),
        (lambda: soft_label(TWO[None], TWO[None]), ValueError, ["mu", "(N,)", "(1, 2)"]),
        (lambda: soft_label(TWO, torch.tensor(1.0)), ValueError, ["sigma", "(N,)", "()"]),
        (lambda: soft_label(TWO.long(), TWO), TypeError, ["mu", "floating", "int64"]),
        (lambda: soft_label(TWO, TWO.long()), TypeError, ["sigma", "floating", "int64"]),
        (lambda: soft_label([2.0, 3.0], TWO), TypeError, ["mu", "Tensor", "list"]),
        (lambda: label_sigma(torch.ones(3, 5)), ValueError, ["sub_scores", "(N, 4)", "(3, 5)"]),
        (lambda: label_sigma(torch.ones(4)), ValueError, ["sub_scores", "(N, 4)", "(4,)"]),
        (lambda: label_sigma(torch.full((1, 4), NAN)), ValueError, ["sub_scores", "nan"]),
        (lambda: label_sigma(torch.zeros(1, 4)), ValueError, ["sub_scores", "1.0, 5.0", "0.0"]),
        (lambda: label_sigma(torch.ones(1, 4).int()), TypeError, ["sub_scores", "int32"]),
        (lambda: label_sigma(torch.ones(1, 4), sigma_min=-1), ValueError, ["sigma_min", "-1"]),
        (lambda: label_sigma(torch.ones(1, 4), kappa=NAN), ValueError, ["kappa", "nan"]),
        (lambda: check(torch.zeros(1, 5)), ValueError, ["soft_labels", "sum 1", "[0, 0]"]),
        (lambda: check(torch.tensor([[1.5, -0.5, 0, 0, 0]])), ValueError, ["soft_labels", "-0.5"]),
        (lambda: check(torch.full((1, 5), NAN)), ValueError, ["soft_labels", "nan"]),
        (lambda: check(torch.ones(1, 4) / 4), ValueError, ["soft_labels", "(1, 5)", "(1, 4)"]),
        (lambda: check(torch.ones(1, 5).int()), TypeError, ["soft_labels", "floating", "int32"]),
    ],
)
def test_bad_input_names_argument_expected_and_got(call, error, words):
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)
