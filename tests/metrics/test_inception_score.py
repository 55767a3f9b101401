"""Oracles: SciPy's relative entropy, and answers whose score is known."""

import numpy as np
import pytest
import scipy.stats

from seqjax.errors import InputError
from seqjax.metrics.inception_score import inception_score


def test_one_for_equal_answers_and_the_number_of_classes_for_sure_ones():
    assert inception_score(np.full((20, 4), 0.25)) == pytest.approx((1, 0))
    assert inception_score(np.tile(np.eye(5), (8, 1)), splits=4) == pytest.approx((5, 0))


def test_equals_the_mean_relative_entropy_of_each_part():
    logits = np.random.default_rng(0).normal(size=(23, 4)) * 3
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    parts = [rows[:8], rows[8:16], rows[16:]]
    expected = [np.exp(np.mean([scipy.stats.entropy(row, part.mean(axis=0)) for row in part])) for part in parts]
    assert inception_score(rows, splits=3) == pytest.approx((np.mean(expected), np.std(expected)))


@pytest.mark.parametrize("splits", [0, 4])
def test_refuses_more_splits_than_images(splits):
    with pytest.raises(InputError, match=f"splits={splits} of 3 images"):
        inception_score(np.ones((3, 2)) / 2, splits=splits)
