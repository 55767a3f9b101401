"""Oracle: SciPy's softmax of those that count, row by row in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from seqjax.errors import InputError
from seqjax.ops.softmax import LOWEST, masked_log_softmax, masked_softmax

LOGITS = np.float32(3 * np.random.default_rng(0).normal(size=(3, 4, 6)))
MASK = np.random.default_rng(1).random((3, 4, 6)) < 0.6
MASK[1, 2] = False


def test_softmax_of_those_that_count():
    found, logs = (np.asarray(f(jnp.asarray(LOGITS), jnp.asarray(MASK))) for f in (masked_softmax, masked_log_softmax))
    for row, mask, weights, log_weights in zip(*(x.reshape(-1, 6) for x in (LOGITS, MASK, found, logs)), strict=True):
        np.testing.assert_array_equal(weights[~mask], 0)
        assert (log_weights[~mask] < LOWEST / 2).all()
        if mask.any():
            np.testing.assert_allclose(weights[mask], softmax(row[mask].astype(float)), rtol=1e-5)
            np.testing.assert_allclose(log_weights[mask], log_softmax(row[mask].astype(float)), rtol=1e-5, atol=1e-6)


def test_other_axes_and_no_mask():
    np.testing.assert_allclose(masked_softmax(jnp.asarray(LOGITS), axis=1), softmax(LOGITS, axis=1), rtol=1e-5)
    np.testing.assert_allclose(masked_log_softmax(jnp.asarray(LOGITS)), log_softmax(LOGITS, axis=-1), rtol=1e-5)
    shared = masked_softmax(jnp.asarray(LOGITS), jnp.asarray(MASK[:1, :, :1]), axis=1)
    expected = np.where(MASK[:1, :, :1], softmax(np.where(MASK[:1, :, :1], LOGITS, -np.inf), axis=1), 0)
    np.testing.assert_allclose(shared, expected, rtol=1e-5)


def test_rows_in_which_nothing_counts_have_no_gradient_and_no_nan():
    """Even where what does not count is infinite."""
    logits = jnp.asarray(np.where(MASK, LOGITS, -np.inf))
    for function in (masked_softmax, masked_log_softmax):

        def value(logits, function=function):
            return jnp.sum(jnp.where(jnp.asarray(MASK), function(logits, jnp.asarray(MASK)) * jnp.asarray(LOGITS), 0.0))

        gradient = jax.grad(value)(logits)
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(np.asarray(gradient)[~MASK], 0)
        assert np.abs(np.asarray(gradient)[MASK]).max() > 0.1


def test_what_counts_for_nothing_is_finite_in_half_precision():
    found = masked_log_softmax(jnp.asarray(LOGITS, jnp.float16), jnp.asarray(MASK))
    assert np.isfinite(found).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mask", [MASK[0], MASK[:, :, :3], np.float32(MASK)], ids=["rank", "size", "dtype"])
def test_masks_that_would_be_read_otherwise_are_refused(mask):
    with jax.numpy_rank_promotion("allow"), pytest.raises(InputError, match=f"mask has shape .*{mask.dtype}"):
        masked_softmax(jnp.asarray(LOGITS), jnp.asarray(mask))
