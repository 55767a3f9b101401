"""Trivial generators against the statistics that they are made to have."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.metrics.baselines import (
    captions,
    copied,
    gaussian_pixels,
    mean_of_two,
    nearest_pair,
    pixel_marginals,
    words_shared,
)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(50, 6)) @ rng.normal(size=(6, 12)) * 0.2 + 0.1).astype(np.float32).reshape(50, 2, 3, 2)


def test_gaussian_has_mean_and_covariance_of_the_pixels(images):
    flat = images.reshape(50, -1)
    samples = gaussian_pixels(images, 20_000, low=-99.0, high=99.0).reshape(20_000, -1)
    np.testing.assert_allclose(samples.mean(axis=0), flat.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(samples.T), np.cov(flat.T), atol=0.03)
    assert abs(gaussian_pixels(images, 100)).max() == 1


def test_marginals_keep_each_pixel_and_lose_what_binds_them(images):
    flat, samples = images.reshape(50, -1), pixel_marginals(images, 20_000).reshape(20_000, -1)
    for k in range(12):
        assert set(samples[:, k]) == set(flat[:, k])
    np.testing.assert_allclose(samples.mean(axis=0), flat.mean(axis=0), atol=0.02)
    covariance = np.cov(samples.T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=0.03)
    assert np.abs(np.cov(flat.T) - np.diag(np.diag(np.cov(flat.T)))).max() > 0.1


def test_means_of_two_are_means_of_two(images):
    pairs = {((a + b) / 2).tobytes() for a in images for b in images}
    samples = mean_of_two(images, 30)
    assert all(sample.tobytes() in pairs for sample in samples)
    assert len({sample.tobytes() for sample in samples}) > 25


@pytest.mark.parametrize("sample", [gaussian_pixels, pixel_marginals, mean_of_two])
def test_reproducible_by_seed_and_shaped_like_the_images(sample, images):
    one, again, other = (sample(images, 7, seed=seed) for seed in (0, 0, 1))
    assert one.shape == (7, 2, 3, 2)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_nearest_pair_is_that_of_the_loop():
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(0, 256, (9, 3, 3, c), dtype=np.uint8) for c in (1, 3))
    queries = np.clip(inputs[[4, 0, 7]].astype(int) + rng.integers(-30, 30, (3, 3, 3, 1)), 0, 255).astype(np.uint8)
    found = nearest_pair(inputs, targets, jnp.asarray(queries))
    for query, image in zip(queries, found, strict=True):
        gaps = [((query.astype(float) - known) ** 2).sum() for known in inputs]
        np.testing.assert_allclose(image, targets[int(np.argmin(gaps))] / 127.5 - 1, atol=1e-6)


def test_captions_are_the_commonest_and_that_of_the_nearest_image():
    images = np.array([0, 100, 200, 210], np.uint8).reshape(4, 1, 1, 1)
    ids = np.array([[1, 7, 2], [1, 9, 2], [1, 5, 2], [1, 7, 2]])
    queries = jnp.asarray([140, 208], jnp.uint8).reshape(2, 1, 1, 1)
    found = {name: np.asarray(caption(queries)).tolist() for name, caption in captions(images, ids).items()}
    assert found == {"commonest caption": [[1, 7, 2]] * 2, "nearest picture": [[1, 9, 2], [1, 7, 2]]}


def test_words_that_a_caption_shares_with_the_one_told():
    found = words_shared(jnp.asarray([[1, 7, 2], [1, 9, 5]]), np.array([[1, 7, 5], [1, 9, 5]]))
    assert found.tolist() == [[2, 1], [2, 3]]


def test_a_source_is_copied_in_the_ids_of_the_target():
    """BOS is left out; a translation may be two longer, and has a place for its end."""
    same = np.array([0, 1, 2, 3, 7, 6])
    assert copied(same, 2)(None, {"source": jnp.asarray([[1, 4, 5, 2, 0]])}).tolist() == [[7, 6, 2, 0, 0, 0, 0]]
