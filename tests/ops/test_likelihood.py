"""Oracles: NumPy in float64 from the probabilities, and scikit-learn's log loss for hard targets."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss

from seqjax.ops.likelihood import bernoulli_cross_entropy, gaussian_kl, standard_normal_kl


def _example():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (2, 3, 4, 5, 2)).astype(np.float32), rng.random((2, 3, 4, 5, 2), np.float32)


def _oracle(logits, targets):
    p, t = 1 / (1 + np.exp(-np.float64(logits))), np.float64(targets)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum((-3, -2, -1))


def test_equals_numpy_on_grey_levels():
    result = bernoulli_cross_entropy(*map(jnp.asarray, _example()))
    assert result.shape == (2, 3)
    np.testing.assert_allclose(result, _oracle(*_example()), rtol=1e-6)


def test_equals_log_loss_on_hard_targets():
    logits, targets = (x[0, 0] for x in _example())
    hard = targets > 0.5
    expected = log_loss(hard.ravel(), 1 / (1 + np.exp(-logits.ravel().astype(np.float64))), normalize=False)
    result = bernoulli_cross_entropy(jnp.asarray(logits), jnp.asarray(hard, jnp.float32))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_logits_of_zero_cost_log_two_per_pixel():
    targets = jnp.asarray(np.random.default_rng(1).random((64, 64, 1), np.float32))
    # Loose, for older XLA adds 4,096 equal numbers one after the other.
    result = bernoulli_cross_entropy(jnp.zeros((64, 64, 1)), targets)
    np.testing.assert_allclose(result, 2839.13, rtol=2e-5)


def test_least_value_is_the_entropy_of_the_targets():
    _, targets = _example()
    logits = np.log(targets / (1 - targets))
    result = bernoulli_cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    entropy = -(targets * np.log(targets) + (1 - targets) * np.log(1 - targets)).sum((-3, -2, -1))
    np.testing.assert_allclose(result, entropy, rtol=1e-5)


@pytest.mark.parametrize("size", [20.0, 100.0, 1e4, 1e30])
def test_saturated_logits_cost_their_size_and_stay_finite(size):
    logits, targets = jnp.asarray([size, -size, size, -size]), jnp.asarray([1.0, 0.0, 0.0, 0.75])
    value, gradient = jax.vmap(jax.value_and_grad(bernoulli_cross_entropy))(
        logits.reshape(4, 1, 1, 1), targets.reshape(4, 1, 1, 1)
    )
    tail = np.log1p(np.exp(-size))
    np.testing.assert_allclose(value, [tail, tail, size, 0.75 * size], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(gradient.ravel(), [0, 0, 1, -0.75], atol=1e-8)


def test_gradient_equals_finite_differences_of_oracle():
    logits, targets = (x[0, 0] for x in _example())
    gradient = jax.grad(bernoulli_cross_entropy)(jnp.asarray(logits), jnp.asarray(targets))
    direction = np.random.default_rng(2).normal(size=logits.shape)
    slope = (_oracle(logits + 1e-6 * direction, targets) - _oracle(logits - 1e-6 * direction, targets)) / 2e-6
    np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-5)
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-logits)) - targets, atol=1e-6)


def test_jit_equals_eager_and_vmap_equals_loop():
    logits, targets = map(jnp.asarray, _example())
    eager = bernoulli_cross_entropy(logits, targets)
    np.testing.assert_allclose(jax.jit(bernoulli_cross_entropy)(logits, targets), eager, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(bernoulli_cross_entropy)(logits, targets), eager, rtol=1e-6)
    loop = [[bernoulli_cross_entropy(*frame) for frame in zip(*video, strict=True)]
            for video in zip(logits, targets, strict=True)]  # fmt: skip
    np.testing.assert_allclose(loop, eager, rtol=1e-6)


def test_bfloat16_logits_are_computed_in_float32():
    logits, targets = map(jnp.asarray, _example())
    result = bernoulli_cross_entropy(logits.astype(jnp.bfloat16), targets)
    assert result.dtype == jnp.float32
    expected = bernoulli_cross_entropy(logits.astype(jnp.bfloat16).astype(jnp.float32), targets)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shape", [(1, 4, 5, 2), (3, 4, 5, 1), (4, 5, 2)])
def test_shapes_that_differ_are_refused(shape):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(AssertionError, match="different shapes"):
            bernoulli_cross_entropy(jnp.zeros((3, 4, 5, 2)), jnp.zeros(shape))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_divergence_from_the_standard_normal():
    """Against numerical integration of p log p/q, dimension by dimension, and its one zero."""
    rng = np.random.default_rng(2)
    mean, log_deviation = rng.normal(size=(2, 3, 4)), rng.normal(0, 0.5, (2, 3, 4))
    x = np.linspace(-30, 30, 6001)
    expected = np.zeros((2, 3))
    for i, j, k in np.ndindex(2, 3, 4):
        p, q = norm(mean[i, j, k], np.exp(log_deviation[i, j, k])), norm()
        expected[i, j] += np.sum(p.pdf(x) * (p.logpdf(x) - q.logpdf(x))) * (x[1] - x[0])
    found = standard_normal_kl(*(jnp.asarray(a, jnp.float32) for a in (mean, log_deviation)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(standard_normal_kl(jnp.zeros((2, 5)), jnp.zeros((2, 5))), 0)
    assert standard_normal_kl(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)).dtype == jnp.float32


def _gaussians(seed=3):
    """Means and log deviations of two distributions, ``[3, 4]`` each."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 4)), rng.normal(0, 0.5, (3, 4)), rng.normal(size=(3, 4)), rng.normal(0, 0.5, (3, 4))]


