"""``ops.cells``: one step against NumPy, and what the kernels' shapes make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from scipy.special import expit

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.cells import LSTMCarry, gru, gru_rcn, gru_reset_before, lstm, rnn, rnn_relu
from seqjax.ops.scan import unroll


def random_like(tree, seed=0, scale=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype), tree)


def same_correlation(kernel, image):
    """``[H, W, C]`` by ``[k, k, C, D]`` through scipy, zero padding."""
    columns = [
        sum(scipy.signal.correlate2d(image[..., c], kernel[..., c, d], mode="same") for c in range(image.shape[-1]))
        for d in range(kernel.shape[-1])
    ]
    return np.stack(columns, axis=-1)


def numpy_step(params, carry, x, product):
    """Shi et al. 2015, Eq. 3, gate by gate in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h, c = (np.asarray(a, np.float64) for a in carry)
    gates = product(p.input, np.asarray(x, np.float64)) + product(p.recurrent, h) + p.bias
    i, f, g, o = np.split(gates, 4, axis=-1)
    peephole = np.zeros((3, 1)) if p.peephole is None else p.peephole
    i, f = expit(i + peephole[0] * c), expit(f + peephole[1] * c)
    c = f * c + i * np.tanh(g)
    o = expit(o + peephole[2] * c)
    return o * np.tanh(c), c


@pytest.mark.parametrize("peephole", ["none", "channel"])
def test_dense_step_equals_numpy(peephole):
    params = random_like(lstm.init(jax.random.key(0), 3, 4, peephole=peephole))
    x, carry = random_like(jnp.zeros((2, 3))), random_like(LSTMCarry(jnp.zeros((2, 4)), jnp.zeros((2, 4))), 1)
    (h, c), y = lstm.step(params, carry, lstm.project(params, x, linear.affine), linear.affine)
    expected_h, expected_c = numpy_step(params, carry, x, lambda kernel, u: u @ kernel)
    np.testing.assert_allclose(h, expected_h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c, expected_c, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, h)


def numpy_norm(x, scale):
    """Ba et al. 2016, Eq. 4, over the last axis."""
    return scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def both(cell, **options):
    """One step of the cell, and its float64 parameters, state and input."""
    params = random_like(cell.init(jax.random.key(0), 3, 4, **options))
    carry, x = random_like(cell.carry(params, (2,)), 1), random_like(jnp.zeros((2, 3)), 2)
    carried, y = cell.step(params, carry, cell.project(params, x, linear.affine), linear.affine)
    p, before, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, carry, x))
    return carried, y, p, before, x


def identity(product, scale):
    return product


@pytest.mark.parametrize(("cell", "activation"), [(rnn, np.tanh), (rnn_relu, lambda x: np.maximum(x, 0))])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_rnn_step_equals_numpy(cell, activation, layer_norm):
    carried, y, p, h, x = both(cell, layer_norm=layer_norm)
    norm = numpy_norm if layer_norm else identity
    scales = p.norm or (None, None)
    expected = activation(norm(x @ p.input, scales[0]) + norm(h @ p.recurrent, scales[1]) + p.bias)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(carried, y)


