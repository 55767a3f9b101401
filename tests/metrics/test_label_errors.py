"""Edit distances against a recursive definition, and rates over a set cut into any batches."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.label_errors import edit_distance, label_errors


def recursive(one, other):
    @functools.cache
    def distance(i, j):
        if min(i, j) == 0:
            return max(i, j)
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        )

    return distance(len(one), len(other))


def test_distances():
    assert edit_distance("kitten", "sitting") == 3
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = (rng.integers(3, size=rng.integers(0, 7)).tolist() for _ in range(2))
        assert edit_distance(one, other) == recursive(tuple(one), tuple(other)) == edit_distance(other, one)


FOUND = jnp.asarray([[1, 2, 3, 0], [2, 0, 0, 0], [0, 0, 0, 0], [9, 9, 9, 9]])
TRUE = jnp.asarray([[1, 2, 3], [2, 2, 0], [4, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rate_is_over_all_labels(size):
    """No error in 3 labels, one in 2, one in 1; the last row is padding: 2 / 6."""
    metric, weight = label_errors(3, length=4, labels=3), jnp.asarray([1.0, 1.0, 1.0, 0.0])
    acc = metric.init()
    for i in range(0, 4, size):
        batch = {"labels": TRUE[i : i + size], "weight": weight[i : i + size]}
        acc = metric.accumulate(acc, FOUND[i : i + size], batch)
    assert metric.finish(acc) == {"label_error_rate": pytest.approx(2 / 6), "exact": pytest.approx(1 / 3)}


def test_silence_has_a_rate_of_one():
    metric = label_errors(4, length=4, labels=3)
    figures = metric.finish(metric.accumulate(metric.init(), jnp.zeros_like(FOUND), {"labels": TRUE}))
    assert figures == {"label_error_rate": 1.0, "exact": 0.0}


def test_outputs_of_another_length_are_refused():
    metric = label_errors(4, length=5, labels=3)
    with pytest.raises(InputError, match="outputs have the shape"):
        metric.accumulate(metric.init(), FOUND, {"labels": TRUE})
