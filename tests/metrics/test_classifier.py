"""Feed-forward classifiers trained on the spot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.metrics.baselines import feed_forward
from seqjax.metrics.classifier import mlp_logits, train_mlp


@pytest.fixture(scope="module")
def checkers():
    """Two pixels: classes 0 and 1 are told by the first alone, or only by whether both are alike."""
    levels = np.random.default_rng(0).integers(0, 256, (400, 1, 2, 1)).astype(np.uint8)
    bright = levels[:, 0, :, 0] > 127
    return levels, bright[:, 0].astype(np.int64), (bright[:, 0] == bright[:, 1]).astype(np.int64)


def test_a_linear_map_learns_what_is_linear_alone(checkers):
    images, first, alike = checkers

    def accuracy(labels, hidden):
        params = train_mlp(images, labels, hidden=hidden, steps=800, learning_rate=0.05)
        assert [layer.kernel.shape for layer in params] == list(zip((2, *hidden), (*hidden, 2), strict=True))
        return (np.asarray(mlp_logits(params, jnp.asarray(images))).argmax(axis=-1) == labels).mean()

    assert accuracy(first, ()) > 0.95
    assert accuracy(alike, ()) < 0.7
    assert accuracy(alike, (16,)) > 0.95


def test_logits_against_numpy(checkers):
    images, labels, _ = checkers
    params = train_mlp(images, labels, hidden=(3,), steps=2)
    (w, b), (v, c) = jax.tree.map(np.asarray, params)
    pixels = images.reshape(400, 2) / 255
    found = mlp_logits(params, jnp.asarray(images))
    np.testing.assert_allclose(found, np.maximum(pixels @ w + b, 0) @ v + c, rtol=1e-4, atol=1e-5)


def test_networks_by_name(checkers):
    images, first, _ = checkers
    found = feed_forward(images, first, {"none": (), "one": (16,)}, steps=50, batch=8)
    for name, hidden in {"none": (), "one": (16,)}.items():
        params = train_mlp(images, first, hidden=hidden, steps=50, batch=8)
        np.testing.assert_allclose(found[name](jnp.asarray(images)), mlp_logits(params, jnp.asarray(images)), rtol=1e-5)
    assert list(feed_forward(images, first, steps=1, batch=8)) == ["linear map", "2 layers of 64", "2 layers of 256"]
