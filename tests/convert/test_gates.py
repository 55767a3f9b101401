"""``convert.recurrent.gates``: what holds for every source, the refusals, and the blend of the GRU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert.layers import assert_identical
from scipy.special import expit

from seqjax.convert.recurrent import gates, haiku, keras, linen, nnx, torch
from seqjax.errors import InputError
from seqjax.ops.cells import gru, gru_reset_before, lstm, rnn
from seqjax.ops.scan import unroll

KEY = jax.random.key(0)
WRITE_LSTM = {
    "torch": lambda params: torch.write_lstm((params,)),
    "linen": linen.write_lstm,
    "nnx": nnx.write_lstm,
    "nnx optimized": nnx.write_optimized_lstm,
    "keras": keras.write_lstm,
    "haiku": haiku.write_lstm,
}
WRITE_GRU_AFTER = {
    "torch": lambda params, reset: torch.write_gru((params,), reset=reset),
    "linen": lambda params, reset: linen.write_gru(params, reset=reset),
    "nnx": lambda params, reset: nnx.write_gru(params, reset=reset),
}


def random_gru(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), gru.init(KEY, 2, 3))


@pytest.mark.parametrize("source", WRITE_GRU_AFTER)
def test_reset_before_is_refused_by_sources_that_reset_after(source):
    params = gru_reset_before.init(KEY, 2, 3)
    WRITE_GRU_AFTER[source](params, "after")
    with pytest.raises(InputError, match=r"resets after .* different functions.*gru_reset_before"):
        WRITE_GRU_AFTER[source](params, "before")


@pytest.mark.parametrize(
    "read",
    [
        lambda reset: torch.read_gru(torch.write_gru((random_gru(),), reset="after"), reset=reset),
        lambda reset: linen.read_gru(linen.write_gru(random_gru(), reset="after"), reset=reset),
        lambda reset: nnx.read_gru(nnx.write_gru(gru.init(KEY, 2, 3), reset="after"), reset=reset),
    ],
)
def test_sources_that_reset_after_are_not_read_for_the_other_cell(read):
    read("after")
    with pytest.raises(InputError, match="different functions"):
        read("before")


@pytest.mark.parametrize("source", WRITE_LSTM)
def test_what_no_source_has_is_refused(source):
    write = WRITE_LSTM[source]
    for params, why in [
        (lstm.init(KEY, 2, 3, peephole="channel"), "peepholes"),
        (lstm.init(KEY, 2, 3, layer_norm=True), "layer normalisation"),
        (lstm.init(KEY, None, 3), "no input kernel"),
    ]:
        with pytest.raises(InputError, match=why):
            write(params)


@pytest.mark.parametrize("source", WRITE_LSTM)
def test_convolutional_kernels_go_to_convolutional_cells_alone(source):
    params = lstm.init(KEY, 2, 3, kernel_size=(3, 3))
    if source == "keras":  # its LSTM and ConvLSTM list the same arrays
        assert_identical(keras.read_lstm(keras.write_lstm(params)), params)
    else:
        with pytest.raises(InputError, match="another cell"):
            WRITE_LSTM[source](params)


def test_directions_are_one_or_a_pair():
    params = rnn.init(KEY, 2, 3)
    assert gates.directions(type(params), params) == (params,)
    assert gates.directions(type(params), (params, params)) == (params, params)
    for wrong in (params.bias, (), (params,) * 3, lstm.init(KEY, 2, 3)):
        with pytest.raises(InputError, match="even of one layer"):
            gates.directions(type(params), wrong)


def test_swapped_update_is_the_other_blend():
    """Chung et al., 2014, Eq. 5-8 with biases, step by step in NumPy float64."""
    params = random_gru()
    xs = np.random.default_rng(1).normal(size=(2, 4, 2)).astype(np.float32)
    w, u, b, b_n = (np.asarray(a, np.float64) for a in params[:4])
    h, expected = np.zeros((2, 3)), []
    for x in xs.swapaxes(0, 1):
        r, z = np.split(expit(x @ w[:, :6] + h @ u[:, :6] + b[:6]), 2, axis=-1)
        n = np.tanh(x @ w[:, 6:] + (r * h) @ u[:, 6:] + b[6:] + b_n)
        h = (1 - z) * h + z * n
        expected.append(h)
    _, ys = unroll(gru_reset_before, gates.swap_update(params), None, jnp.asarray(xs))
    np.testing.assert_allclose(ys, np.stack(expected, axis=1), rtol=1e-5, atol=1e-5)
    assert_identical(gates.swap_update(gates.swap_update(params)), params)


def test_forget_bias_between_a_half_and_two_survives_the_constant_bit_by_bit():
    bias = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2.0, size=4 * 64), jnp.float32)
    params = lstm.init(KEY, 2, 64)._replace(bias=bias)
    assert_identical(haiku.read_lstm(haiku.write_lstm(params)), params)
    params = params._replace(bias=bias / 1000)  # and below a half it is rounded once
    again = haiku.read_lstm(haiku.write_lstm(params)).bias
    np.testing.assert_allclose(again, params.bias, rtol=0, atol=2.0**-24)


def test_from_one_library_to_another():
    """PyTorch to Keras to linen and back to PyTorch: the arrays that came."""
    layers = (random_gru(), random_gru(1))
    weights = torch.write_gru((layers,), reset="after")
    pair = torch.read_gru(weights, reset="after")[0]
    pair = keras.read_gru(keras.write_gru(pair, reset="after"), reset="after")
    pair = tuple(linen.read_gru(linen.write_gru(p, reset="after"), reset="after") for p in pair)
    assert_identical(torch.write_gru((pair,), reset="after"), weights)
