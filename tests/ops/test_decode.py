"""Oracles: a Python loop over a table of next-token logits; frequencies of draws; truncation spelled out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from seqjax.errors import InputError
from seqjax.ops import decode

V, END, PAD, LENGTH = 5, 1, 0, 6
TABLE = np.float32(2 * np.random.default_rng(3).normal(size=(3, V, V)))
TABLE[0, :, END] = -9  # a row that does not end
START = jnp.asarray([2, 3, 4])


def step(carry, token):
    """Logits of the row's own table after that token; counts its calls in a shared scalar."""
    rows, calls = carry
    return (rows, calls + 1), rows[jnp.arange(len(token)), token]


def begin():
    return jnp.asarray(TABLE), jnp.zeros((), jnp.int32)


def loop(row, token):
    tokens, log_probs = [], []
    while len(tokens) < LENGTH and END not in tokens:
        logits = log_softmax(np.float64(TABLE[row, token]))
        token = int(np.argmax(logits))
        tokens.append(token)
        log_probs.append(logits[token])
    return tokens, log_probs


def assert_is(decoded, row, tokens, log_probs):
    padding = LENGTH - len(tokens)
    np.testing.assert_array_equal(decoded.tokens[row], tokens + [PAD] * padding)
    np.testing.assert_allclose(decoded.log_probs[row], log_probs + [0] * padding, rtol=1e-5, atol=1e-6)
    assert decoded.lengths[row] == len(tokens)


def test_greedy_equals_the_loop_row_by_row():
    decoded = jax.jit(lambda: decode.greedy(step, begin(), START, length=LENGTH, end=END, pad=PAD))()
    expected = [loop(row, int(token)) for row, token in enumerate(START)]
    assert len({len(tokens) for tokens, _ in expected}) > 1
    for row, (tokens, log_probs) in enumerate(expected):
        assert_is(decoded, row, tokens, log_probs)


@functools.partial(jax.jit, static_argnames=("temperature", "top_k"))
def sampled(key, **options):
    return decode.sample(step, begin(), START, length=LENGTH, end=END, pad=PAD, key=key, **options)


@pytest.mark.parametrize("options", [{"temperature": 1e-4}, {"top_k": 1}])
def test_cold_or_narrow_sampling_is_greedy(options):
    decoded = sampled(jax.random.key(0), **options)
    for row, token in enumerate(START):
        assert_is(decoded, row, *loop(row, int(token)))


def test_samples_have_the_probabilities_of_the_model():
    """First tokens of 4000 keys, within five standard errors; log-probabilities are the model's, padding apart."""
    decoded = jax.vmap(lambda key: sampled(key, temperature=2.0))(jax.random.split(jax.random.key(0), 4000))
    for row, token in enumerate(START):
        p = softmax(np.float64(TABLE[row, token]) / 2)
        frequencies = np.bincount(decoded.tokens[:, row, 0], minlength=V) / 4000
        assert (np.abs(frequencies - p) < 5 * np.sqrt(p * (1 - p) / 4000)).all()
        first = np.asarray(decoded.tokens[:, row, 0])
        expected = log_softmax(np.float64(TABLE[row, token]))[first]
        np.testing.assert_allclose(decoded.log_probs[:, row, 0], expected, rtol=1e-4)
    past = np.arange(LENGTH) >= np.asarray(decoded.lengths)[..., None]
    assert past.any()
    np.testing.assert_array_equal(np.asarray(decoded.tokens)[past], PAD)
    np.testing.assert_array_equal(np.asarray(decoded.log_probs)[past], 0)
    ended = (np.asarray(decoded.tokens) == END).any(axis=-1)
    np.testing.assert_array_equal(
        np.where(ended, (np.asarray(decoded.tokens) == END).argmax(-1) + 1, LENGTH), decoded.lengths
    )


def test_loop_ends_when_all_rows_have():
    table = jnp.full((2, V, V), 0.0).at[:, :, END].set(9.0)
    calls = []

    def counted(carry, token):
        jax.debug.callback(lambda: calls.append(1))
        return carry, carry[jnp.arange(2), token]

    decode.greedy(counted, table, jnp.asarray([2, 3]), length=50, end=END)
    jax.effects_barrier()
    assert len(calls) == 1


def left(logits, temperature, top_k, top_p):
    """By sorting in Python: the tokens that stay."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or len(logits)]
    p = softmax(np.float64(logits)[order] / temperature)
    reached = 0.0
    kept = []
    for i, probability in zip(order, p, strict=True):
        if top_p is None or reached < top_p:
            kept.append(i)
        reached += probability
    return set(kept)


@pytest.mark.parametrize("top_k", [None, 1, 3, 99])
@pytest.mark.parametrize("top_p", [None, 1e-6, 0.5, 0.9, 1.0])
def test_truncation_leaves_the_likeliest(top_k, top_p):
    logits = np.float32(np.random.default_rng(5).normal(size=(2, 3, 8)))
    found = np.asarray(decode.truncated(jnp.asarray(logits), temperature=0.7, top_k=top_k, top_p=top_p))
    for row, result in zip(logits.reshape(-1, 8), found.reshape(-1, 8), strict=True):
        stays = left(row, 0.7, top_k, top_p)
        assert {i for i in range(8) if result[i] > -np.inf} == stays
        np.testing.assert_allclose(result[list(stays)], row[list(stays)] / 0.7, rtol=1e-6)


def test_forbidden_tokens_stay_forbidden():
    found = decode.truncated(jnp.asarray([1.0, -jnp.inf, 0.0]), top_k=3, top_p=1.0)
    np.testing.assert_array_equal(found, [1.0, -np.inf, 0.0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("changes", [{"start": 1}, {"length": 0}])
def test_starts_and_lengths_that_cannot_be(changes):
    options = {"start": jnp.zeros(2, jnp.int32), "length": 3, "end": 1} | changes
    with pytest.raises(InputError, match="expected the token that begins each row"):
        decode.greedy(step, begin(), **options)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_what_cannot_be_is_refused_by_name(options):
    with pytest.raises(InputError, match="expected a temperature above 0"):
        decode.truncated(jnp.zeros(3), **options)
