"""Oracles: loops in NumPy, float64, each score from its formula; published equalities between scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.ops import attention

B, T, S, D, C, E = 2, 3, 5, 4, 6, 3
RNG = np.random.default_rng(0)
MASK = RNG.random((B, T, S)) < 0.6
MASK[0, 1] = False


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


QUERIES, VALUES = normal(B, T, D), normal(B, S, E)
KEYS = {"dot": D, "scaled_dot": D, "cosine": D, "general": C, "additive": C}
KEYS = {name: normal(B, S, width) for name, width in KEYS.items()}
EVERY_SCORE = pytest.mark.parametrize("name", KEYS)
ORACLES = {
    "dot": lambda p, q, k: q @ k,
    "scaled_dot": lambda p, q, k: q @ k / np.sqrt(len(k)),
    "general": lambda p, q, k: q @ p.kernel @ k,
    "additive": lambda p, q, k: p.score @ np.tanh(q @ p.query + k @ p.key + p.bias),
    "cosine": lambda p, q, k: np.exp(p.log_temperature) * (q @ k) / np.linalg.norm(q) / np.linalg.norm(k),
}


@functools.cache
def parameters(name):
    """None of them zero."""
    options = {"features": 7} if name == "additive" else {}
    start = getattr(attention, name).init(jax.random.key(0), D, KEYS[name].shape[-1], **options)
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), start)


def soft(logits, values, mask):
    """Weights and contexts, loop by loop."""
    weights, contexts = np.zeros(logits.shape), np.zeros((*logits.shape[:2], values.shape[-1]))
    for b, t in np.ndindex(logits.shape[:2]):
        seen = mask[b, t]
        if seen.any():
            e = np.exp(logits[b, t, seen] - logits[b, t, seen].max())
            weights[b, t, seen] = e / e.sum()
        contexts[b, t] = sum(w * v for w, v in zip(weights[b, t], values[b], strict=True))
    return weights, contexts


def scored(name, params):
    params = jax.tree.map(np.float64, params)
    q, k, logits = np.float64(QUERIES), np.float64(KEYS[name]), np.zeros((B, T, S))
    for b, t, s in np.ndindex(B, T, S):
        logits[b, t, s] = ORACLES[name](params, q[b, t], k[b, s])
    return logits


@functools.cache
def every_score():
    """Compiled at once, by name: gradients of ``Σ sin(context)`` in everything, contexts and weights, and the logits
    of single queries on what was projected before, as a decoder calls it."""

    def value(name, params, queries, keys, values):
        result = attention.attend(getattr(attention, name), params, queries, keys, values, mask=jnp.asarray(MASK))
        return jnp.sum(jnp.sin(result.context)), result

    def stepwise(name, params, queries, keys):
        score = getattr(attention, name)
        memory = score.project(params, keys)
        return jnp.concatenate([score.logits(params, queries[:, t : t + 1], memory) for t in range(T)], axis=1)

    @jax.jit
    def run(params, queries, keys, values):
        found = {}
        for name in KEYS:
            gradient = jax.grad(functools.partial(value, name), argnums=(0, 1, 2, 3), has_aux=True)
            arguments = params[name], queries, keys[name]
            found[name] = (*gradient(*arguments, values), stepwise(name, *arguments))
        return found

    return run({name: parameters(name) for name in KEYS}, QUERIES, KEYS, VALUES)


@EVERY_SCORE
def test_weights_and_contexts_equal_loops(name):
    weights, contexts = soft(scored(name, parameters(name)), np.float64(VALUES), MASK)
    _, result, _ = every_score()[name]
    np.testing.assert_allclose(result.weights, weights, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(result.context, contexts, rtol=2e-5, atol=1e-6)


@EVERY_SCORE
def test_gradient_reaches_everything_but_what_is_hidden(name):
    gradients, result, _ = every_score()[name]
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0
    np.testing.assert_array_equal(gradients[1][0, 1], 0)
    np.testing.assert_array_equal(result.context[0, 1], 0)
    assert not MASK[0, :, 0].any() or np.abs(gradients[3][0, 0]).max() > 0
    np.testing.assert_array_equal(np.abs(gradients[3]).max(axis=-1) > 0, MASK.any(axis=1))


@EVERY_SCORE
def test_memory_projected_once_serves_single_steps(name):
    _, _, logits = every_score()[name]
    np.testing.assert_allclose(logits, scored(name, parameters(name)), rtol=2e-5, atol=2e-6)


def test_additive_is_the_score_of_query_and_key_concatenated():
    """Luong's concat: one matrix for both, which is that of the query above that of the key."""
    params = parameters("additive")._replace(bias=jnp.zeros(7))
    both = np.concatenate(
        [
            np.broadcast_to(x, (B, T, S, x.shape[-1]))
            for x in (np.float64(QUERIES)[:, :, None], np.float64(KEYS["additive"])[:, None])
        ],
        axis=-1,
    )
    expected = np.tanh(both @ np.concatenate([params.query, params.key])) @ np.float64(params.score)
    memory = attention.additive.project(params, KEYS["additive"])
    np.testing.assert_allclose(attention.additive.logits(params, QUERIES, memory), expected, rtol=1e-5, atol=1e-6)


