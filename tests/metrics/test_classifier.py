"""Feed-forward classifiers trained on the spot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from scipy.special import log_softmax, logsumexp

from seqjax.metrics.baselines import feed_forward
from seqjax.metrics.classifier import frame_cnn_logits, mlp_logits, train_frame_cnn, train_mlp


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


def test_frames_of_a_video_are_told_apart_and_their_order_is_not():
    """Bright squares on the left or on the right; then those that go from left to right or back."""
    rng = np.random.default_rng(0)
    sides, noise = rng.integers(0, 2, 300), rng.integers(0, 50, (300, 2, 4, 4, 1))
    still, moving = noise.copy(), noise.copy()
    for b, side in enumerate(sides):
        still[b, :, 1:3, 2 * side : 2 * side + 2] = 200
        moving[b, 0, 1:3, 2 * side : 2 * side + 2] = moving[b, 1, 1:3, 2 - 2 * side : 4 - 2 * side] = 200

    def accuracy(videos):
        params = train_frame_cnn(videos.astype(np.uint8), sides, widths=(3, 4), steps=200)
        said = np.asarray(frame_cnn_logits(params, jnp.asarray(videos[150:], jnp.uint8)))
        np.testing.assert_allclose(np.exp(said).sum(axis=-1), 1, rtol=1e-5)
        return (said.argmax(axis=-1) == sides[150:]).mean()

    assert accuracy(still) > 0.95
    assert accuracy(moving) < 0.7


def test_frame_probabilities_against_numpy():
    videos = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 2)).astype(np.uint8)
    params = train_frame_cnn(videos, np.array([0, 1]), widths=(3,), steps=2)
    (w, b), (v, c) = jax.tree.map(np.float64, params)
    found = frame_cnn_logits(params, jnp.asarray(videos))
    for video, log_p in zip(videos / 255, found, strict=True):
        rows = []
        for x in video:
            maps = [sum(correlate2d(x[..., i], w[..., i, d], mode="same") for i in range(2)) + b[d] for d in range(3)]
            h = np.maximum(np.stack(maps, axis=-1), 0).reshape(2, 2, 2, 2, 3).max(axis=(1, 3))
            rows.append(log_softmax(h.reshape(-1) @ v + c))
        np.testing.assert_allclose(log_p, logsumexp(rows, axis=0) - np.log(3), rtol=1e-4, atol=1e-5)


def test_networks_by_name(checkers):
    images, first, _ = checkers
    found = feed_forward(images, first, {"none": (), "one": (16,)}, steps=50, batch=8)
    for name, hidden in {"none": (), "one": (16,)}.items():
        params = train_mlp(images, first, hidden=hidden, steps=50, batch=8)
        np.testing.assert_allclose(found[name](jnp.asarray(images)), mlp_logits(params, jnp.asarray(images)), rtol=1e-5)
    assert list(feed_forward(images, first, steps=1, batch=8)) == ["linear map", "2 layers of 64", "2 layers of 256"]
