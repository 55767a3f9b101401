"""``convert.recurrent.keras`` against Keras itself, on its JAX backend, with masks (``golden.py``)."""

import numpy as np
import pytest
from convert.layers import assert_identical, assert_same_as_source, load

from seqjax.convert.recurrent import keras
from seqjax.errors import InputError
from seqjax.ops.cells import gru, gru_reset_before, lstm, rnn

CASES = load("keras")
CELLS = {
    "lstm": (lstm, keras.read_lstm, keras.write_lstm, {}),
    "conv_lstm": (lstm, keras.read_lstm, keras.write_lstm, {}),
    "gru": (gru, keras.read_gru, keras.write_gru, {"reset": "after"}),
    "gru_before": (gru_reset_before, keras.read_gru, keras.write_gru, {"reset": "before"}),
    "rnn": (rnn, keras.read_rnn, keras.write_rnn, {}),
}
EVERY = pytest.mark.parametrize("name", CASES)


def cell_of(name):
    return CELLS[max((kind for kind in CELLS if name.startswith(kind)), key=len)]


def by_layer(weights):
    """``get_weights()`` of each layer."""
    depth = 1 + max(int(key.split(":")[0]) for key in weights)
    counts = [sum(key.startswith(f"{k}:") for key in weights) for k in range(depth)]
    return [[weights[f"{k}:{i}"] for i in range(count)] for k, count in enumerate(counts)]


@EVERY
def test_same_values_and_gradients_as_keras(name):
    cell, read, _, options = cell_of(name)
    assert_same_as_source(cell, lambda w: [read(layer, **options) for layer in by_layer(w)], CASES[name])


@EVERY
def test_round_trips_are_exact(name):
    _, read, write, options = cell_of(name)
    for weights in by_layer(CASES[name]["weights"]):
        params = read(weights, **options)
        again = write(params, **options)
        assert_identical(read(again, **options), params)
        for array, original in zip(again, weights, strict=False):  # without biases, theirs are zeros afterwards
            assert array.shape == original.shape
            if not (name.startswith("gru_") and array.shape[0] == 2 and original.ndim == 2 and "before" not in name):
                np.testing.assert_array_equal(array, original)


def test_biases_of_the_gru_are_summed_but_for_the_candidate():
    kernel, recurrent, bias = by_layer(CASES["gru_1_both"]["weights"])[0][:3]
    again = keras.write_gru(keras.read_gru([kernel, recurrent, bias], reset="after"), reset="after")[2]
    np.testing.assert_array_equal(again[:, :6], [bias[0, :6] + bias[1, :6], np.zeros(6)])
    np.testing.assert_array_equal(again[:, 6:], bias[:, 6:])


def test_bias_says_where_the_gru_resets():
    after, before = (by_layer(CASES[name]["weights"])[0] for name in ("gru_1_both", "gru_before_1_both"))
    with pytest.raises(InputError, match="different functions"):
        keras.read_gru(after, reset="before")
    with pytest.raises(InputError, match="different functions"):
        keras.read_gru(before, reset="after")


def test_refuses_weights_of_something_else():
    with pytest.raises(InputError, match="5 arrays"):
        keras.read_lstm([np.zeros((2, 2))] * 5)
    with pytest.raises(InputError, match="Are they another cell"):
        keras.read_lstm(by_layer(CASES["gru_before_1_both"]["weights"])[0])