def test_keys_and_values_permuted_together_change_nothing_and_equal_scores_are_a_mean():
    order = np.array([3, 0, 4, 1, 2])
    straight = attention.attend(attention.dot, (), QUERIES, KEYS["dot"], VALUES)
    permuted = attention.attend(attention.dot, (), QUERIES, KEYS["dot"][:, order], VALUES[:, order])
    np.testing.assert_allclose(straight.context, permuted.context, rtol=1e-5, atol=1e-6)
    even = attention.soft_attention(jnp.zeros((B, T, S)), VALUES)
    np.testing.assert_allclose(even.context[:, 0], np.mean(VALUES, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(even.weights, np.full((B, T, S), 1 / S), rtol=1e-6)


def test_keys_are_the_values_unless_given():
    result = attention.attend(attention.dot, (), QUERIES, KEYS["dot"])
    np.testing.assert_array_equal(
        result.context, attention.attend(attention.dot, (), QUERIES, KEYS["dot"], KEYS["dot"]).context
    )


def test_bfloat16_values_come_back_and_weights_are_float32():
    half = [x.astype(jnp.bfloat16) for x in (QUERIES, KEYS["dot"], VALUES)]
    result = attention.attend(attention.scaled_dot, (), *half)
    assert (result.context.dtype, result.weights.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float32(result.weights).sum(-1), np.ones((B, T)), rtol=1e-6)


def test_one_query_over_a_map_is_one_over_its_positions():
    maps, values, mask = normal(B, 2, 3, D), normal(B, 2, 3, E), jnp.asarray([[[True, False, True]] * 2] * B)
    context, weights = attention.attend_over_maps(attention.dot, (), QUERIES[:, 0], maps, values, mask=mask)
    logits = np.einsum("bd,bhwd->bhw", QUERIES[:, 0], maps).reshape(B, 1, 6)
    expected, contexts = soft(logits, np.reshape(values, (B, 6, E)), np.reshape(mask, (B, 1, 6)))
    np.testing.assert_allclose(weights, expected.reshape(B, 2, 3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(context, contexts[:, 0], rtol=1e-5, atol=1e-6)


def test_coverage_penalty_of_known_weights():
    """Two steps, three keys: keys get 1.5, 0.5 and 0 in all; at a target that can be met even weights cost nothing."""
    weights = jnp.asarray([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]])
    np.testing.assert_allclose(attention.coverage_penalty(weights), [0.25 + 0.25 + 1.0], rtol=1e-6)
    even = jnp.full((2, 4, 3), 1 / 3)
    np.testing.assert_allclose(attention.coverage_penalty(even, target=jnp.full(2, 4 / 3)), [0, 0], atol=1e-6)


@functools.cache
def drawn(number=4000):
    """Samples from one row of logits with a hidden key, and from one that sees nothing."""
    logits = jnp.broadcast_to(jnp.asarray([[1.0, -1.0, 0.5, 2.0], [0.0, 0.0, 0.0, 0.0]])[None], (number, 2, 4))
    mask = jnp.asarray([[[True, True, True, False], [False] * 4]])
    values = jnp.broadcast_to(jnp.arange(4.0)[None, :, None], (number, 4, 1))
    sample = jax.jit(lambda key: attention.hard_attention(logits, values, mask=mask, key=key))
    return np.asarray(logits[0, 0, :3], np.float64), sample(jax.random.key(0))


def test_hard_attention_draws_with_the_soft_weights():
    """Bound: five standard errors of each frequency."""
    logits, sampled = drawn()
    p = np.exp(logits) / np.exp(logits).sum()
    frequencies = np.asarray(sampled.weights[:, 0]).mean(axis=0)
    assert frequencies[3] == 0
    assert (np.abs(frequencies[:3] - p) < 5 * np.sqrt(p * (1 - p) / 4000)).all()
    chosen = np.argmax(sampled.weights[:, 0], axis=-1)
    np.testing.assert_array_equal(sampled.context[:, 0, 0], chosen)
    np.testing.assert_allclose(sampled.log_prob[:, 0], np.log(p)[chosen], rtol=1e-5)
    np.testing.assert_allclose(sampled.entropy[:, 0], np.full(4000, -(p * np.log(p)).sum()), rtol=1e-5)
    for nothing in (sampled.weights[:, 1], sampled.context[:, 1], sampled.log_prob[:, 1], sampled.entropy[:, 1]):
        np.testing.assert_array_equal(nothing, 0)


def test_hard_attention_without_a_key_takes_the_likeliest():
    logits = normal(B, T, S)
    sampled = attention.hard_attention(logits, VALUES, key=None)
    best = np.argmax(logits, axis=-1)
    np.testing.assert_array_equal(sampled.context, np.stack([VALUES[b][best[b]] for b in range(B)]))


def test_rows_that_are_soft_get_the_expectation_with_its_gradient():
    logits, rows = normal(B, T, S), jnp.asarray([True, False])

    def context(logits):
        return attention.hard_attention(logits, VALUES, soft=rows, key=jax.random.key(0))

    sampled, expected = context(logits), attention.soft_attention(logits, VALUES)
    np.testing.assert_allclose(sampled.context[0], expected.context[0], rtol=1e-6)
    np.testing.assert_array_equal(sampled.log_prob[0], 0)
    assert set(np.unique(sampled.weights[1])) == {0, 1}
    gradient = jax.grad(lambda z: jnp.sum(jnp.sin(context(z).context)))(logits)
    assert np.abs(gradient[0]).min() > 0
    np.testing.assert_array_equal(gradient[1], 0)


def test_nothing_has_no_direction_and_no_gradient():
    """Zero vectors, seen and hidden, are what padding often is; where they are hidden they change nothing at all."""
    params, queries = attention.cosine.init(jax.random.key(0), D, D), QUERIES.at[0, 0].set(0)
    keys = KEYS["cosine"].at[:, 3:].set(0)

    def value(queries, keys):
        mask = jnp.broadcast_to(jnp.arange(keys.shape[1]) < 4, (B, T, keys.shape[1]))
        values = VALUES[:, : keys.shape[1]]
        return jnp.sum(jnp.sin(attention.attend(attention.cosine, params, queries, keys, values, mask=mask).context))

    found, few = (jax.grad(value, argnums=(0, 1))(queries, k) for k in (keys, keys[:, :4]))
    np.testing.assert_array_equal(found[0][0, 0], 0)
    np.testing.assert_array_equal(found[1][:, 3:], 0)
    assert np.abs(found[0][1]).min() > 0
    np.testing.assert_allclose(found[0], few[0], atol=1e-6)


def test_cosines_of_large_half_precision_vectors():
    """Their squares are beyond float16."""
    q, k = (20 * np.random.default_rng(1).normal(size=(2, 1, 2, 512))).astype(np.float16)
    params = attention.cosine.init(jax.random.key(0), 512, 512)
    logits = attention.cosine.logits(params, jnp.asarray(q), attention.cosine.project(params, jnp.asarray(k)))
    wide = np.float64(q[0]), np.float64(k[0])
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in wide)
    np.testing.assert_allclose(logits[0], q @ k.T, atol=1e-3)