@pytest.mark.parametrize("cell", [gru, gru_reset_before], ids=["after", "before"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_gru_step_equals_numpy(cell, layer_norm):
    """Cho et al. 2014, both versions, gate by gate; with scales, the gates r and z in one normalisation."""
    carried, y, p, h, x = both(cell, layer_norm=layer_norm)
    norm = numpy_norm if layer_norm else identity
    a2, a1 = p.norm or (np.ones(12), np.ones(12))
    gates = norm(x @ p.input[:, :8], a2[:8]) + norm(h @ p.recurrent[:, :8], a1[:8]) + p.bias[:8]
    r, z = np.split(expit(gates), 2, axis=-1)
    if cell is gru:
        recurrent = r * (norm(h @ p.recurrent[:, 8:], a1[8:]) + p.candidate_bias)
    else:
        recurrent = norm((r * h) @ p.recurrent[:, 8:], a1[8:]) + p.candidate_bias
    n = np.tanh(norm(x @ p.input[:, 8:], a2[8:]) + p.bias[8:] + recurrent)
    np.testing.assert_allclose(y, (1 - z) * n + z * h, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(carried, y)


def test_layer_normalised_lstm_step_equals_numpy():
    """Ba et al. 2016, Eq. 20-22."""
    carried, y, p, before, x = both(lstm, layer_norm=True)
    gates = numpy_norm(before.h @ p.recurrent, p.norm.recurrent) + numpy_norm(x @ p.input, p.norm.input) + p.bias
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = expit(f) * before.c + expit(i) * np.tanh(g)
    np.testing.assert_allclose(carried.c, c, rtol=1e-5, atol=1e-6)
    h = expit(o) * np.tanh(numpy_norm(c, p.norm.cell) + p.norm.cell_bias)
    np.testing.assert_allclose(y, h, rtol=1e-5, atol=1e-6)


def test_gru_rcn_gates_read_the_layer_below_and_its_candidate_does_not():
    """Equal to ``gru_reset_before`` whose inputs are both maps, the second with no weight in the candidate."""
    params = random_like(gru_rcn.init(jax.random.key(0), 2, 3, below_features=5, kernel_size=(3, 3)))
    x, below = random_like((jnp.zeros((2, 4, 6, 5, 2)), jnp.zeros((2, 4, 6, 5, 5))), 1)
    extended = jnp.concatenate([params.below, jnp.zeros((3, 3, 5, 3))], axis=-1)
    joined = params.gru._replace(input=jnp.concatenate([params.gru.input, extended], axis=2))
    _, expected = unroll(gru_reset_before, joined, None, jnp.concatenate([x, below], axis=-1))
    np.testing.assert_allclose(unroll(gru_rcn, params, None, (x, below))[1], expected, rtol=1e-5, atol=1e-6)


def test_negated_update_gate_turns_one_blend_into_the_other():
    """σ(-a) = 1 - σ(a): Chung et al. 2014 blend h' = (1-z)⊙h + z⊙n."""
    y, _, p, h, x = both(gru)
    sign = np.repeat([1.0, -1.0, 1.0], 4)
    input_kernel, recurrent, bias = p.input * sign, p.recurrent * sign, p.bias * sign
    r, z = np.split(expit(x @ input_kernel[:, :8] + h @ recurrent[:, :8] + bias[:8]), 2, axis=-1)
    n = np.tanh(x @ input_kernel[:, 8:] + bias[8:] + r * (h @ recurrent[:, 8:] + p.candidate_bias))
    np.testing.assert_allclose(y, (1 - z) * h + z * n, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("peephole", ["none", "channel", "full"])
def test_convolutional_step_equals_scipy(peephole):
    space = (5, 4)
    options = {"kernel_size": (3, 3), "input_kernel_size": (5, 5), "peephole": peephole, "space": space}
    params = random_like(lstm.init(jax.random.key(0), 2, 3, **options))
    state = jnp.zeros((1, *space, 3))
    x, carry = random_like(jnp.zeros((1, *space, 2))), random_like(LSTMCarry(state, state), 1)
    (h, c), _ = lstm.step(params, carry, lstm.project(params, x, linear.affine), linear.affine)
    unbatched = jax.tree.map(lambda a: a[0], carry)
    expected_h, expected_c = numpy_step(params, unbatched, x[0], same_correlation)
    np.testing.assert_allclose(h[0], expected_h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(c[0], expected_c, rtol=1e-4, atol=1e-5)


def test_kernel_of_one_is_an_independent_lstm_per_pixel():
    conv = random_like(lstm.init(jax.random.key(0), 3, 4, kernel_size=(1, 1), peephole="channel"))
    dense = conv._replace(input=conv.input[0, 0], recurrent=conv.recurrent[0, 0])
    xs = random_like(jnp.zeros((2, 6, 5, 4, 3)), 1)
    _, maps = unroll(lstm, conv, None, xs)
    per_pixel = jnp.moveaxis(xs, 1, 3).reshape(-1, 6, 3)
    _, hs = unroll(lstm, dense, None, per_pixel)
    np.testing.assert_allclose(jnp.moveaxis(maps, 1, 3).reshape(-1, 6, 4), hs, rtol=1e-5, atol=1e-6)


def test_zero_peepholes_change_nothing():
    params = lstm.init(jax.random.key(0), 3, 4, peephole="channel")
    xs = random_like(jnp.zeros((2, 6, 3)))
    with_, without = (unroll(lstm, p, None, xs)[1] for p in (params, params._replace(peephole=None)))
    np.testing.assert_array_equal(with_, without)


def test_closed_input_and_open_forget_gate_keep_the_memory():
    """Invariant of the constant error carousel: c is the same after 1,000 steps."""
    params = lstm.init(jax.random.key(0), 3, 4)
    bias = jnp.concatenate([jnp.full(4, -40.0), jnp.full(4, 40.0), jnp.zeros(8)])
    params = params._replace(bias=bias, input=params.input * 0, recurrent=params.recurrent * 0)
    c = random_like(jnp.zeros((2, 4)), 3)
    carry, _ = unroll(lstm, params, LSTMCarry(jnp.zeros_like(c), c), jnp.zeros((2, 1000, 3)))
    np.testing.assert_allclose(carry.c, c, rtol=1e-6)


def test_interior_of_a_convolutional_state_shifts_with_its_input():
    params = random_like(lstm.init(jax.random.key(0), 1, 2, kernel_size=(3, 3)))
    xs = random_like(jnp.zeros((1, 2, 16, 16, 1)))
    shifted = jnp.roll(xs, 4, axis=2)
    ys, ys_shifted = (unroll(lstm, params, None, x)[1] for x in (xs, shifted))
    reach = 3  # two steps of a 3x3 input and state kernel, plus one
    inside = slice(4 + reach, 16 - reach)
    np.testing.assert_allclose(
        ys_shifted[:, :, inside, reach:-reach],
        jnp.roll(ys, 4, axis=2)[:, :, inside, reach:-reach],
        rtol=1e-5,
        atol=1e-6,
    )


def test_initial_parameters():
    params = lstm.init(jax.random.key(0), 3, 8, kernel_size=(3, 3), forget_bias=2.0)
    np.testing.assert_array_equal(params.bias.reshape(4, 8), np.array([0, 2, 0, 0])[:, None] * np.ones(8))
    for gate in jnp.split(params.recurrent, 4, axis=-1):
        flat = gate.reshape(-1, 8)
        np.testing.assert_allclose(flat.T @ flat, np.eye(8), atol=1e-5)


def test_full_peephole_needs_the_space():
    with pytest.raises(InputError, match="space"):
        lstm.init(jax.random.key(0), 3, 4, kernel_size=(3, 3), peephole="full")


def test_inputs_without_an_input_kernel_are_refused():
    params = lstm.init(jax.random.key(0), None, 4)
    carry = lstm.carry(params, (2,))
    with pytest.raises(InputError, match="no input kernel"):
        unroll(lstm, params, carry, jnp.zeros((2, 5, 3)))
