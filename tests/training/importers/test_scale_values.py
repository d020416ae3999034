"""Scale values from pairwise choices: planted truths come back, with honest variances."""

import numpy as np
import pytest
from fuscore_training.importers.scale_values import ALPHA, scale_values
from scipy.special import ndtr

from tests.training.importers.conftest import TRUTH, votes

NONE = np.zeros((0, 2), dtype=np.int64)


@pytest.mark.parametrize("model", ["thurstone", "bradley-terry"])
def test_planted_scale_values_come_back(model):
    found = scale_values(4, votes(TRUTH, 400), NONE, model=model)
    assert list(np.argsort(found.mean)) == [0, 1, 2, 3]
    assert found.mean == pytest.approx(TRUTH, abs=0.12)
    assert np.abs(found.mean - TRUTH).max() < 4 * np.sqrt(found.variance.max())
    assert abs(found.mean.sum()) < 1e-9


def test_variance_is_that_of_the_estimates():
    """Over many studies, the squared errors are as large as the posterior says."""
    studies = [scale_values(4, votes(TRUTH, 60, seed), NONE) for seed in range(25)]
    errors = np.mean([(one.mean - TRUTH) ** 2 for one in studies])
    assert 0.6 < errors / np.mean([one.variance for one in studies]) < 1.6


def test_more_votes_shrink_variances():
    few, some, many = (scale_values(4, votes(TRUTH, n), NONE).variance for n in (4, 16, 64))
    assert (some < 0.75 * few).all()
    assert (many < 0.4 * some).all()


def test_without_votes_against_it_the_prior_decides():
    """One vote between two: the posterior by numerical integration of the same model."""
    found = scale_values(2, np.array([(0, 1)]), NONE)
    d = np.linspace(-12, 12, 200_001)  # t_0 - t_1 has variance 2 / alpha a priori
    weight = np.exp(-(d**2) * ALPHA / 4) * ndtr(d)
    mean = (d * weight).sum() / weight.sum()
    variance = ((d - mean) ** 2 * weight).sum() / weight.sum()
    assert found.mean == pytest.approx([mean / 2, -mean / 2], abs=1e-4)
    assert found.variance == pytest.approx([variance / 4] * 2, abs=1e-4)


def test_ties_pull_together_and_two_are_a_win_each():
    wins = votes(TRUTH, 10)
    ties = np.array([(0, 3), (3, 0)] * 10)
    tied = scale_values(4, wins, ties)
    same = scale_values(4, np.concatenate([wins, ties]), NONE)
    assert tied.mean == pytest.approx(same.mean, abs=1e-3)
    plain = scale_values(4, wins, NONE)
    assert np.ptp(tied.mean) < np.ptp(plain.mean)
    odd = scale_values(2, NONE, np.array([(1, 0)]))
    assert odd.mean == pytest.approx([0, 0], abs=1e-6)


def test_fit_leaves_numpys_generator_alone():
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    first = np.random.random()
    one = scale_values(4, votes(TRUTH, 5), NONE)
    assert [first, np.random.random()] == list(expected)
    again = scale_values(4, votes(TRUTH, 5), NONE)
    assert np.array_equal(one.mean, again.mean)
