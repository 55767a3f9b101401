"""``convert.recurrent.nnx`` against the cells of the flax that is installed, in both directions, with lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert.layers import assert_identical, assert_same_as_source
from convert.source import LENGTHS, C, D, draw, draw_inputs, jax_case
from flax import nnx as flax_nnx

from seqjax.convert.recurrent import linen, nnx
from seqjax.errors import InputError
from seqjax.nn.split import merge, split
from seqjax.ops.cells import gru, lstm, rnn

read_gru = functools.partial(nnx.read_gru, reset="after")
write_gru = functools.partial(nnx.write_gru, reset="after")
CASES = {
    "lstm": (lstm, nnx.read_lstm, nnx.write_lstm, flax_nnx.LSTMCell),
    "optimized_lstm": (lstm, nnx.read_optimized_lstm, nnx.write_optimized_lstm, flax_nnx.OptimizedLSTMCell),
    "gru": (gru, read_gru, write_gru, flax_nnx.GRUCell),
    "rnn": (rnn, nnx.read_rnn, nnx.write_rnn, flax_nnx.SimpleCell),
}
EVERY = pytest.mark.parametrize("name", CASES)


def weights_of(make):
    """A bidirectional layer: its structure, its parameters by direction, and what is not a parameter."""
    layers = [flax_nnx.RNN(make(C, D, rngs=flax_nnx.Rngs(0))) for _ in range(2)]
    graphs, params, rest = split({"layer": flax_nnx.Bidirectional(*layers, return_carry=True)})
    rng = np.random.default_rng(0)
    return graphs, jax.tree.map(lambda a: draw(rng, a.shape), params["layer"]), rest


def directions(weights):
    return weights["forward_rnn"]["cell"], weights["backward_rnn"]["cell"]


@EVERY
def test_same_values_and_gradients_as_nnx(name):
    cell, read, _, make = CASES[name]
    graphs, weights, rest = weights_of(make)

    def apply(weights, xs):
        layer = merge(graphs, {"layer": weights}, rest)["layer"]
        carries, ys = layer(xs, seq_lengths=jnp.asarray(LENGTHS))
        if isinstance(carries[0], tuple):
            carries = [nnx.read_carry(carry) for carry in carries]
            return ys, {field: jnp.stack([getattr(carry, field) for carry in carries]) for field in "hc"}
        return ys, {"h": jnp.stack(carries)}

    case = jax_case(apply, weights, jnp.asarray(draw_inputs(np.random.default_rng(1), LENGTHS)), LENGTHS)
    assert_same_as_source(cell, lambda w: [tuple(map(read, directions(w)))], case)


@EVERY
def test_round_trips_are_exact(name):
    _, read, write, make = CASES[name]
    for weights in directions(weights_of(make)[1]):
        assert_identical(write(read(weights)), weights)
        assert_identical(read(write(read(weights))), read(weights))


def test_gru_has_no_place_for_a_candidate_bias():
    params = read_gru(directions(weights_of(flax_nnx.GRUCell)[1])[0])
    params = params._replace(candidate_bias=params.candidate_bias.at[1].set(-0.25))
    with pytest.raises(InputError, match=r"candidate_bias reaches 0\.25.*linen\.write_gru"):
        write_gru(params)
    assert_identical(linen.read_gru(linen.write_gru(params, reset="after"), reset="after"), params)


def test_names_the_cell_that_the_weights_are_not_of():
    weights = directions(weights_of(flax_nnx.LSTMCell)[1])[0]
    with pytest.raises(InputError, match=r"missing \['dense_h/bias'.*flax\.nnx\.OptimizedLSTMCell"):
        nnx.read_optimized_lstm(weights)
