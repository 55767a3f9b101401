"""Transformer blocks against NumPy, with a cache and without, and what dropout and the order of tokens do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax import compat
from seqjax.nn.split import count, initialise, merge, split
from seqjax.nn.transformer import BlockConfig, DecoderBlock, EncoderBlock, FeedForward
from seqjax.ops.compose import dropped
from seqjax.ops.multi_head import multi_head_attention, project

B, T, S, D = 2, 5, 4, 8
XS, MEMORY = (jnp.asarray(np.random.default_rng(n).normal(size=(B, n, D)), jnp.float32) for n in (T, S))
SMALL = BlockConfig(features=D, heads=2, hidden=12)
PLACEMENTS = pytest.mark.parametrize("norm", ["pre", "post"])
RELATIVE = pytest.mark.parametrize("relative", [None, "rotary", "alibi"])


ORDERS = {"mixed": np.array([3, 0, 4, 1, 2]), "backwards": np.arange(T)[::-1]}


def made(kind, **options):
    """A block whose scales and biases are not those that it begins with."""
    config, rng = BlockConfig(**(vars(SMALL) | options)), np.random.default_rng(0)
    parts = split(initialise(lambda rngs: {"block": kind(config, rngs=rngs)}, 0))
    moved = jax.tree.map(lambda x: x + np.float32(0.1 * rng.normal(size=x.shape)), parts.params)
    return merge(parts.graphs, moved, parts.rest)["block"]


def normalised(norm, xs):
    xs = np.asarray(xs, np.float64)
    z = (xs - xs.mean(-1, keepdims=True)) / np.sqrt(xs.var(-1, keepdims=True) + 1e-6)
    return np.float32(z * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...]))


def fed(block, xs):
    inner, outer = block.feed_forward.input, block.feed_forward.output
    hidden = np.maximum(xs @ np.asarray(inner.kernel[...]) + np.asarray(inner.bias[...]), 0)
    return hidden @ np.asarray(outer.kernel[...]) + np.asarray(outer.bias[...])


def attended(attention, xs, memory, **options):
    params = compat.pure(attention)
    return np.asarray(multi_head_attention(params, jnp.asarray(xs), project(params, jnp.asarray(memory)), **options))


def looked(block, xs, seen):
    """Self-attention in loops; pairs of features are complex numbers that the distance alone turns."""
    own, out = jax.tree.map(np.float64, compat.pure(block.attention)), np.zeros(xs.shape)
    speeds = 10_000.0 ** (-2 * np.arange(2) / 4)
    for b, i, n in np.ndindex(B, T, 2):
        query = xs[b, i] @ own.query[:, n] + own.bias.query[n]
        scores = []
        for j in range(seen[b][i]):
            key = xs[b, j] @ own.key[:, n] + own.bias.key[n]
            turn = np.exp(1j * (i - j) * speeds) if block.config.relative == "rotary" else np.ones(2)
            pairs = (query[::2] + 1j * query[1::2]) * np.conj(key[::2] + 1j * key[1::2]) * turn
            slope = (2**-4, 2**-8)[n] if block.config.relative == "alibi" else 0
            scores.append(pairs.real.sum() / 2 - slope * abs(i - j))
        weights = np.exp(scores) / np.exp(scores).sum()
        values = [xs[b, j] @ own.value[:, n] + own.bias.value[n] for j in range(seen[b][i])]
        out[b, i] += weights @ np.stack(values) @ own.output[n] + own.bias.output / 2
    return np.float32(out)


def summed(block, norm, xs, part):
    if block.config.norm == "pre":
        return xs + part(normalised(norm, xs))
    return normalised(norm, xs + part(xs))


@RELATIVE
@PLACEMENTS
def test_encoder_block(norm, relative):
    block, lengths = made(EncoderBlock, norm=norm, relative=relative), jnp.asarray([5, 3])
    xs = np.asarray(XS)
    xs = summed(block, block.attention_norm, xs, lambda x: looked(block, x, [[5] * T, [3] * T]))
    xs = summed(block, block.feed_forward_norm, xs, lambda x: fed(block, x))
    np.testing.assert_allclose(jax.jit(lambda xs: block(xs, lengths=lengths))(XS), xs, atol=2e-5)


@RELATIVE
@PLACEMENTS
def test_decoder_block_with_a_cache_and_without(norm, relative):
    """The cached block reads two tokens, two more, and one."""
    block, lengths = made(DecoderBlock, norm=norm, relative=relative), jnp.asarray([4, 2])
    xs = np.asarray(XS)
    xs = summed(block, block.attention_norm, xs, lambda x: looked(block, x, [range(1, T + 1)] * B))
    xs = summed(block, block.crossing_norm, xs, lambda x: attended(block.crossing, x, MEMORY, lengths=lengths))
    xs = summed(block, block.feed_forward_norm, xs, lambda x: fed(block, x))

    @jax.jit
    def run(xs):
        memory = block.remember(MEMORY)
        at_once, nothing = block(xs, memory, lengths=lengths)
        assert nothing is None
        cache, outputs = block.cache((B,), T + 2), []
        for start, stop in ((0, 2), (2, 4), (4, 5)):
            ys, cache = block(xs[:, start:stop], memory, cache, lengths=lengths)
            outputs.append(ys)
        return at_once, jnp.concatenate(outputs, axis=1)

    for ys in run(XS):
        np.testing.assert_allclose(ys, xs, atol=2e-5)


@PLACEMENTS
def test_weights_of_the_memory_give_what_the_block_sees(norm):
    block = made(DecoderBlock, norm=norm)
    memory = block.remember(MEMORY)
    weights = block.weights(XS, memory, lengths=jnp.asarray([4, 2]))
    assert weights.shape == (B, 2, T, S)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(weights[1, :, :, 2:], 0)
    x = summed(block, block.attention_norm, np.asarray(XS), lambda x: attended(block.attention, x, x, causal=True))
    params, asking = compat.pure(block.crossing), normalised(block.crossing_norm, x) if norm == "pre" else x
    found = np.einsum("bnts,bsne,nef->btf", weights, memory.values, params.output) + np.asarray(params.bias.output)
    expected = multi_head_attention(params, jnp.asarray(asking), memory, lengths=jnp.asarray([4, 2]))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_an_encoder_block_has_no_order_and_a_causal_one_sees_no_future():
    block, order = made(EncoderBlock), jnp.asarray([3, 0, 4, 1, 2])
    np.testing.assert_allclose(block(XS[:, order]), block(XS)[:, order], atol=1e-5)
    changed = block(XS.at[:, 3].add(1.0), causal=True)
    np.testing.assert_array_equal(changed[:, :3], block(XS, causal=True)[:, :3])
    assert np.abs(changed[:, 3:] - block(XS, causal=True)[:, 3:]).min(axis=(0, 2)).min() > 0


@RELATIVE
def test_where_a_sequence_begins_changes_nothing(relative):
    """Three hidden tokens before it; and where distances count, its order does, of which ALiBi's see no direction."""
    block = made(EncoderBlock, relative=relative)
    shifted = jnp.concatenate([jnp.ones((B, 3, D)), XS], axis=1)
    plain = block(XS)
    np.testing.assert_allclose(block(shifted, mask=jnp.arange(T + 3) >= 3)[:, 3:], plain, atol=1e-5)
    change = {name: np.abs(block(XS[:, order])[:, np.argsort(order)] - plain).max() for name, order in ORDERS.items()}
    assert (change["mixed"] > 1e-3) == (relative is not None)
    assert (change["backwards"] > 1e-3) == (relative == "rotary")


