"""Show, Attend and Tell: its equations in NumPy, steps and searches that agree, losses by hand, hard attention."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from laws.systems import told_images
from nn.filled import run_all

from seqjax import compat
from seqjax.models.language.show_attend_tell import Config, build, describe, likelihoods, loss, predict
from seqjax.nn.image_encoder import EncoderConfig
from seqjax.nn.split import initialise, merge, split
from seqjax.ops.tokens import EOS

KEY = jax.random.key(0)
TINY = dataclasses.replace(Config.tiny(), attention_layers=2, initial_layers=2, coverage=0.5)
BATCH = {name: jnp.asarray(array) for name, array in told_images(TINY, 4).items()}


def make(**options):
    return initialise(functools.partial(build, dataclasses.replace(TINY, **options)), 0)


def call(function, nets, *inputs):
    return run_all(nets, function, *inputs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def arrays(tree):
    return jax.tree.map(np.asarray, compat.pure(tree))


def by_hand(nets, ids):
    """Equations 1 to 13 of the paper with the code's layers, in loops; probabilities' logarithms and weights."""
    decoder = nets["decoder"]

    def dense(layer, x):
        return x @ np.asarray(layer.kernel[...]) + (0 if layer.bias is None else np.asarray(layer.bias[...]))

    own, words = arrays(decoder.recurrent), np.asarray(decoder.words.embedding[...])
    annotations = np.asarray(nets["encoder"](BATCH["image"]))
    annotations = annotations.reshape(len(annotations), -1, annotations.shape[-1])
    mean = np.maximum(dense(decoder.initial[0], annotations.mean(axis=1)), 0)
    h, c = np.tanh(dense(decoder.initial_h, mean)), np.tanh(dense(decoder.initial_c, mean))
    costs, weights = [], []
    for t in range(ids.shape[1] - 1):
        word = words[ids[:, t]]
        places = np.tanh(dense(decoder.deeper[0], annotations @ own.score.key + own.score.bias))
        scores = np.tanh(places + (h @ own.score.query)[:, None]) @ own.score.score
        alpha = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        seen = sigmoid(h @ own.gate.kernel + own.gate.bias) * (alpha[..., None] * annotations).sum(axis=1)
        gates = word @ own.lstm.input + seen @ own.context + h @ own.lstm.recurrent + own.lstm.bias
        i, f, g, o = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = dense(decoder.out, np.tanh(dense(decoder.from_state, h) + word + dense(decoder.from_context, seen)))
        costs.append(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids)), ids[:, t + 1]])
        weights.append(alpha)
    return np.stack(costs, axis=1), np.stack(weights, axis=1)


@pytest.fixture(scope="module")
def soft():
    nets = make(gate="vector")
    return nets, call(lambda nets, batch: (predict(nets, batch), loss(nets, batch, key=KEY)), nets, BATCH)


def test_soft_attention_against_loops_in_numpy(soft):
    nets, (found, (value, metrics)) = soft
    ids = np.asarray(BATCH["captions"])
    costs, weights = by_hand(nets, ids)
    counts = ids[:, 1:] != 0
    nll = (costs * counts).sum(axis=1)
    np.testing.assert_allclose(found["nll"], nll, rtol=1e-4)
    np.testing.assert_allclose(found["weights"].reshape(weights.shape), weights, atol=1e-5)
    coverage = np.mean(((1 - (weights * counts[..., None]).sum(axis=1)) ** 2).sum(axis=1))
    np.testing.assert_allclose(metrics["coverage"], coverage, rtol=1e-4)
    np.testing.assert_allclose(value, nll.mean() + 0.5 * coverage, rtol=1e-4)


def test_likelihoods_are_those_of_predict(soft):
    """Every caption under every image; pairs that belong together are on the diagonal."""
    nets, (found, _) = soft
    logs = call(lambda nets, batch: likelihoods(nets, batch, batch["captions"]), nets, BATCH)
    np.testing.assert_allclose(np.diag(logs), -found["nll"], rtol=1e-5)
    others = {**BATCH, "captions": jnp.roll(BATCH["captions"], 1, axis=0)}
    expected = -call(predict, nets, others)["nll"]
    np.testing.assert_allclose([logs[i, i - 1] for i in range(4)], expected, rtol=1e-5)


def test_captions_are_written_by_the_steps_that_are_trained(soft):
    """Greedy choices are the likeliest tokens when the caption itself is read, special ones aside."""
    nets, (found, _) = soft
    written = np.asarray(found["captions"])
    ids = jnp.concatenate([jnp.full((4, 1), 1, jnp.int32), found["captions"]], axis=1)

    def read(nets, batch, ids):
        decoder = nets["decoder"]
        return decoder(decoder.encode(nets["encoder"](batch["image"])), ids[:, :-1])[0]

    logits = np.array(call(read, nets, BATCH, ids))
    logits[..., [0, 1, 3]] = -np.inf
    for caption, likeliest in zip(written, logits.argmax(axis=-1), strict=True):
        end = np.flatnonzero(caption == EOS)
        number = end[0] + 1 if len(end) else len(caption)
        np.testing.assert_array_equal(caption[:number], likeliest[:number])
        assert not caption[number:].any()


def test_a_wider_search_finds_likelier_captions(soft):
    """Of 9^4 rows a beam of all tokens of two steps misses none of these; the likelihoods are those of ``predict``."""
    nets, (found, _) = soft
    wide = make(gate="vector", beams=30)

    def score(nets, batch):
        told = describe(nets, batch)
        ids = jnp.concatenate([jnp.ones((4, 1), jnp.int32), told["captions"]], axis=1)
        return predict(nets, batch | {"captions": ids})["nll"]

    greedy_ids = jnp.concatenate([jnp.ones((4, 1), jnp.int32), found["captions"]], axis=1)
    nll = call(predict, nets, BATCH | {"captions": greedy_ids})["nll"]
    assert (call(score, wide, BATCH) <= nll + 1e-5).all()


@pytest.mark.parametrize("reward", ["caption", "word"])
def test_hard_attention_sees_one_place_and_learns_where(reward):
    """With samples alone and no other weight on them, the score's gradient is the policy's: from rewards and baseline,
    by hand from the probabilities of the places that were drawn."""
    nets = make(attention="hard", expected=0.0, reward=reward, coverage=0.0, entropy=0.0, reward_weight=1.0)
    nets["decoder"].baseline[...] = jnp.asarray(-1.5)

    parts = split(nets)

    @jax.jit
    def gradients(params):
        def value(params):
            nets = merge(parts.graphs, params, parts.rest)
            total, _ = loss(nets, BATCH, key=KEY)
            return total, nets["decoder"].baseline[...]

        slopes, baseline = jax.grad(value, has_aux=True)(params)
        nets = merge(parts.graphs, params, parts.rest)
        encoded = nets["decoder"].encode(nets["encoder"](BATCH["image"]))
        logits, found = nets["decoder"](encoded, BATCH["captions"][:, :-1], key=KEY)
        return slopes["decoder"]["recurrent"].score.query, found, logits, baseline

    slope, found, logits, baseline = gradients(parts.params)
    assert set(np.unique(found.seen)) == {0.0, 1.0}
    ids = np.asarray(BATCH["captions"])
    counts = (ids[:, 1:] != 0).astype(float)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    costs = -np.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0] * counts
    means = (costs.sum(axis=1) / counts.sum(axis=1))[:, None]
    rewards = -costs if reward == "word" else -means * np.ones_like(costs)
    # The states do not depend on the query's kernel where sights are given, so this is all that reaches it.
    own, h0 = arrays(nets["decoder"].recurrent), initial_state(nets)
    before = np.concatenate([h0[:, None], np.asarray(found.h)[:, :-1]], axis=1)
    decoder = nets["decoder"]
    places = np.asarray(decoder.encode(nets["encoder"](BATCH["image"])).memory)
    hidden = np.tanh(places[:, None] + (before @ own.score.query)[:, :, None])
    towards = (np.asarray(found.seen) - np.asarray(found.weights))[..., None] * (1 - hidden**2) * own.score.score
    advantage = (rewards + 1.5) * counts
    expected = -np.einsum("bt,btd,bta->da", advantage, before, towards.sum(axis=2)) / len(ids)
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-6)
    mean = costs.sum() / counts.sum() if reward == "word" else means.mean()
    np.testing.assert_allclose(baseline, 0.9 * -1.5 - 0.1 * mean, rtol=1e-5)


def initial_state(nets):
    decoder = nets["decoder"]
    return np.asarray(decoder.init_state(decoder.encode(nets["encoder"](BATCH["image"]))).h)


def test_a_closed_gate_leaves_the_image_to_the_first_state():
    nets = make()

    def logits(nets, images, others):
        decoder = nets["decoder"]
        own = compat.pure(decoder.recurrent)
        shut = own._replace(gate=own.gate._replace(bias=jnp.full_like(own.gate.bias, -1e9)))
        decoder.recurrent = nnx.Param(shut)
        first, second = (decoder.encode(nets["encoder"](x)) for x in (images, others))
        # The mean annotation, from which the first state comes, is the first image's in both.
        mean = jnp.mean(first.annotations, axis=1, keepdims=True) - jnp.mean(second.annotations, axis=1, keepdims=True)
        second = second._replace(annotations=second.annotations + mean)
        return [decoder(encoded, BATCH["captions"][:, :-1])[0] for encoded in (first, second)]

    images = BATCH["image"]
    one, other = call(logits, nets, images, images[::-1])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_coverage_can_be_met_where_attention_is_even():
    nets = make(attention="mean", coverage_target="even")
    _, metrics = call(functools.partial(loss, key=KEY), nets, BATCH)
    np.testing.assert_allclose(metrics["coverage"], 0, atol=1e-10)


def test_dropout_is_off_without_a_key():
    nets = make(dropout=0.5)

    def costs(nets, batch):
        return loss(nets, batch, key=KEY)[1]["nll"], jnp.mean(predict(nets, batch)["nll"])

    dropped, whole = call(costs, nets, BATCH)
    assert abs(dropped - whole) > 1e-3
    np.testing.assert_allclose(whole, call(predict, make(dropout=0.0), BATCH)["nll"].mean(), rtol=1e-5)


def test_vgg_reads_fourteen_by_fourteen_places():
    nets = nnx.eval_shape(lambda: build(Config(), nnx.Rngs(0)))
    assert nets["decoder"].shape == (14, 14, 512)
    assert EncoderConfig().layer == "relu5_4"
