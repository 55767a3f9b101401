"""Best of several samples: against a NumPy loop over all samples, nested sets, pairs by hand; bands by SciPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from seqjax.errors import InputError
from seqjax.metrics.samples import best_of, curves

B, T, SIDE = 3, 4, 12
KEY = jax.random.key(7)
TARGET = np.random.default_rng(0).random((B, T, SIDE, SIDE, 1)).astype(np.float32)


def draw(key):
    """The truth and noise, more of it in some samples and frames than in others."""
    key_size, key_noise = jax.random.split(key)
    size = 0.4 * jax.random.uniform(key_size, (B, T, 1, 1, 1))
    return jnp.asarray(TARGET) + size * jax.random.normal(key_noise, TARGET.shape)


@functools.cache
def best(number):
    call = jax.jit(lambda key: best_of(draw, jnp.asarray(TARGET), number=number, key=key))
    return jax.tree.map(np.asarray, call(KEY))


def all_samples(number):
    return np.stack([np.asarray(draw(jax.random.fold_in(KEY, i)), np.float64) for i in range(number)])


def test_curves_of_the_sample_that_is_best_on_average():
    """Per clip and figure, from scikit-image's figures of every frame of every sample."""
    samples, target, window = all_samples(6), np.float64(TARGET), {"gaussian_weights": True, "sigma": 1.5}
    ssim, psnr = np.zeros((2, 6, B, T))
    for n, b, t in np.ndindex(6, B, T):
        x, y = samples[n, b, t, ..., 0].clip(0, 1), target[b, t, ..., 0]
        ssim[n, b, t] = structural_similarity(x, y, data_range=1, use_sample_covariance=False, **window)
        psnr[n, b, t] = peak_signal_noise_ratio(y, x, data_range=1)
    mse, found = np.square(samples - target).sum((3, 4, 5)), best(6)
    for name, figures, pick in (("mse", mse, np.argmin), ("psnr", psnr, np.argmax), ("ssim", ssim, np.argmax)):
        chosen = pick(figures.mean(axis=2), axis=0)
        np.testing.assert_allclose(found[name], figures[chosen, np.arange(B)], rtol=1e-4, err_msg=name)


def test_more_samples_are_never_worse():
    means = [{name: curve.mean(axis=1) for name, curve in best(number).items()} for number in (1, 2, 6, 12)]
    for fewer, more in itertools.pairwise(means):
        assert (more["mse"] <= fewer["mse"]).all()
        assert (more["psnr"] >= fewer["psnr"]).all()
        assert (more["ssim"] >= fewer["ssim"]).all()
    assert (means[-1]["mse"] < means[0]["mse"]).any()


def test_diversity_is_the_mean_distance_of_pairs():
    samples = all_samples(6)
    pairs = [np.square(samples[i] - samples[j]).sum((2, 3, 4)) for i in range(6) for j in range(i)]
    np.testing.assert_allclose(best(6)["diversity"], np.mean(pairs, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(best(1)["diversity"], 0)


def test_one_sample_drawn_many_times_has_no_diversity_and_no_choice():
    found = best_of(lambda key: draw(KEY), jnp.asarray(TARGET), number=5, key=KEY, names=("mse",))
    assert found.keys() == {"mse", "diversity"}
    np.testing.assert_allclose(found["diversity"], 0, atol=1e-9)
    np.testing.assert_allclose(found["mse"], np.square(np.asarray(draw(KEY)) - TARGET).sum((2, 3, 4)), rtol=1e-5)


def test_a_sample_that_is_not_a_number_is_seen():
    def broken(key):
        return jnp.where((key == jax.random.fold_in(KEY, 2)).reshape(()), jnp.nan, 1.0) * draw(key)

    found = best_of(broken, jnp.asarray(TARGET), number=4, key=KEY)
    assert all(np.isnan(curve).all() for curve in found.values())


def test_no_sample_is_refused():
    with pytest.raises(InputError, match="number=0"):
        best_of(draw, jnp.asarray(TARGET), number=0, key=KEY)


def test_averages_and_bands_over_clips():
    """SciPy's standard error; a padded row, whatever it holds, leaves no trace, nor do the cuts between batches."""
    rows = np.random.default_rng(1).normal(3, 2, (7, T)).astype(np.float32)
    metric = curves(("mse",), frames=T)
    acc = metric.init()
    for batch, weight in (
        (rows[:4], [1, 1, 1, 1]),
        (np.concatenate([rows[4:], np.full((1, T), np.nan)]), [1, 1, 1, 0]),
    ):
        inputs = {"mse": jnp.asarray(batch, jnp.float32)}, {"weight": jnp.asarray(weight, jnp.float32)}
        acc = jax.jit(metric.accumulate)(acc, *inputs)
    figures = metric.finish(acc)
    assert figures.keys() == {"mse", "mse_by_frame", "mse_band"}
    np.testing.assert_allclose(figures["mse"], rows.mean(), rtol=1e-5)
    np.testing.assert_allclose(figures["mse_by_frame"], rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(figures["mse_band"], 1.96 * stats.sem(rows, axis=0), rtol=1e-4)