@pytest.mark.parametrize(("activation", "value"), [("relu", 0.0), ("gelu", -0.158808), ("gelu_exact", -0.158655)])
def test_activations(activation, value):
    """Of -1; the exact one is -Φ(-1)."""
    net = FeedForward(BlockConfig(features=1, heads=1, hidden=1, activation=activation), rngs=nnx.Rngs(0))
    net.input.kernel[...], net.output.kernel[...] = jnp.ones((1, 1)), jnp.ones((1, 1))
    assert float(net(-jnp.ones((1, 1, 1)))[0, 0, 0]) == pytest.approx(value, abs=2e-6)


def test_dropout_by_a_key_alone():
    """Everything dropped leaves the input alone; a share changes each call by its key; no key changes nothing."""
    block = made(DecoderBlock, norm="pre", dropout=0.3, attention_dropout=0.2)
    memory = block.remember(MEMORY)
    plain, _ = made(DecoderBlock, norm="pre")(XS, memory)
    np.testing.assert_array_equal(block(XS, memory)[0], plain)
    one, same, other = (block(XS, memory, key=jax.random.key(i))[0] for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - plain).max() > 0.1 < np.abs(one - other).max()
    kept = dropped(jnp.ones(10_000), 0.3, jax.random.key(0))
    assert float((kept == 0).mean()) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(kept[kept != 0], 1 / 0.7, rtol=1e-6)


@pytest.mark.parametrize(("bias", "attention"), [(False, 4 * 64), (True, 4 * 64 + 4 * 8)])
def test_parameters(bias, attention):
    """Of one attention, a network 8-12-8, and normalisations of two vectors each."""
    network, config = 2 * 8 * 12 + 12 + 8, BlockConfig(**(vars(SMALL) | {"bias": bias}))
    assert count({"block": EncoderBlock(config, rngs=nnx.Rngs(0))}) == attention + network + 2 * 16
    assert count({"block": DecoderBlock(config, rngs=nnx.Rngs(0))}) == 2 * attention + network + 3 * 16
