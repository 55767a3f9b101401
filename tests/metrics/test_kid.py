"""Oracles: the double sum over pairs as loops, three points by hand, and the mean over many draws."""

import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.kid import kernel_distance, squared_mmd


def by_loops(x, y):
    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z):
        return sum(k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j) / (len(z) * (len(z) - 1))

    return within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_equals_the_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(7, 3)) + 0.5
    assert squared_mmd(x, y) == pytest.approx(by_loops(x, y), rel=1e-12)


def test_linear_kernel_by_hand():
    """k = x y + 1 on {0, 2} and {1}, {1}: 1 + 2 - 2·(1 + 3 + 1 + 3)/4 = -1, and shifted by 1 the same."""
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
    assert squared_mmd(x, y, degree=1) == pytest.approx(-1)
    assert squared_mmd(x + 1, y + 1, degree=1) == pytest.approx(-1)


def test_unbiased_and_may_be_negative():
    rng = np.random.default_rng(0)
    values = np.array([squared_mmd(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert (values < 0).mean() > 0.3


def test_subsets_have_the_mean_of_the_whole_and_their_own_spread():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.normal(size=(200, 4)) * 1.5
    mean, sd = kernel_distance(x, y, subsets=30, size=100)
    assert mean == pytest.approx(squared_mmd(x, y), abs=3 * sd / 30**0.5)
    assert 0 < sd < mean
    assert (mean, sd) == kernel_distance(x, y, subsets=30, size=100)
    assert (mean, sd) != kernel_distance(x, y, subsets=30, size=100, seed=1)


def test_small_sets_are_taken_whole_and_scaled():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) + 1
    mean, sd = kernel_distance(7 * x, 7 * y, subsets=3, scale=7.0)
    assert mean == pytest.approx(squared_mmd(x, y), rel=1e-10)
    assert sd == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("m", "n"), [(1, 5), (5, 1)])
def test_refuses_a_set_of_one(m, n):
    with pytest.raises(InputError, match=f"{m} and {n} features"):
        squared_mmd(np.ones((m, 3)), np.ones((n, 3)))
