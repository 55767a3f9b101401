"""``convert.recurrent.torch`` against PyTorch itself: packed sequences, all layers and directions (``golden.py``)."""

import jax
import numpy as np
import pytest
from convert.layers import assert_identical, assert_same_as_source, load

from seqjax.convert.recurrent import torch
from seqjax.errors import InputError
from seqjax.ops.cells import gru, lstm, rnn, rnn_relu

CASES = load("torch")
CELLS = {
    "lstm": (lstm, torch.read_lstm, torch.write_lstm),
    "gru": (gru, lambda w: torch.read_gru(w, reset="after"), lambda p: torch.write_gru(p, reset="after")),
    "rnn": (rnn, torch.read_rnn, torch.write_rnn),
    "rnn_relu": (rnn_relu, torch.read_rnn, torch.write_rnn),
}
EVERY = pytest.mark.parametrize("name", CASES)


def cell_of(name):
    return CELLS["rnn_relu" if name.startswith("rnn_relu") else name.split("_")[0]]


@EVERY
def test_same_values_and_gradients_as_pytorch(name):
    cell, read, _ = cell_of(name)
    assert_same_as_source(cell, read, CASES[name])


@EVERY
def test_round_trip_of_ours_is_exact(name):
    _, read, write = cell_of(name)
    layers = read(CASES[name]["weights"])
    assert_identical(read(write(layers)), layers)


@EVERY
def test_round_trip_of_theirs_moves_biases_to_the_input_side(name):
    _, read, write = cell_of(name)
    weights = CASES[name]["weights"]
    again = write(read(weights))
    assert set(weights) <= set(again)
    for key, array in again.items():
        assert array.flags.writeable
        assert array.dtype == np.float32
        if key.startswith("weight"):
            np.testing.assert_array_equal(array, weights[key])
    for key in (key for key in weights if key.startswith("bias_ih")):
        total, rest = weights[key] + weights[key.replace("_ih", "_hh")], np.zeros_like(weights[key])
        if name.startswith("gru"):
            total[-3:], rest[-3:] = weights[key][-3:], weights[key.replace("_ih", "_hh")][-3:]
        np.testing.assert_array_equal(again[key], total)
        np.testing.assert_array_equal(again[key.replace("_ih", "_hh")], rest)


def test_part_of_a_larger_module_by_prefix():
    weights = CASES["lstm_3_both"]["weights"]
    larger = {f"encoder.{name}": w for name, w in weights.items()} | {"head.weight": np.zeros((1, 3), np.float32)}
    layers = torch.read_lstm(weights)
    assert_identical(torch.read_lstm(larger, "encoder."), layers)
    assert torch.write_lstm(layers, "encoder.").keys() == larger.keys() - {"head.weight"}
    with pytest.raises(InputError, match=r"missing \['weight_hh_l0', .*not understood \['encoder\.bias_hh_l0'"):
        torch.read_lstm(larger)


def test_refuses_what_it_does_not_understand():
    weights = CASES["lstm_3_both"]["weights"]
    with pytest.raises(InputError, match="weight_hr_l0"):
        torch.read_lstm(weights | {"weight_hr_l0": np.zeros((2, 3), np.float32)})
    with pytest.raises(InputError, match=r"missing \['bias_hh_l1'\]"):
        torch.read_lstm({name: w for name, w in weights.items() if name != "bias_hh_l1"})
    with pytest.raises(InputError, match="Are they another cell"):
        torch.read_gru(weights, reset="after")


def test_read_is_differentiable_to_the_biases_of_both_sides():
    weights = CASES["gru_2_both"]["weights"]
    d = jax.grad(lambda w: torch.read_gru(w, reset="after")[0][0].candidate_bias.sum())(weights)
    np.testing.assert_array_equal(d["bias_hh_l0"], [0, 0, 0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(d["bias_ih_l0"], np.zeros(9))
