"""The CTC network: what padding and noise change, and that what it writes is what the decoders say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.models.language.ctc import Config, build, loss, predict, probabilities
from seqjax.nn.split import initialise
from seqjax.ops.ctc import best_path, prefix_beam_search

KEY = jax.random.key(0)
SMALL = {"inputs": 3, "labels": 2, "features": 4, "noise": 0.0, "longest": 4}
BATCH = {
    "features": jnp.asarray(np.random.default_rng(0).normal(0, 3, size=(2, 7, 3)), jnp.float32),
    "labels": jnp.asarray([[1, 2, 2], [2, 0, 0]]),
    "length": jnp.asarray([7, 4]),
}


@functools.cache
def made(**options):
    return initialise(functools.partial(build, Config(**(SMALL | options))), 0)


@functools.cache
def compiled(**options):
    """The loss of a batch and a key."""
    return jax.jit(functools.partial(loss, made(**options)))


def test_padding_changes_nothing():
    loss = compiled(layers=2)
    value, _ = loss(BATCH, key=KEY)
    filled = BATCH | {"features": BATCH["features"].at[1, 4:].set(9.0)}
    np.testing.assert_allclose(loss(filled, key=KEY)[0], value, rtol=1e-5)
    rows = [{name: x[i : i + 1] for name, x in BATCH.items()} for i in range(2)]
    rows[1] |= {"features": rows[1]["features"][:, :4], "labels": rows[1]["labels"][:, :1]}
    np.testing.assert_allclose(np.mean([loss(row, key=KEY)[0] for row in rows]), value, rtol=1e-5)


def test_noise_by_key_and_in_training_alone():
    quiet, noisy = made(), made(noise=0.6)
    np.testing.assert_array_equal(probabilities(noisy, BATCH), probabilities(quiet, BATCH))
    once, again, other = (float(compiled(noise=0.6)(BATCH, key=jax.random.key(i))[0]) for i in (0, 0, 1))
    assert once == again != other
    value = float(compiled()(BATCH, key=KEY)[0])
    assert value != once
    assert value == float(compiled()(BATCH, key=jax.random.key(1))[0])
    dropping, (deep, _) = compiled(dropout=0.5), compiled(layers=2)(BATCH, key=KEY)
    assert float(dropping(BATCH, key=KEY)[0]) == pytest.approx(value)  # of a first layer's input: none
    assert float(compiled(layers=2, dropout=0.5)(BATCH, key=KEY)[0]) != float(deep)


def test_what_is_written_is_what_the_decoders_say():
    logits = made()["recogniser"](BATCH["features"], BATCH["length"])
    np.testing.assert_allclose(probabilities(made(), BATCH), jax.nn.softmax(logits), rtol=1e-6)
    np.testing.assert_array_equal(predict(made(), BATCH), best_path(logits, BATCH["length"]).labels)
    found = prefix_beam_search(logits, BATCH["length"], beams=3, longest=4)
    np.testing.assert_array_equal(predict(made(beams=3), BATCH), found.labels[:, 0])


def test_labels_that_cannot_be_said_in_time_count_for_nothing():
    """Two of the same want a blank between them: three labels and four frames, or none."""
    labels = jnp.asarray([[1, 1, 2], [2, 0, 0]])
    can, cannot = (BATCH | {"labels": labels, "length": jnp.asarray([length, 4])} for length in (4, 3))
    value, metrics = loss(made(), can, key=KEY)
    assert 0 < float(value) < 100
    assert float(metrics["impossible"]) == 0
    value, metrics = loss(made(), cannot, key=KEY)
    other = loss(made(), {name: x[1:] for name, x in cannot.items()}, key=KEY)[0]
    np.testing.assert_allclose(value, other / 2, rtol=1e-5)
    assert float(metrics["impossible"]) == 0.5
