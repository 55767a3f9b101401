"""Normalisation by name: NumPy's moments, running averages by their recurrence, which kinds have parameters."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.norm import Norm, has_bias
from seqjax.nn.split import count, split

AXES = {"batch": (0, 1, 2), "instance": (1, 2), "affine_instance": (1, 2)}


def maps(seed=0, shift=0.0):
    return jnp.asarray(np.random.default_rng(seed).normal(shift, 2.0, size=(3, 4, 5, 6)), jnp.float32)


def standardised(x, axes):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize("kind", AXES)
def test_statistics_scale_and_bias(kind):
    norm, x = Norm(kind, 6, rngs=nnx.Rngs(0)), maps(shift=3.0)
    scale, bias = np.ones(6), np.zeros(6)
    if kind != "instance":
        holder = norm.batch if kind == "batch" else norm
        holder.bias[...] = jnp.arange(6.0)
        scale, bias = np.asarray(holder.scale[...]), np.arange(6.0)
    np.testing.assert_allclose(norm(x), standardised(x, AXES[kind]) * scale + bias, atol=1e-4)


def test_batch_statistics_stay_right_far_from_zero():
    """Of numbers around 300 the square of the mean is 10⁵ times the variance."""
    x = maps(shift=0.0) * 0.5 + 300
    norm = Norm("batch", 6, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norm(x), standardised(x, (0, 1, 2)) * np.asarray(norm.batch.scale[...]), atol=2e-3)


def test_none_changes_nothing():
    x = maps()
    np.testing.assert_array_equal(Norm("none", 6, rngs=nnx.Rngs(0))(x), x)


@pytest.mark.parametrize(
    ("kind", "number"), [("none", 0), ("instance", 0), ("affine_instance", 12), ("batch", 12), ("group", 12)]
)
def test_parameters_and_who_has_a_bias(kind, number):
    assert count({"net": Norm(kind, 6, rngs=nnx.Rngs(0))}) == number
    assert has_bias(kind) == (number > 0)


@pytest.mark.parametrize("kind", ["batch", "affine_instance"])
def test_scales_start_around_one_and_biases_from_zero(kind):
    params = split({"net": Norm(kind, 40_000, rngs=nnx.Rngs(0))}).params["net"]
    params = params.get("batch", params)
    assert float(params["scale"].mean()) == pytest.approx(1, abs=4 * 0.02 / 200)
    assert float(params["scale"].std()) == pytest.approx(0.02, rel=0.02)
    assert not np.any(params["bias"])


def test_running_averages_follow_the_batches_and_serve_when_asked():
    norm, first, second = Norm("batch", 6, rngs=nnx.Rngs(0)), maps(0, 1.0), maps(1, -2.0)
    mean, var = np.zeros(6), np.ones(6)
    for x in (first, second):
        norm(x)
        mean = 0.9 * mean + 0.1 * np.asarray(x, np.float64).mean((0, 1, 2))
        var = 0.9 * var + 0.1 * np.asarray(x, np.float64).var((0, 1, 2))
    np.testing.assert_allclose(norm.batch.mean[...], mean, atol=1e-5)
    np.testing.assert_allclose(norm.batch.var[...], var, rtol=1e-4)
    expected = (np.asarray(first) - mean) / np.sqrt(var + 1e-5) * np.asarray(norm.batch.scale[...])
    np.testing.assert_allclose(norm(first, running=True), expected, atol=1e-4)
    np.testing.assert_allclose(norm.batch.mean[...], mean, atol=1e-5)


@pytest.mark.parametrize("kind", AXES)
def test_whose_statistics_they_are(kind):
    """An image's neighbours act on it by batch normalisation, and by no other."""
    norm, x = Norm(kind, 6, rngs=nnx.Rngs(0)), maps()
    alone, among = norm(x[:1]), norm(x)[:1]
    assert (np.abs(alone - among).max() > 1e-2) == (kind == "batch")


@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (4, 1), (32, 2), (40, 5)])
def test_groups_of_sixteen_channels_or_of_what_divides_them(channels, groups):
    x = np.random.default_rng(0).normal(1, 2, (2, 3, 3, channels))
    grouped = x.reshape(2, 9, groups, channels // groups).swapaxes(1, 2)
    expected = standardised(grouped, (2, 3)).swapaxes(1, 2).reshape(x.shape)
    norm = Norm("group", channels, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected * np.asarray(norm.scale[...]), atol=1e-4)
