"""The captioner that is given the image once: its three feeds in NumPy loops, its writing, how its parameters start."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.systems import told_images
from nn.filled import run_all

from seqjax import compat
from seqjax.models.language.captioner import Config, build, likelihoods, loss, predict
from seqjax.nn.split import initialise

KEY = jax.random.key(0)
TINY = Config.tiny()
BATCH = {name: jnp.asarray(array) for name, array in told_images(TINY, 4).items()}


def make(**options):
    return initialise(functools.partial(build, dataclasses.replace(TINY, **options)), 0)


def by_hand(nets, feed, ids):
    """Log-probabilities ``[B, T, V]`` of an Elman network."""
    decoder = nets["decoder"]
    own = jax.tree.map(np.asarray, compat.pure(decoder.recurrent))
    words, image = np.asarray(decoder.words.embedding[...]), np.asarray(decoder.image.kernel[...])
    maps = np.asarray(nets["encoder"](BATCH["image"]))
    seen = maps.reshape(len(maps), -1) @ image
    h = np.zeros((len(maps), own.bias.size))
    if feed == "word":
        h = np.tanh(seen @ own.input + h @ own.recurrent + own.bias)
    found = []
    for t in range(ids.shape[1]):
        given = seen if feed == "every" or (feed == "first" and t == 0) else 0
        h = np.tanh(words[ids[:, t]] @ own.input + h @ own.recurrent + own.bias + given)
        logits = h @ np.asarray(decoder.out.kernel[...]) + np.asarray(decoder.out.bias[...])
        found.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("feed", ["first", "every", "word"])
def test_likelihoods_and_greedy_captions_against_loops_in_numpy(feed):
    nets = make(image_feed=feed)
    found, (value, _) = run_all(nets, lambda nets, batch: (predict(nets, batch), loss(nets, batch, key=KEY)), BATCH)
    ids = np.asarray(BATCH["captions"])
    log_probs = by_hand(nets, feed, ids[:, :-1])
    costs = -np.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0] * (ids[:, 1:] != 0)
    np.testing.assert_allclose(found["nll"], costs.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(value, costs.sum(axis=1).mean(), rtol=1e-4)

    written = np.ones((4, 1), int)
    for _ in range(TINY.length):
        last = by_hand(nets, feed, written)[:, -1]
        last[:, [0, 1, 3]] = -np.inf
        ended = (written == 2).any(axis=1)
        written = np.concatenate([written, np.where(ended, 0, last.argmax(axis=1))[:, None]], axis=1)
    np.testing.assert_array_equal(found["captions"], written[:, 1:])


@pytest.mark.parametrize("feed", ["first", "word"])
def test_likelihoods_of_every_caption_for_every_image(feed):
    """Each of three captions under each of four images, one at a time; one of them is of two words and padding."""
    nets = make(image_feed=feed)
    captions = np.stack([*np.asarray(BATCH["captions"])[:2], [1, 5, 6, 2, 0]])
    found = run_all(nets, lambda nets, batch: likelihoods(nets, batch, jnp.asarray(captions)), BATCH)
    assert found.shape == (4, 3)
    for m, ids in enumerate(captions):
        log_probs = by_hand(nets, feed, np.tile(ids[:-1], (4, 1)))
        expected = sum(log_probs[:, t, token] for t, token in enumerate(ids[1:]) if token)
        np.testing.assert_allclose(found[:, m], expected, rtol=1e-4)


def test_training_begins_at_the_frequencies_of_the_words():
    """Where nothing else speaks, the first predictions are the counts' shares; what never occurs counts as once."""
    counts = np.array([0, 0, 6, 0, 4, 0, 2, 9, 5], np.float32)
    nets = initialise(functools.partial(build, TINY, counts=jnp.asarray(counts)), 0)
    least = np.maximum(counts, 1)
    shares = jax.nn.softmax(nets["decoder"].out.bias[...])
    np.testing.assert_allclose(shares, least / least.sum(), rtol=1e-5)
    assert nets["decoder"].out.bias[...].max() == 0


def test_kernels_start_as_in_neuraltalk():
    nets = make(initial="neuraltalk")["decoder"]
    recurrent = compat.pure(nets.recurrent)
    kernels = [nets.words.embedding[...], nets.image.kernel[...], recurrent.input, recurrent.recurrent]
    for kernel, bound in (*((kernel, 0.1) for kernel in kernels), (nets.out.kernel[...], 0.01)):
        largest = np.abs(kernel).max()
        assert 0.8 * bound < largest <= bound
