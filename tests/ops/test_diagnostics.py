"""Oracles: a linear network with a scaled orthogonal matrix, whose every answer is ρ; NumPy on explicit Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import diagnostics
from seqjax.ops.cells import gru, lstm, rnn
from seqjax.ops.compose import stack
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Cell
from seqjax.ops.scan import unroll

KEY = jax.random.key(0)


def linear_step(params, h, z_t, affine):
    h = affine(z_t, params.recurrent, h)
    return h, h


LINEAR = Cell(init=rnn.init, carry=rnn.carry, project=rnn.project, step=linear_step)


def scaled_orthogonal(rho, features=6):
    params = rnn.init(KEY, 3, features)
    return params._replace(recurrent=rho * params.recurrent)  # init draws an orthogonal matrix


def setting(cell, params, steps=12, rows=2, noise=0.0):
    return cell.carry(params, (rows,)), noise * jax.random.normal(KEY, (rows, steps, 3))


def directed(y):
    """A loss whose gradient with respect to the last output has norm 1."""
    return y @ (jnp.ones(y.shape[-1]) / np.sqrt(y.shape[-1]))


EXACT = pytest.mark.parametrize(("cell", "noise"), [(LINEAR, 1.0), (rnn, 0.0)], ids=["linear", "tanh at zero"])


@EXACT
@pytest.mark.parametrize("rho", [0.5, 1.0, 1.3])
def test_scaled_orthogonal_network_answers_rho_everywhere(cell, noise, rho):
    params = scaled_orthogonal(rho)
    carry, xs = setting(cell, params, noise=noise)
    norms = diagnostics.gradient_norm_by_lag(cell, params, carry, xs, directed)
    np.testing.assert_allclose(norms, np.tile(rho ** np.arange(1, 13), (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(diagnostics.log_gain(norms), np.log(rho), atol=1e-6)
    for options in ({}, {"iterations": 2, "key": KEY}):
        values = diagnostics.largest_singular_values(cell, params, carry, xs, **options)
        np.testing.assert_allclose(values, np.full((2, 12), rho), rtol=1e-5)
    np.testing.assert_allclose(diagnostics.lyapunov_exponent(cell, params, carry, xs, key=KEY), np.log(rho), atol=1e-6)
    np.testing.assert_allclose(diagnostics.spectral_radius(params.recurrent), rho, rtol=1e-5)


def test_norms_below_the_square_root_of_the_smallest_number_are_still_right():
    params = scaled_orthogonal(1e-3)
    carry, xs = setting(LINEAR, params, steps=11)
    norms = diagnostics.gradient_norm_by_lag(LINEAR, params, carry, xs, directed)
    np.testing.assert_allclose(norms[0], 1e-3 ** np.arange(1.0, 12), rtol=1e-4)  # 1e-33: its square is no float32


CELLS = {"lstm": (lstm, 5), "stack": (stack([gru, rnn]), (5, 4))}


@pytest.mark.parametrize(("cell", "features"), CELLS.values(), ids=CELLS)
def test_gradient_by_lag_is_that_of_the_rest_of_the_sequence(cell, features):
    """Oracle: cut the sequence at a step and differentiate a loop over what follows by the carry there."""
    params = cell.init(KEY, 3, features)
    carry, xs = setting(cell, params, steps=4, noise=1.0)
    zs = cell.project(params, xs, affine)

    def rest(h, start, stop):
        y = None
        for t in range(start, stop):
            h, y = cell.step(params, h, jax.tree.map(lambda z, t=t: z[:, t], zs), affine)
        return h, y

    norms = diagnostics.gradient_norm_by_lag(cell, params, carry, xs, directed)
    for t in range(4):
        gradient = jax.grad(lambda h, t=t: jnp.sum(directed(rest(h, t, 4)[1])))(rest(carry, 0, t)[0])
        squares = [np.square(leaf).reshape(2, -1).sum(1) for leaf in jax.tree.leaves(gradient)]
        np.testing.assert_allclose(norms[:, 3 - t], np.sqrt(sum(squares)), rtol=1e-4)


def test_singular_values_against_numpy_on_the_jacobian_by_hand():
    """tanh: ∂h_t/∂h_{t-1} = diag(1 - h_t²) Uᵀ (rows of h times U)."""
    params = rnn.init(KEY, 3, 5)
    params = params._replace(recurrent=jax.random.normal(KEY, (5, 5)))
    carry, xs = setting(rnn, params, steps=7, noise=1.0)
    _, hs = unroll(rnn, params, carry, xs)
    jacobians = (1 - np.square(hs))[..., None] * np.asarray(params.recurrent).T
    expected = np.linalg.svd(jacobians, compute_uv=False)[..., 0]
    exact = diagnostics.largest_singular_values(rnn, params, carry, xs)
    np.testing.assert_allclose(exact, expected, rtol=1e-5)
    near = diagnostics.largest_singular_values(rnn, params, carry, xs, iterations=60, key=KEY)
    np.testing.assert_allclose(near, expected, rtol=1e-3)
    assert (np.asarray(near) <= expected * (1 + 1e-5)).all()


def test_power_iteration_on_a_convolutional_state():
    params = lstm.init(KEY, 2, 2, kernel_size=(3, 3))
    carry, xs = lstm.carry(params, (2, 4, 4)), jax.random.normal(KEY, (2, 3, 4, 4, 2))
    exact = diagnostics.largest_singular_values(lstm, params, carry, xs)
    near = diagnostics.largest_singular_values(lstm, params, carry, xs, iterations=100, key=KEY)
    np.testing.assert_allclose(near, exact, rtol=1e-2)


def test_power_iteration_needs_a_key():
    params = scaled_orthogonal(1.0)
    with pytest.raises(InputError, match="a key"):
        diagnostics.largest_singular_values(LINEAR, params, *setting(LINEAR, params), iterations=3)


def test_lyapunov_exponent_is_of_the_direction_that_grows_fastest():
    gains = np.asarray([1.3, 0.6, 0.4, 0.2, 0.1, 0.1])
    params = scaled_orthogonal(1.0)._replace(recurrent=jnp.diag(jnp.asarray(gains, jnp.float32)))
    carry, xs = setting(LINEAR, params, steps=80)
    exponent = diagnostics.lyapunov_exponent(LINEAR, params, carry, xs, key=KEY, burn_in=40)
    np.testing.assert_allclose(exponent, np.log(1.3), atol=1e-6)
    assert (diagnostics.lyapunov_exponent(LINEAR, params, carry, xs[:, :2], key=KEY) < np.log(1.25)).all()
    with pytest.raises(InputError, match="burn_in is 80"):
        diagnostics.lyapunov_exponent(LINEAR, params, carry, xs, key=KEY, burn_in=80)


def test_lyapunov_exponent_of_a_state_that_is_forgotten_at_once():
    params = scaled_orthogonal(0.0)
    assert np.isneginf(diagnostics.lyapunov_exponent(LINEAR, params, *setting(LINEAR, params), key=KEY)).all()


def test_log_gain_leaves_out_what_underflowed():
    norms = np.asarray([[1.0, 0.5, 0.25, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0], [1.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    gain = diagnostics.log_gain(jnp.asarray(norms))
    np.testing.assert_allclose(gain[:2], [np.log(0.5), 0.0], atol=1e-6)
    assert np.isnan(gain[2])


def test_spectral_radius_of_matrices_whose_eigenvalues_are_known():
    rotation = 0.9 * np.asarray([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    matrices = np.stack([rotation, [[0.5, 100.0], [0.0, -0.7]], [[0.0, 1.0], [0.0, 0.0]]]).astype(np.float32)
    np.testing.assert_allclose(diagnostics.spectral_radius(jnp.asarray(matrices)), [0.9, 0.7, 0.0], rtol=1e-5)


def test_saturation_counts_either_end():
    gates = jnp.asarray([[0.05, 0.5], [0.95, 0.91], [0.2, 0.99], [0.01, 0.5]])
    left, right = diagnostics.saturation(gates[:, None])
    np.testing.assert_allclose(left, [0.5, 0.0])
    np.testing.assert_allclose(right, [0.25, 0.5])
    with pytest.raises(InputError, match="margin"):
        diagnostics.saturation(gates, margin=0.7)


def test_gates_of_an_lstm_rebuild_its_memory():
    """The recorded sums are the gates: with them c' = σ(f)⊙c + σ(i)⊙tanh(g), step by step, gives the carry."""
    params = lstm.init(KEY, 3, 4)
    carry, xs = setting(lstm, params, noise=1.0)
    last, _ = unroll(lstm, params, carry, xs)
    _, (sums,) = unroll(diagnostics.with_affine_values(lstm), params, carry, xs)
    i, f, g, _ = np.split(np.asarray(sums, np.float64), 4, axis=-1)
    c = np.zeros((2, 4))
    for t in range(12):
        c = c / (1 + np.exp(-f[:, t])) + np.tanh(g[:, t]) / (1 + np.exp(-i[:, t]))
    np.testing.assert_allclose(last.c, c, rtol=1e-5)
