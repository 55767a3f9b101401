"""Recurrent encoder-decoders: steps against loops over rows, places and steps; what padding changes; own draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax import compat
from seqjax.errors import InputError
from seqjax.models.language.seq2seq import Config, build, loss, predict
from seqjax.nn.split import initialise, split
from seqjax.ops import cells
from seqjax.ops.linear import affine
from seqjax.ops.tokens import BOS, EOS, PAD

KEY = jax.random.key(0)
SOURCE = jnp.asarray([[BOS, 5, 9, 7, EOS, PAD], [BOS, 11, EOS, PAD, PAD, PAD]])
TARGET = jnp.asarray([[BOS, 8, 6, EOS, PAD], [BOS, 4, 13, 5, EOS]])
BATCH = {"source": SOURCE, "target": TARGET}
SMALL = {"vocabulary": 14, "source_vocabulary": None, "embedding": 3, "features": 4, "alignment": 5, "extra": 2}
BAHDANAU = {"readout_features": 3, "beams": 1}
LUONG = {
    **{"cell": "lstm", "layers": 2, "encoder": "reversed", "score": "general", "query": "current"},
    **{"input_feeding": True, "readout": "tanh", "readout_features": 6, "beams": 1},
}
PLAIN = {"cell": "gru", "encoder": "forward", "score": "none", "query": "current", "readout": "linear", "beams": 1}
LOCAL = {"cell": "gru", "query": "current", "readout": "tanh", "readout_features": 6, "beams": 1}
KINDS = {
    "bahdanau": BAHDANAU,
    "luong": LUONG | {"window": "predictive", "reach": 2},
    "local": LOCAL | {"score": "location", "longest": 7, "window": "monotonic", "reach": 1},
    "plain": PLAIN,
}


@functools.cache
def made(kind, **options):
    return initialise(functools.partial(build, Config(**(SMALL | KINDS[kind] | options))), 0)


def array(layer):
    return np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...]) if layer.bias is not None else 0.0


def multiplied(layer, x):
    kernel, bias = array(layer)
    return x @ kernel + bias


def scored(net, state, value, place):
    config, attention = net.config, net.decoder.attention
    match config.score:
        case "additive":
            p = jax.tree.map(np.asarray, compat.pure(attention.score))
            return p.score @ np.tanh(state @ p.query + value @ p.key + p.bias)
        case "general":
            return state @ np.asarray(compat.pure(attention.score).kernel) @ value
        case _:
            return (state @ array(attention.places)[0])[place]


def attended(net, state, values, length, time):
    """Context and weights of one row."""
    config, attention, weights = net.config, net.decoder.attention, np.zeros(len(values))
    middle = time
    if config.window == "predictive":
        middle = length / (1 + np.exp(-np.tanh(state @ array(attention.guess)[0]) @ array(attention.place)[0]))
    seen = [s for s in range(length) if config.window == "global" or abs(s - middle) <= config.reach]
    for s in seen:
        weights[s] = np.exp(scored(net, state, values[s], s))
    weights /= weights.sum() or 1.0
    if config.window == "predictive":
        weights *= np.exp(-((np.arange(len(values)) - middle) ** 2) / (2 * (config.reach / 2) ** 2))
    return weights @ values, weights


def by_hand(net, row):
    """Logits and weights of one row, step by step; the cells and the encoder are tested where they are."""
    config, decoder, cell = net.config, net.decoder, getattr(cells, net.config.cell)
    ends, values = net.encoder(SOURCE[row : row + 1])
    values, length = np.float64(values[0]), int((SOURCE[row] != PAD).sum())
    layers, fed = list(ends), np.zeros(decoder.found)
    if config.encoder == "bidirectional":
        layers = [jnp.tanh(net(end)) for net, end in zip(decoder.begin, ends, strict=True)]
    logits, looked = [], []
    for time, token in enumerate(TARGET[row]):
        x_t = np.asarray(decoder.embedding.embedding[...][token])
        context, weights = np.zeros(0), np.zeros(len(values))
        parts = [x_t, fed]
        if config.query == "previous":
            context, weights = attended(net, np.float64(layers[-1][0]), values, length, time)
            parts.append(context)
        xs = jnp.asarray(np.concatenate(parts), jnp.float32)[None]
        for i, params in enumerate(compat.pure(decoder.layers)):
            layers[i], xs = cell.step(params, layers[i], cell.project(params, xs, affine), affine)
        state = np.float64(xs[0])
        if config.query == "current" and config.score != "none":
            context, weights = attended(net, state, values, length, time)
        match config.readout:
            case "maxout":
                read = multiplied(decoder.read, np.concatenate([state, x_t, context])).reshape(-1, 2).max(axis=1)
            case "tanh":
                read = np.tanh(multiplied(decoder.read, np.concatenate([context, state])))
            case _:
                read = np.concatenate([state, context])
        fed = read if config.input_feeding else fed
        logits.append(multiplied(decoder.output, read))
        looked.append(weights)
    return np.stack(logits), np.stack(looked)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_against_loops(kind):
    net = made(kind)["seq2seq"]
    logits, weights = jax.jit(net)(SOURCE, TARGET)
    for row in range(2):
        expected, looked = by_hand(net, row)
        np.testing.assert_allclose(logits[row], expected, atol=2e-5)
        np.testing.assert_allclose(weights[row], looked, atol=1e-5)


def test_weights_are_of_the_source_alone_and_padding_changes_nothing():
    net = jax.jit(made("bahdanau")["seq2seq"])
    logits, weights = net(SOURCE, TARGET)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(weights[1, :, 3:], 0)
    longer, _ = net(jnp.pad(SOURCE, ((0, 0), (0, 2))), TARGET)
    np.testing.assert_allclose(longer, logits, atol=1e-5)
    alone, _ = net(SOURCE[1:, :3], TARGET[1:])
    np.testing.assert_allclose(alone, logits[1:], atol=1e-5)


def test_a_reversed_encoder_reads_each_row_from_its_end():
    forward, backward = (made("plain", encoder=kind)["seq2seq"] for kind in ("forward", "reversed"))
    turned = jnp.asarray([[EOS, 7, 9, 5, BOS, PAD], [EOS, 11, BOS, PAD, PAD, PAD]])
    (end,), values = forward.encoder(turned)
    (other,), mirrored = backward.encoder(SOURCE)
    np.testing.assert_allclose(other, end, atol=1e-6)
    np.testing.assert_allclose(mirrored[0, :5], values[0, 4::-1], atol=1e-6)


def test_one_beam_writes_what_a_loop_over_whole_outputs_writes():
    nets, expected = made("luong"), np.full((2, 8), PAD)
    run = jax.jit(nets["seq2seq"])
    for row in range(2):
        read = jnp.full((1, 9), PAD).at[0, 0].set(BOS)
        for t in range(8):
            token = EOS + int(jnp.argmax(run(SOURCE[row : row + 1], read)[0][0, t, EOS:]))
            expected[row, t], read = token, read.at[0, t + 1].set(token)
            if token == EOS:
                break
    np.testing.assert_array_equal(jax.jit(lambda source: predict(nets, {"source": source}))(SOURCE), expected)


def test_own_draws_stand_in_for_a_share_of_the_target():
    """Never for BOS or padding; those of a decoder that is sure of one token are that token."""
    net = made("plain", sampling=0.5)["seq2seq"]
    sure = initialise(functools.partial(build, net.config), 1)["seq2seq"]
    sure.decoder.output.bias[...] = 50.0 * jax.nn.one_hot(7, 14)
    state, memory = sure.encode(SOURCE)
    long = jnp.asarray([[BOS, *[8] * 198, EOS, PAD]] * 2)
    mixed = jax.jit(sure._mixed)(memory, state, long, jax.random.split(KEY, 4))
    assert (mixed[:, 0] == BOS).all()
    assert (mixed[:, -1] == PAD).all()
    assert set(np.unique(mixed[:, 1:199]).tolist()) == {7, 8}
    assert float((mixed[:, 1:199] == 7).mean()) == pytest.approx(0.5, abs=0.1)
    plain, own = jax.jit(lambda: (net(SOURCE, TARGET)[0], net(SOURCE, TARGET, key=KEY)[0]))()
    assert np.abs(own - plain).max() > 1e-3


def test_loss_is_over_tokens_and_dropout_by_key():
    nets = made("luong", dropout=0.3)
    run = jax.jit(lambda key: loss(nets, BATCH, key=key)[0])
    logs = np.asarray(jax.nn.log_softmax(made("luong")["seq2seq"](SOURCE, TARGET[:, :-1])[0]))
    places = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3))
    plain, metrics = loss(made("luong"), BATCH, key=KEY)
    assert float(plain) == pytest.approx(-np.mean([logs[b, t, TARGET[b, t + 1]] for b, t in places]), rel=1e-5)
    assert metrics.keys() == {"nll", "token_accuracy"}
    assert float(loss(made("luong", mean="texts"), BATCH, key=KEY)[0]) == pytest.approx(float(plain) * 7 / 2, rel=1e-5)
    once, again, other = (float(run(jax.random.key(i))) for i in (0, 0, 1))
    assert once == again != other != float(plain)


def test_uniform_start():
    leaves = jax.tree.leaves(split(dict(made("plain", uniform=0.08, features=30))).params)
    drawn = np.concatenate([np.ravel(leaf) for leaf in leaves])
    assert 0.079 < np.abs(drawn).max() <= 0.08
    assert drawn.std() == pytest.approx(0.08 / np.sqrt(3), rel=0.03)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="score='dot' multiplies"):
        made("bahdanau", score="dot")
    with pytest.raises(InputError, match="longest=3 places, and a source has 6"):
        made("local", longest=3)["seq2seq"](SOURCE, TARGET)
