"""Costs of tokens against NumPy, padding, and the least that smoothing leaves."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from seqjax.data import text
from seqjax.ops import tokens
from seqjax.ops.tokens import BOS, EOS, PAD, forbidden, lengths, token_accuracy, token_cross_entropy, token_mean, write

V = 12
TARGETS = jnp.asarray([[BOS, 7, 4, EOS, PAD], [BOS, EOS, PAD, PAD, PAD]])
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, V)), jnp.float32)


def test_ids_are_those_of_the_data():
    assert (tokens.PAD, tokens.BOS, tokens.EOS, tokens.UNK) == (text.PAD, text.BOS, text.EOS, text.UNK)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cost_of_each_token(smoothing):
    found = token_cross_entropy(LOGITS, TARGETS, smoothing=smoothing)
    logs = log_softmax(np.float64(LOGITS), axis=-1)
    for b, t in np.ndindex(2, 5):
        aim = (1 - smoothing) * np.eye(V)[TARGETS[b, t]] + smoothing / V
        expected = -(aim * logs[b, t]).sum() if TARGETS[b, t] else 0.0
        np.testing.assert_allclose(found[b, t], expected, rtol=1e-5)
    assert float(token_mean(found, TARGETS)) == pytest.approx(float(found.sum()) / 6, rel=1e-6)


def test_least_cost_is_the_entropy_of_the_smoothed_target():
    """For 12 tokens and ε = 0.1 that is 0.52618."""
    aim = np.full(V, 0.1 / V)
    aim[7] += 0.9
    found = token_cross_entropy(jnp.asarray(np.log(aim), jnp.float32)[None], jnp.asarray([7]), smoothing=0.1)
    assert float(found[0]) == pytest.approx(0.52618, abs=1e-5)


def test_half_precision_is_summed_in_single():
    found = token_cross_entropy(LOGITS.astype(jnp.bfloat16), TARGETS, smoothing=0.1)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, token_cross_entropy(LOGITS, TARGETS, smoothing=0.1), rtol=0.02)


def test_padding_counts_for_nothing():
    assert lengths(TARGETS).tolist() == [4, 2]
    certain = 50.0 * jnp.eye(V)[TARGETS]
    assert token_accuracy(certain, TARGETS).tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert float(token_mean(jnp.zeros((2, 5)), jnp.zeros((2, 5), int))) == 0  # nothing but padding


def test_forbidden_tokens_are_never_the_likeliest():
    found = forbidden(jnp.broadcast_to(jnp.arange(V, 0.0, -1.0), (3, V)), PAD, BOS)
    assert jnp.argmax(found, axis=-1).tolist() == [EOS] * 3
    assert jnp.isneginf(found[:, [PAD, BOS]]).all()


@pytest.mark.parametrize("beams", [1, 40])
def test_what_is_written_is_the_likeliest_of_all_texts(beams):
    """A table of log-probabilities by last token; every text of up to three tokens is tried. The special tokens are the
    likeliest everywhere, and yet are not written. The greedy text is another than the best one."""
    table = np.full((6, 6), -5.0)
    table[:, [PAD, BOS, 3]] = 9.0
    table[BOS, 4:] = 1.0, 0.9
    table[4, [EOS, 4, 5]] = 0.0, 0.1, 0.0
    table[5, [EOS, 4, 5]] = 3.0, 0.0, 0.0
    step = lambda carry, token: (carry, jnp.asarray(table, jnp.float32)[token])  # noqa: E731
    found = np.asarray(write(step, jnp.zeros((2, 1)), 2, length=3, beams=beams))
    allowed = table[:, [EOS, 4, 5]]
    log_probs = dict(zip((EOS, 4, 5), (allowed - np.log(np.exp(allowed).sum(axis=1, keepdims=True))).T, strict=True))

    def score(text):
        return sum(log_probs[token][last] for last, token in itertools.pairwise((BOS, *text)))

    ended = [(*words, EOS) for n in range(3) for words in itertools.product((4, 5), repeat=n)]
    best = max(ended, key=score)
    greedy = (4, 4, 4)
    expected = greedy if beams == 1 else best
    assert best[0] == 5
    for row in found:
        assert tuple(row) == (*expected, *[PAD] * (3 - len(expected)))
