"""Oracle: loops over rows, heads and positions in NumPy float64; cached decoding against one call with all tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import multi_head
from seqjax.ops.position import alibi_slopes, rotary

B, T, S, D, C, N, K, H = 2, 5, 6, 8, 7, 4, 2, 4
XS, MEMORY = (jnp.asarray(np.random.default_rng(0).normal(size=(B, n, d)), jnp.float32) for n, d in ((T, D), (S, C)))


@functools.cache
def parameters(memory_features=None, bias=True):
    options = {"memory_features": memory_features, "key_heads": K, "head_features": H, "bias": bias}
    params = multi_head.init(jax.random.key(0), D, N, **options)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params)


def oracle(params, xs, memory, causal=False):
    params, xs, memory = jax.tree.map(np.float64, (params, xs, memory))
    out = np.zeros((*xs.shape[:2], params.output.shape[-1]))
    for b, t, n in np.ndindex(*xs.shape[:2], N):
        k = n // (N // K)
        bias = params.bias or multi_head.MultiHeadBias(np.zeros((N, H)), np.zeros((K, H)), np.zeros((K, H)), 0.0)
        query = xs[b, t] @ params.query[:, n] + bias.query[n]
        seen = memory[b, : t + 1] if causal else memory[b]
        scores = [query @ (m @ params.key[:, k] + bias.key[k]) / np.sqrt(H) for m in seen]
        weights = np.exp(scores) / np.exp(scores).sum()
        value = sum(w * (m @ params.value[:, k] + bias.value[k]) for w, m in zip(weights, seen, strict=True))
        out[b, t] += value @ params.output[n] + bias.output / N
    return out


@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention_equals_loops(bias):
    params = parameters(C, bias)

    @jax.jit
    def run(params, xs, memory):
        return multi_head.multi_head_attention(params, xs, multi_head.project(params, memory))

    np.testing.assert_allclose(run(params, XS, MEMORY), oracle(params, XS, MEMORY), rtol=1e-4, atol=1e-5)


def whole(params, xs, rotate=False, **options):
    """All tokens in one call."""
    positions = jnp.arange(xs.shape[1]) if rotate else None
    memory = multi_head.project(params, xs, positions=positions)
    return multi_head.multi_head_attention(params, xs, memory, positions=positions, causal=True, **options)


def test_causal_self_attention_equals_loops():
    params = parameters()
    np.testing.assert_allclose(jax.jit(whole)(params, XS), oracle(params, XS, XS, causal=True), rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_heads_sums():
    """Against softmax in NumPy, of a memory of which row 1 has four places."""
    params, lengths = parameters(C), jnp.asarray([6, 4])
    memory = multi_head.project(params, MEMORY)
    weights = multi_head.attention_weights(params, XS, memory, lengths=lengths)
    for b, t, n in np.ndindex(B, T, N):
        query = np.asarray(XS[b, t] @ params.query[:, n] + params.bias.query[n])
        expected = np.zeros(S)
        seen = np.exp([query @ k / np.sqrt(H) for k in np.asarray(memory.keys[b, : lengths[b], n // (N // K)])])
        expected[: lengths[b]] = seen / seen.sum()
        np.testing.assert_allclose(weights[b, n, t], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"rotate": True, "window": (2, 0)}, {"alibi": alibi_slopes(N)}], ids=["plain", "rotary", "alibi"]
)
def test_cached_calls_equal_one_call_with_all_tokens(options):
    """A prompt of three, then one at a time; the cache has more room than is used."""
    params = parameters()

    @jax.jit
    def run(params, xs):
        cache, outputs = multi_head.init_cache(params, (B,), T + 3), []
        for start, stop in ((0, 3), (3, 4), (4, 5)):
            cache, ys = multi_head.cached_attention(params, cache, xs[:, start:stop], **options)
            outputs.append(ys)
        return cache, jnp.concatenate(outputs, axis=1), whole(params, xs, **options)

    cache, cached, at_once = run(params, XS)
    np.testing.assert_allclose(cached, at_once, rtol=1e-5, atol=1e-5)
    assert int(cache.length) == T
    np.testing.assert_array_equal(cache.memory.keys[:, T:], 0)


def test_prompts_of_several_lengths_go_on_each_from_its_end():
    """Row 0 has a prompt of 3, row 1 of 1, padded; then two tokens each."""
    params, lengths = parameters(), jnp.asarray([3, 1])

    @jax.jit
    def run(params, xs):
        cache = multi_head.init_cache(params, (B,), 6)
        cache, _ = multi_head.cached_attention(params, cache, xs[:, :3], rotate=True)
        cache, outputs = cache._replace(length=lengths), []
        for i in range(2):
            new = jnp.stack([xs[0, 3 + i], xs[1, 1 + i]])[:, None]
            cache, ys = multi_head.cached_attention(params, cache, new, rotate=True)
            outputs.append(ys)
        return cache.length, jnp.concatenate(outputs, axis=1), whole(params, xs, rotate=True)

    length, outputs, at_once = run(params, XS)
    np.testing.assert_array_equal(length, [5, 3])
    np.testing.assert_allclose(outputs[0], at_once[0, 3:5], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs[1], at_once[1, 1:3], rtol=1e-5, atol=1e-5)


def test_memory_is_turned_by_its_own_positions():
    params, places = parameters(C), jnp.asarray([[0, 2, 4, 6, 8, 10]] * B)
    plain = multi_head.project(params, MEMORY)
    turned = multi_head.project(params, MEMORY, positions=places)
    np.testing.assert_allclose(turned.keys, rotary(plain.keys, places), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(turned.values, plain.values)


def test_start_is_xavier_uniform_over_all_heads_together():
    params = multi_head.init(jax.random.key(0), 64, 4)
    assert params.query.shape == params.key.shape == (64, 4, 16)
    assert params.output.shape == (4, 16, 64)
    for kernel in params[:4]:
        bound = np.sqrt(6 / 128)
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        assert float(kernel.std()) == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert all((leaf == 0).all() for leaf in params.bias)
    assert multi_head.init(jax.random.key(0), 8, 2, bias=False).bias is None


@pytest.mark.parametrize("options", [{"features": 10}, {"features": 8, "key_heads": 3}])
def test_heads_that_do_not_divide_are_refused(options):
    with pytest.raises(InputError, match="expected heads that divide"):
        multi_head.init(jax.random.key(0), **{"heads": 4} | options)
