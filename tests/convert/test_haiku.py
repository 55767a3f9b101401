"""``convert.recurrent.haiku`` against Haiku itself, two layers, both directions (``golden.py``)."""

import functools
import re

import jax
import numpy as np
import pytest
from convert.layers import assert_identical, assert_same_as_source, load

from seqjax.convert.recurrent import haiku
from seqjax.errors import InputError
from seqjax.ops.cells import gru_reset_before, lstm, rnn_relu

CASES = load("dm-haiku")
CELLS = {
    "lstm_2_both": (lstm, haiku.read_lstm, haiku.write_lstm, "lstm"),
    "gru_1_both": (
        gru_reset_before,
        functools.partial(haiku.read_gru, reset="before"),
        functools.partial(haiku.write_gru, reset="before"),
        "gru",
    ),
    "rnn_1_both": (rnn_relu, haiku.read_rnn, haiku.write_rnn, "vanilla_rnn"),
    "rnn_1_both_one_bias": (rnn_relu, haiku.read_rnn, haiku.write_rnn, "vanilla_rnn"),
    "conv_lstm_1_both": (lstm, haiku.read_conv_lstm, haiku.write_conv_lstm, "conv2_dlstm"),
}
EVERY = pytest.mark.parametrize("name", CASES)


def nested(weights):
    modules = {}
    for key, array in weights.items():
        module, name = key.split(":")
        modules.setdefault(module, {})[name] = array
    return modules


def cores(name):
    """The names of the cores, as Haiku counts them."""
    own = CELLS[name][3]
    return [own, *(f"{own}_{k}" for k in range(1, 2 * int(re.search(r"\d", name)[0])))]


@EVERY
def test_same_values_and_gradients_as_haiku(name):
    cell, read, _, _ = CELLS[name]

    def layers(weights):
        params = [read(nested(weights), core) for core in cores(name)]
        return list(zip(params[::2], params[1::2], strict=True))

    assert_same_as_source(cell, layers, CASES[name])


@EVERY
def test_round_trip_of_ours_is_exact(name):
    """Bit by bit in the forget gate too: these biases, between 0.6 and 1.4, lose nothing when 1 is taken away."""
    _, read, write, _ = CELLS[name]
    for core in cores(name):
        params = read(nested(CASES[name]["weights"]), core)
        assert_identical(read(write(params, core), core), params)


@EVERY
def test_round_trip_of_theirs(name):
    """Exact, but for one rounding of ``1 + b`` in an LSTM, and for two biases that come back as one."""
    _, read, write, _ = CELLS[name]
    weights = nested(CASES[name]["weights"])
    again = {}
    for core in cores(name):
        again |= write(read(weights, core), core)
    assert again.keys() == weights.keys()
    for module, arrays in weights.items():
        for kind, array in arrays.items():
            if kind == "b" and module.endswith(("hidden", "linear", "linear_1")):
                continue
            np.testing.assert_array_equal(again[module][kind], array)
    if name == "lstm_2_both":
        for core in cores(name):
            bias = weights[f"{core}/linear"]["b"]
            np.testing.assert_allclose(again[f"{core}/linear"]["b"], bias, rtol=0, atol=2.0**-24)


def test_leaves_other_modules_alone_and_names_what_is_missing():
    weights = nested(CASES["lstm_2_both"]["weights"]) | {"head": {"w": np.zeros((3, 1), np.float32)}}
    assert_identical(haiku.read_lstm(weights), haiku.read_lstm({"lstm/linear": weights["lstm/linear"]}))
    with pytest.raises(InputError, match=r"missing \['linear/b', 'linear/w'\].*'encoder/lstm'"):
        haiku.read_lstm(weights, "encoder/lstm")


def test_refuses_the_gru_that_resets_after():
    weights = nested(CASES["gru_1_both"]["weights"])
    with pytest.raises(InputError, match="different functions"):
        haiku.read_gru(weights, reset="after")
    with pytest.raises(InputError, match="different functions"):
        haiku.write_gru(haiku.read_gru(weights, reset="before"), reset="after")


def test_candidate_bias_is_added_to_the_one_bias():
    params = haiku.read_gru(nested(CASES["gru_1_both"]["weights"]), reset="before")
    params = params._replace(candidate_bias=jax.numpy.full(3, 0.25))
    bias = haiku.write_gru(params, reset="before")["gru"]["b"]
    np.testing.assert_array_equal(bias[6:], params.bias[6:] + 0.25)