def test_divergence_of_gaussians_is_within_three_errors_of_a_monte_carlo_estimate():
    arrays = _gaussians()
    found = np.asarray(gaussian_kl(*(jnp.asarray(x, jnp.float32) for x in arrays)))
    mean, log_deviation, prior_mean, prior_log_deviation = arrays
    q, p = norm(mean, np.exp(log_deviation)), norm(prior_mean, np.exp(prior_log_deviation))
    x = q.rvs((40_000, 3, 4), random_state=np.random.default_rng(0))
    ratios = (q.logpdf(x) - p.logpdf(x)).sum(axis=-1)
    error = ratios.std(axis=0) / np.sqrt(len(ratios))
    assert (np.abs(found - ratios.mean(axis=0)) < 3 * error).all()


def test_divergence_of_gaussians_at_known_points():
    """None from itself; from N(0, I) that of `standard_normal_kl`; a mean of one deviation more costs 1/2."""
    mean, log_deviation, *_ = (jnp.asarray(x, jnp.float32) for x in _gaussians())
    np.testing.assert_array_equal(gaussian_kl(mean, log_deviation, mean, log_deviation), 0)
    zeros = jnp.zeros_like(mean)
    np.testing.assert_array_equal(
        gaussian_kl(mean, log_deviation, zeros, zeros), standard_normal_kl(mean, log_deviation)
    )
    moved = mean + jnp.exp(log_deviation)
    np.testing.assert_allclose(gaussian_kl(moved, log_deviation, mean, log_deviation), 4 / 2, rtol=1e-5)
    assert gaussian_kl(*(x.astype(jnp.bfloat16) for x in (mean, log_deviation, zeros, zeros))).dtype == jnp.float32


def test_gradient_of_the_divergence_equals_finite_differences():
    arrays = _gaussians()
    gradients = jax.grad(lambda *x: jnp.sum(gaussian_kl(*x)), argnums=(0, 1, 2, 3))(
        *(jnp.asarray(x, jnp.float32) for x in arrays)
    )

    def value(arrays):
        m, s, n, r = arrays
        return (r - s + (np.exp(2 * s) + (m - n) ** 2) / (2 * np.exp(2 * r)) - 0.5).sum()

    for k, gradient in enumerate(gradients):
        step = np.zeros((4, 3, 4))
        step[k] = 1e-6 * np.random.default_rng(k).normal(size=(3, 4))
        slope = (value(np.stack(arrays) + step) - value(np.stack(arrays) - step)) / 2
        np.testing.assert_allclose(np.vdot(gradient, step[k]), slope, rtol=1e-4)
