"""``convert.recurrent.linen`` against the cells of the flax that is installed, in both directions, with lengths."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert.layers import assert_identical, assert_same_as_source
from convert.source import LENGTHS, D, draw, draw_inputs, jax_case

from seqjax.convert.recurrent import linen
from seqjax.ops.cells import LSTMCarry, gru, lstm, rnn

read_gru = functools.partial(linen.read_gru, reset="after")
write_gru = functools.partial(linen.write_gru, reset="after")
CONV = {"make": lambda: nn.ConvLSTMCell(2, (3, 2)), "shape": (2, 3, 4, 5, 2), "lengths": None}
CASES = {
    "lstm": (lstm, linen.read_lstm, linen.write_lstm, {"make": lambda: nn.LSTMCell(D)}),
    "gru": (gru, read_gru, write_gru, {"make": lambda: nn.GRUCell(D)}),
    "rnn": (rnn, linen.read_rnn, linen.write_rnn, {"make": lambda: nn.SimpleCell(D)}),
    "conv_lstm": (lstm, linen.read_conv_lstm, linen.write_conv_lstm, CONV),
}
KEY = jax.random.key(0)
EVERY = pytest.mark.parametrize("name", CASES)


def case_of(make, shape=(3, 5, 2), lengths=LENGTHS):
    rng = np.random.default_rng(0)
    xs = draw_inputs(rng, lengths, shape)
    layer = nn.Bidirectional(nn.RNN(make()), nn.RNN(make()), return_carry=True)
    weights = jax.eval_shape(layer.init, KEY, xs)["params"]
    weights = jax.tree.map(lambda a: draw(rng, a.shape), weights)

    def apply(weights, xs):
        carries, ys = layer.apply({"params": weights}, xs, seq_lengths=lengths)
        if isinstance(carries[0], tuple):
            carries = [linen.read_carry(carry) for carry in carries]
            return ys, {field: jnp.stack([getattr(carry, field) for carry in carries]) for field in "hc"}
        return ys, {"h": jnp.stack(carries)}

    return jax_case(apply, weights, jnp.asarray(xs), lengths)


def cells(weights):
    return weights["forward_rnn"]["cell"], weights["backward_rnn"]["cell"]


@EVERY
def test_same_values_and_gradients_as_linen(name):
    cell, read, _, options = CASES[name]
    assert_same_as_source(cell, lambda w: [tuple(map(read, cells(w)))], case_of(**options))


@EVERY
def test_round_trips_are_exact(name):
    """Bit by bit, but for linen's ConvLSTM: one rounding of ``1 + b``, and two biases that come back as one."""
    _, read, write, options = CASES[name]
    shape = options.get("shape", (3, 5, 2))
    cell, x = options["make"](), jnp.zeros(shape)[:, 0]
    carry = cell.initialize_carry(KEY, x.shape)
    weights = jax.eval_shape(cell.init, KEY, carry, x)["params"]
    weights = jax.tree.map(lambda a: draw(np.random.default_rng(a.size), a.shape), weights)
    params = read(weights)
    again = write(params)
    assert_identical(read(again), params)
    if name == "conv_lstm":
        for side in ("ih", "hh"):
            np.testing.assert_array_equal(again[side]["kernel"], weights[side]["kernel"])
        total = weights["ih"]["bias"] + weights["hh"]["bias"]
        np.testing.assert_allclose(again["ih"]["bias"], total, rtol=0, atol=2.0**-24)
        assert not again["hh"]["bias"].any()
    else:
        assert_identical(again, weights)


def test_optimized_lstm_cell_reads_the_same_parameters():
    params = jax.tree.map(lambda a: jnp.asarray(draw(np.random.default_rng(0), a.shape)), lstm.init(KEY, 2, D))
    carry, x = (jnp.ones((1, D)), jnp.zeros((1, D))), jnp.ones((1, 2))
    one, other = (
        make(D).apply({"params": linen.write_lstm(params)}, carry, x) for make in (nn.LSTMCell, nn.OptimizedLSTMCell)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, other)


def test_carry_is_turned_around():
    carry = LSTMCarry(h=jnp.zeros(2), c=jnp.ones(2))
    np.testing.assert_array_equal(linen.write_carry(carry)[0], jnp.ones(2))
    assert_identical(linen.read_carry(linen.write_carry(carry)), carry)


def test_conv_lstm_without_bias():
    weights = {"ih": {"kernel": np.ones((3, 2, 8), np.float32)}, "hh": {"kernel": np.ones((3, 2, 8), np.float32)}}
    np.testing.assert_array_equal(linen.read_conv_lstm(weights).bias, [0, 0, 1, 1, 0, 0, 0, 0])
