"""Oracles: SciPy's matrix square root, NumPy's moments in float64, and Gaussians whose distance is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqjax.errors import InputError
from seqjax.metrics.frechet import Gaussian, add_moments, fit, frechet_distance, gaussian_of, no_moments

ADD = jax.jit(add_moments)


def draw(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def by_square_root(a: Gaussian, b: Gaussian) -> float:
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    return np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root)


def accumulated(features, size, start=None, add=ADD):
    """Batches of `size`, the last one filled up with NaN of weight 0."""
    acc = no_moments(features.shape[1]) if start is None else start
    for k in range(0, len(features), size):
        rows = np.float32(features[k : k + size])
        weight = np.pad(np.ones(len(rows), np.float32), (0, size - len(rows)))
        rows = np.pad(rows, ((0, size - len(rows)), (0, 0)), constant_values=np.nan)
        acc = add(acc, jnp.asarray(rows), jnp.asarray(weight))
    return acc


def assert_moments(found: Gaussian, features):
    """Entries of the covariance to 6e-7 of the two standard deviations."""
    expected = fit(np.float32(features))
    sd = np.sqrt(np.diag(expected.covariance))
    assert found.n == expected.n == len(features)
    np.testing.assert_allclose((found.mean - expected.mean) / sd, 0, atol=6e-7)
    np.testing.assert_allclose((found.covariance - expected.covariance) / np.outer(sd, sd), 0, atol=6e-7)


def test_equals_the_formula_with_a_matrix_square_root():
    a, b = fit(draw(200, 12)), fit(draw(150, 12, seed=1))
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), rel=1e-8)


def test_diagonal_gaussians():
    rng = np.random.default_rng(0)
    a, b, shift = rng.uniform(0, 3, size=(3, 6))
    one, other = Gaussian(np.zeros(6), np.diag(a), 9), Gaussian(shift, np.diag(b), 9)
    expected = np.sum(shift**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [20, 200])
def test_zero_to_itself_symmetric_and_scaling(n):
    """20 features of 64 dimensions leave most of the covariance empty."""
    x, y = draw(n, 64), draw(n, 64, seed=1)
    a, b = fit(x), fit(y)
    distance = frechet_distance(a, b)
    scale = np.trace(a.covariance)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-5 * scale)
    assert frechet_distance(fit(3 * x), fit(3 * y)) == pytest.approx(9 * distance, rel=1e-5)
    turn = np.linalg.qr(draw(64, 64, seed=2))[0]
    assert frechet_distance(fit(x @ turn), fit(y @ turn)) == pytest.approx(distance, rel=1e-5)


def test_few_features_against_singular_values():
    """Without forming a covariance: Tr (Σ_a Σ_b)^½ is the nuclear norm of the product of the centred features."""
    x, y = draw(20, 64), draw(30, 64, seed=1)
    a, b = ((f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (x, y))
    norm = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * norm
    assert frechet_distance(fit(x), fit(y)) == pytest.approx(expected, rel=1e-6)


def test_of_one_value_everywhere_and_of_nan():
    flat = fit(np.ones((5, 3)))
    assert frechet_distance(flat, flat) == 0
    assert frechet_distance(flat, fit(draw(9, 3))) > 0
    assert np.isnan(frechet_distance(fit(np.full((5, 3), np.nan)), flat))


def test_moments_over_batches_with_padding_left_out():
    features = draw(1003, 8)
    assert_moments(gaussian_of(accumulated(features, 64)), features)


def test_moments_of_a_batch_of_padding_alone():
    features = draw(64, 8)
    padding = (jnp.full((4, 8), jnp.nan), jnp.zeros(4))
    acc = ADD(accumulated(features, 16, start=ADD(no_moments(8), *padding)), *padding)
    assert_moments(gaussian_of(acc), features)


@pytest.mark.parametrize("apart", [0, 100])
def test_moments_of_ill_conditioned_features(apart):
    """Means a hundred thousand times the spread, spreads over eight decades, and batches far apart or not."""
    rng = np.random.default_rng(0)
    spread = np.logspace(-4, 4, 9)
    features = (rng.normal(size=(2048, 9)) + 1e5 * rng.normal(size=9)) * spread
    features[:512] += apart * spread
    features = np.float32(features)
    assert_moments(gaussian_of(accumulated(features, 128)), features)
    plain = features.T @ features / len(features) - np.outer(features.mean(0), features.mean(0))
    assert np.abs(plain - np.cov(features.T.astype(np.float64))).max() > 1e4  # what float32 sums would make of it


def test_error_of_moments_does_not_grow_with_the_number_of_batches():
    features = np.float32(draw(8, 4))
    weight = jnp.ones(8)
    run = jax.jit(
        lambda acc: jax.lax.fori_loop(0, 20_000, lambda _, a: add_moments(a, jnp.asarray(features), weight), acc)
    )
    found, once = gaussian_of(run(no_moments(4))), fit(features)
    np.testing.assert_allclose(found.mean, once.mean, rtol=1e-6)
    expected = once.covariance * 7 / 8
    np.testing.assert_allclose(found.covariance * (found.n - 1) / found.n, expected, rtol=1e-6, atol=1e-7)


def test_moments_of_sharded_batches():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    add = jax.jit(add_moments, in_shardings=(everywhere, rows, rows), out_shardings=everywhere)
    features = draw(90, 8)
    start = jax.device_put(no_moments(8), everywhere)

    def sharded(acc, xs, weight):
        xs, weight = jax.device_put((xs, weight), rows)
        assert {shard.data.shape[0] for shard in xs.addressable_shards} == {8}
        return add(acc, xs, weight)

    assert_moments(gaussian_of(accumulated(features, 32, start, sharded)), features)


def test_nan_in_a_feature_that_counts_reaches_the_moments():
    features = draw(32, 4)
    features[5, 2] = np.nan
    assert np.isnan(gaussian_of(accumulated(features, 16)).mean[2])


def test_bfloat16_features_are_accumulated_in_float32():
    low = jnp.asarray(draw(256, 4), jnp.bfloat16)
    assert_moments(gaussian_of(ADD(no_moments(4), low, jnp.ones(256))), np.float32(low))


def test_refusals():
    with pytest.raises(InputError, match="0 of them were accumulated"):
        gaussian_of(no_moments(3))
    with pytest.raises(InputError, match="1 of them have no covariance"):
        fit(np.ones((1, 3)))
    with pytest.raises(InputError, match="of 3 and of 4 dimensions"):
        frechet_distance(fit(draw(9, 3)), fit(draw(9, 4)))
