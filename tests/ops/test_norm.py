"""``ops.norm`` against loops in NumPy float64 that gather, for each value, those that it shares its statistics with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import norm

SHAPE = (2, 3, 4, 6)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Each op on [B, H, W, C], with the values of x that position (b, h, w, c) is normalised among.
OPS = {
    "layer": (lambda x, a, b: norm.layer_norm(x, a) + b, lambda x, b, h, w, c: x[b, h, w]),
    "instance": (norm.instance_norm, lambda x, b, h, w, c: x[b, :, :, c]),
    "one_group": (norm.group_norm, lambda x, b, h, w, c: x[b]),
    "three_groups": (
        lambda x, a, b: norm.group_norm(x, a, b, groups=3),
        lambda x, b, h, w, c: x[b, :, :, c // 2 * 2 : c // 2 * 2 + 2],
    ),
    "batch": (norm.batch_norm, lambda x, b, h, w, c: x[..., c]),
}
EVERY_OP = pytest.mark.parametrize("name", OPS)


def oracle(name, x, scale, bias, epsilon=1e-5):
    x, scale, bias = (np.asarray(a, np.float64) for a in (x, scale, bias))
    out = np.zeros_like(x)
    for b, h, w, c in np.ndindex(x.shape):
        among = OPS[name][1](x, b, h, w, c)
        out[b, h, w, c] = scale[c] * (x[b, h, w, c] - among.mean()) / np.sqrt(among.var() + epsilon) + bias[c]
    return out


def arguments(spread=3.0):
    return spread * (normal(*SHAPE) + 2), normal(6, seed=1), normal(6, seed=2)


@EVERY_OP
@pytest.mark.parametrize("spread", [3.0, 0.003])
def test_equals_oracle(name, spread):
    """At the small spread ``ε`` is as large as the variance."""
    x, scale, bias = arguments(spread)
    bias = jnp.broadcast_to(bias, SHAPE) if name == "layer" else bias
    op = OPS[name][0]
    expected = oracle(name, *arguments(spread))
    np.testing.assert_allclose(jax.jit(op)(x, scale, bias), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(op(x, scale, bias), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["instance", "one_group", "three_groups", "batch"])
def test_without_scale_and_bias_they_are_one_and_zero(name):
    x = arguments()[0]
    ones, zeros = jnp.ones(6), jnp.zeros(6)
    np.testing.assert_allclose(OPS[name][0](x, None, None), oracle(name, x, ones, zeros), rtol=2e-5, atol=2e-5)


@EVERY_OP
def test_gradients_equal_finite_differences_of_oracle(name):
    x, scale, bias = arguments()
    weights = np.random.default_rng(3).normal(size=SHAPE)
    bias = jnp.broadcast_to(bias, SHAPE) if name == "layer" else bias
    op = OPS[name][0]
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.asarray(weights, jnp.float32) * op(*a)), argnums=(0, 1)))(
        x, scale, bias
    )
    wide = [np.float64(a) for a in arguments()]
    for index, gradient in enumerate(gradients):
        step = 1e-5 * np.random.default_rng(4).normal(size=wide[index].shape)
        ends = [
            np.vdot(weights, oracle(name, *(a + s * step if i == index else a for i, a in enumerate(wide))))
            for s in (1, -1)
        ]
        np.testing.assert_allclose(np.vdot(gradient, step) / 1e-5, (ends[0] - ends[1]) / 2e-5, rtol=2e-3, atol=1e-4)


@EVERY_OP
def test_bfloat16_statistics_are_float32(name):
    """A thousand and its neighbours: their mean and spread are beyond bfloat16, whose steps are 4 there."""
    x = (1000 + 4 * jnp.round(3 * normal(*SHAPE))).astype(jnp.bfloat16)
    ones, zeros = jnp.ones(6, jnp.bfloat16), jnp.zeros(6, jnp.bfloat16)
    result = OPS[name][0](x, ones, jnp.broadcast_to(zeros, SHAPE) if name == "layer" else zeros)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(result), oracle(name, x, np.ones(6), np.zeros(6)), rtol=0.01, atol=0.01)


def test_float32_parameters_serve_bfloat16_features():
    x, scale, bias = arguments()
    for name in ("instance", "one_group", "batch"):
        assert OPS[name][0](x.astype(jnp.bfloat16), scale, bias).dtype == jnp.bfloat16


def test_one_position_becomes_the_bias():
    x, bias = normal(2, 1, 1, 6), normal(6, seed=1)
    np.testing.assert_allclose(norm.instance_norm(x, None, bias), jnp.broadcast_to(bias, x.shape), atol=1e-6)


def test_members_of_the_family_meet():
    x, scale, bias = arguments()
    instance = norm.instance_norm(x, scale, bias)
    np.testing.assert_allclose(norm.group_norm(x, scale, bias, groups=6), instance, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm.batch_norm(x[:1], scale, bias), instance[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [0, 4])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises(InputError, match=f"6 channels cannot be put into groups={groups}"):
        norm.group_norm(jnp.zeros(SHAPE), groups=groups)


@pytest.mark.parametrize("shape", [(5, 4), (3, 3, 2, 4)])
def test_spectral_norm_converges_to_the_largest_singular_value(shape):
    kernel, u = normal(*shape), normal(4, seed=1)
    matrix = np.asarray(kernel, np.float64).reshape(-1, 4)
    expected = np.linalg.svd(matrix, compute_uv=False)[0]
    estimates = []
    for _ in range(60):
        normalised, u = jax.jit(norm.spectral_norm)(kernel, u)
        estimates.append(float(kernel.ravel()[0] / normalised.ravel()[0]))
    assert estimates[0] < 0.999 * expected
    assert (np.diff(estimates) > -1e-5).all()
    np.testing.assert_allclose(estimates[-1], expected, rtol=1e-5)
    np.testing.assert_allclose(normalised, matrix.reshape(shape) / expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-5)
    at_once, _ = norm.spectral_norm(kernel, normal(4, seed=1), iterations=60)
    np.testing.assert_allclose(at_once, normalised, rtol=1e-4, atol=1e-6)


def test_gradient_of_spectral_norm_flows_through_the_singular_value():
    """Where u has converged: finite differences of ``Σ weights ⊙ W / σ₁(W)``, with NumPy's SVD for σ₁.

    A larger W is the same W, so there is no gradient along W itself.
    """
    kernel, weights = normal(5, 4), np.random.default_rng(2).normal(size=(5, 4))
    _, u = norm.spectral_norm(kernel, normal(4, seed=1), iterations=100)
    loss = lambda kernel: jnp.sum(jnp.asarray(weights, jnp.float32) * norm.spectral_norm(kernel, u)[0])  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(kernel)
    value = lambda w: np.vdot(weights, w / np.linalg.svd(w, compute_uv=False)[0])  # noqa: E731
    np.testing.assert_allclose(np.vdot(gradient, kernel), 0, atol=1e-6)
    for seed in (3, 4, 5):
        step = 1e-6 * np.random.default_rng(seed).normal(size=(5, 4))
        slope = (value(np.float64(kernel) + step) - value(np.float64(kernel) - step)) / 2e-6
        np.testing.assert_allclose(np.vdot(gradient, step) / 1e-6, slope, rtol=1e-4)


def test_vectors_of_spectral_norm_are_held_constant():
    """Far from convergence: finite differences with the ``u`` and ``v`` of one iteration in NumPy, which stay."""
    kernel, u, weights = normal(5, 4), normal(4, seed=1), np.random.default_rng(2).normal(size=(5, 4))
    wide = np.float64(kernel)
    v = wide @ np.float64(u)
    v /= np.linalg.norm(v)
    after = v @ wide
    after /= np.linalg.norm(after)
    value = lambda w: np.vdot(weights, w / (v @ w @ after))  # noqa: E731
    loss = lambda kernel: jnp.sum(jnp.asarray(weights, jnp.float32) * norm.spectral_norm(kernel, u)[0])  # noqa: E731
    np.testing.assert_allclose(norm.spectral_norm(kernel, u)[1], after, rtol=1e-5)
    for seed in (3, 4, 5):
        step = 1e-6 * np.random.default_rng(seed).normal(size=(5, 4))
        slope = (value(wide + step) - value(wide - step)) / 2e-6
        np.testing.assert_allclose(np.vdot(jax.jit(jax.grad(loss))(kernel), step) / 1e-6, slope, rtol=1e-4)


def test_spectral_norm_of_nothing_is_finite():
    value, gradient = jax.value_and_grad(lambda w: jnp.sum(norm.spectral_norm(w, jnp.ones(4))[0]))(jnp.zeros((5, 4)))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_spectral_norm_keeps_the_dtype_of_the_kernel():
    kernel, u = normal(5, 4), normal(4, seed=1)
    half, after = norm.spectral_norm(kernel.astype(jnp.bfloat16), u)
    assert (half.dtype, after.dtype) == (jnp.bfloat16, jnp.float32)
    full, _ = norm.spectral_norm(kernel.astype(jnp.bfloat16).astype(jnp.float32), u)
    np.testing.assert_array_equal(half, full.astype(jnp.bfloat16))
