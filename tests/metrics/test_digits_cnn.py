"""The network on real digits: it classifies them, and its distances put samplers in the order that an eye would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from seqjax.errors import InputError
from seqjax.metrics import baselines
from seqjax.metrics.digits_cnn import train_digits_cnn
from seqjax.metrics.features import extract
from seqjax.metrics.frechet import fit, frechet_distance
from seqjax.metrics.inception_score import inception_score
from seqjax.metrics.kid import squared_mmd

TRAIN = slice(0, 1297)
TEST = slice(1297, 1797)


@pytest.fixture(scope="module")
def digits():
    """1,797 digits of 16x16 in [-1, 1], in a random order, and their labels."""
    order = np.random.RandomState(0).permutation(1797)
    images = jnp.asarray(load_digits().images[order] / 16, jnp.float32)
    large = jax.image.resize(images, (1797, 16, 16), "bilinear")[..., None]
    return np.asarray(2 * large - 1), load_digits().target[order]


@pytest.fixture(scope="module")
def net(digits):
    images, labels = digits
    return train_digits_cnn(images[TRAIN], labels[TRAIN], images[TEST], labels[TEST])


@pytest.fixture(scope="module")
def reference(net, digits):
    return extract(net, digits[0][TRAIN])[0]


def test_classifies_held_out_digits(net, digits):
    features, probabilities = extract(net, digits[0][TEST])
    assert net.accuracy > 0.96
    assert net.accuracy == (probabilities.argmax(axis=1) == digits[1][TEST]).mean()
    assert features.shape == (500, net.dimension) == (500, 64)
    assert net.classes == 10
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_order_of_samplers(net, digits, reference):
    """Held-out digits, then the full-covariance Gaussian, means of two, pixel marginals, one class."""
    train, labels = digits[0][TRAIN], digits[1][TRAIN]
    samples = {
        "held out": digits[0][TEST],
        "gaussian": baselines.gaussian_pixels(train, 500),
        "mean of two": baselines.mean_of_two(train, 500),
        "marginals": baselines.pixel_marginals(train, 500),
        "one class": train[labels == 3],
    }
    found = {name: extract(net, images) for name, images in samples.items()}
    distances = {name: frechet_distance(fit(features), fit(reference)) for name, (features, _) in found.items()}
    scores = {name: inception_score(probabilities, splits=1)[0] for name, (_, probabilities) in found.items()}
    assert sorted(distances, key=distances.__getitem__) == list(samples)
    assert distances["held out"] < distances["gaussian"] / 3
    assert distances["gaussian"] < distances["mean of two"] / 1.5
    assert distances["mean of two"] < distances["marginals"] / 2
    assert max(scores, key=scores.__getitem__) == "held out"
    assert scores["held out"] > 9 > 2 > scores["marginals"] > scores["one class"]
    assert scores["one class"] == pytest.approx(1, abs=0.05)


def test_frechet_distance_of_few_samples_is_too_large_and_the_kernel_distance_is_not(net, digits, reference):
    features = extract(net, digits[0][TEST])[0]
    sizes, scale = (100, 200, 300, 500), reference.std()
    distances = [frechet_distance(fit(features[:n]), fit(reference)) for n in sizes]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2 * distances[-1]
    kernel = [squared_mmd(features[:n] / scale, reference / scale) for n in sizes]
    assert max(map(abs, kernel)) < 0.05
    assert kernel[0] < 2 * max(kernel)


def test_trained_once_for_the_same_data(net, digits):
    images, labels = digits
    data = (images[TRAIN], labels[TRAIN], images[TEST], labels[TEST])
    assert train_digits_cnn(*data) is net


def test_same_seed_same_weights_and_every_setting_its_own_network():
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, size=(40, 4, 4, 1)).astype(np.float32), np.arange(40) % 3
    data = (images, labels, images[:9], labels[:9])
    one, renamed, seeded = train_digits_cnn(*data), train_digits_cnn(*data, name="b"), train_digits_cnn(*data, seed=1)
    assert one.sha256 == renamed.sha256
    assert one.sha256 != seeded.sha256
    assert (one.name, renamed.name, one.classes) == ("digits-cnn", "b", 3)
    assert renamed.figure("fd") == "b-fd"


@pytest.mark.parametrize(("size", "held"), [(6, 1), (8, 0)])
def test_refusals(size, held):
    images, labels = np.zeros((4, size, size, 1), np.float32), np.arange(4)
    with pytest.raises(InputError, match=f"images of {size} pixels a side and {held} held-out"):
        train_digits_cnn(images, labels, images[:held], labels[:held])
