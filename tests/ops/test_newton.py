"""``ops.newton`` against ``unroll``, and against NumPy loops over rows and steps."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.errors import InputError
from seqjax.ops.cells import gru, gru_reset_before, lstm, rnn
from seqjax.ops.compose import stack, with_carries
from seqjax.ops.newton import newton
from seqjax.ops.scan import unroll

CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_reset_before": gru_reset_before}
KINDS = ["dense", "block", "diagonal"]


def problem(cell, *, gain=1.0, rows=2, steps=32, features=4, seed=0, **options):
    """Parameters, a random carry and normal inputs ``[B, T, 3]``; ``gain`` scales the recurrent kernel."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = cell.init(keys[0], 3, features, **options)
    params = params._replace(recurrent=params.recurrent * gain)
    zeros = cell.carry(params, (rows,))
    carry = jax.tree.map(lambda x: 0.5 * jax.random.normal(keys[1], x.shape, x.dtype), zeros)
    return params, carry, jax.random.normal(keys[2], (rows, steps, 3))


@contextlib.contextmanager
def double_precision():
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def solve(cell, *arguments, **options):
    return jax.jit(functools.partial(newton, cell, **options))(*arguments)


def scanned(cell, *arguments, **options):
    return jax.jit(functools.partial(unroll, cell, **options))(*arguments)


def assert_close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=tolerance, atol=tolerance)


def gradients(run, *arguments):
    """Of a scalar that every output and every entry of the last carry enters with its own weight."""

    def value(*arguments):
        leaves = jax.tree.leaves(run(*arguments))
        weights = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in leaves]
        return sum(jnp.sum(jnp.sin(x) * w) for x, w in zip(leaves, weights, strict=True))

    return jax.jit(jax.grad(value, argnums=tuple(range(len(arguments)))))(*arguments)


def assert_gradients_close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = np.linalg.norm(y)
        assert np.linalg.norm(np.asarray(x) - np.asarray(y)) <= tolerance * scale + 1e-30


@pytest.mark.parametrize(
    ("name", "kind", "method"),
    [
        ("rnn", "dense", "sequential"),
        ("rnn", "diagonal", "associative"),
        ("lstm", "dense", "associative"),
        ("lstm", "block", "associative"),
        ("lstm", "diagonal", "sequential"),
        ("gru", "dense", "sequential"),
        ("gru", "diagonal", "associative"),
        ("gru_reset_before", "block", "sequential"),
    ],
)
def test_values_and_gradients_equal_the_scan(name, kind, method):
    cell = CELLS[name]
    arguments = problem(cell, gain=1.2)
    parallel = functools.partial(newton, cell, jacobian=kind, method=method, tolerance=1e-6)
    carry, ys, info = jax.jit(parallel)(*arguments)
    assert info.converged
    assert 0 < info.iterations < 32
    assert_close((carry, ys), unroll(cell, *arguments))
    ours = gradients(lambda *a: parallel(*a)[:2], *arguments)
    assert_gradients_close(ours, gradients(functools.partial(unroll, cell), *arguments), 1e-5)


def plain_rnn(params, h, x):
    """Elman's network as a plain function, and as NumPy: the same code runs on both."""
    module = np if isinstance(h, np.ndarray) else jnp
    h = module.tanh(x @ params["w"] + h @ params["u"])
    return h, h * h


def numpy_loop(params, carry, xs, valid, resets, reverse):
    """The specification, row by row and step by step."""
    rows, last = np.zeros((*xs.shape[:2], carry.shape[-1])), carry.copy()
    for b in range(len(xs)):
        for t in reversed(range(xs.shape[1])) if reverse else range(xs.shape[1]):
            if valid[b, t]:
                last[b], rows[b, t] = plain_rnn(params, carry[b] if resets[b, t] else last[b], xs[b, t])
    return last, rows


@given(data=st.data())
@settings(max_examples=3)
def test_every_option_of_unroll(data):
    rows, steps = data.draw(st.integers(1, 3), "rows"), data.draw(st.integers(1, 6), "steps")
    flags = st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=rows, max_size=rows)
    valid, resets = np.array(data.draw(flags, "mask")), np.array(data.draw(flags, "resets"))
    reverse, time_axis = data.draw(st.booleans(), "reverse"), data.draw(st.integers(0, 1), "time_axis")
    rng = np.random.default_rng(data.draw(st.integers(0, 9), "seed"))
    params = {"w": rng.normal(size=(3, 2)), "u": rng.normal(size=(2, 2))}
    carry, xs = rng.normal(size=(rows, 2)), rng.normal(size=(rows, steps, 3))
    poisoned = np.where(valid[..., None], xs, np.nan)

    def lay(x):
        return jnp.asarray(x if time_axis == 1 else np.swapaxes(x, 0, 1))

    def options():
        return {"mask": lay(valid), "resets": lay(resets), "reverse": reverse, "time_axis": time_axis}

    kind = data.draw(st.sampled_from(["dense", "diagonal"]), "jacobian")

    def ours(params, carry, xs):
        return newton(plain_rnn, params, carry, xs, jacobian=kind, tolerance=1e-10, **options())

    with double_precision():
        arguments = jax.tree.map(jnp.asarray, (params, carry, lay(poisoned)))
        last, ys, info = jax.jit(ours)(*arguments)
        assert info.converged
        assert_close((last, lay(ys)), numpy_loop(params, carry, xs, valid, resets, reverse), 1e-9)
        expected = gradients(lambda *a: unroll(plain_rnn, *a, **options()), *arguments)
        assert_gradients_close(gradients(lambda *a: ours(*a)[:2], *arguments), expected, 1e-9)


def test_lengths_and_a_row_of_length_zero():
    arguments = problem(lstm)
    lengths = jnp.array([0, 20])
    last, ys, _ = solve(lstm, *arguments, lengths=lengths)
    assert_close((last, ys), scanned(lstm, *arguments, lengths=lengths))
    assert_close(jax.tree.map(lambda x: x[0], last), jax.tree.map(lambda x: x[0], arguments[1]), 0)


def test_a_cell_without_input():
    params = rnn.init(jax.random.key(0), None, 4)
    carry = jnp.ones((2, 4))
    assert_close(solve(rnn, params, carry, None, steps=9)[:2], scanned(rnn, params, carry, None, steps=9))


def test_a_stack_of_unequal_layers():
    cell = stack([lstm, gru])
    params = cell.init(jax.random.key(0), 3, [4, 8])
    xs = jax.random.normal(jax.random.key(1), (2, 20, 3))
    carry = cell.carry(params, (2,))
    for kind in ("dense", "diagonal"):
        last, ys, info = solve(cell, params, carry, xs, jacobian=kind, tolerance=1e-6)
        assert info.converged
        assert_close((last, ys), scanned(cell, params, carry, xs))


@pytest.mark.parametrize("kind", ["block", "diagonal"])
def test_convolutional_cell(kind):
    params = lstm.init(jax.random.key(0), 2, 3, kernel_size=(3, 3))
    params = params._replace(recurrent=0.5 * params.recurrent)
    xs = jax.random.normal(jax.random.key(1), (2, 12, 4, 5, 2))
    carry, ys, info = solve(lstm, params, None, xs, jacobian=kind)
    assert info.converged
    assert info.iterations < 12
    assert_close((carry, ys), scanned(lstm, params, None, xs))


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences(kind):
    arguments = problem(gru, rows=1, steps=4096)
    carry, ys, info = jax.jit(functools.partial(newton, gru, jacobian=kind, tolerance=5e-6))(*arguments)
    assert info.converged
    assert_close((carry, ys), scanned(gru, *arguments))


def test_the_small_scale_check():
    """GRU, D=8, T=512, gain 1: at most 8 iterations, 1e-5 from the scan, gradient within 1e-4."""
    params, _, xs = problem(gru, steps=512, features=8)
    _, ys, info = solve(gru, params, None, xs)
    assert info.converged
    assert info.iterations <= 8
    expected = scanned(gru, params, None, xs)
    assert np.abs(ys - expected[1]).max() < 1e-5

    def squares(run):
        return jax.jit(jax.grad(lambda p, x: jnp.sum(run(gru, p, None, x)[1] ** 2), argnums=(0, 1)))(params, xs)

    assert_gradients_close(squares(newton), squares(unroll), 1e-4)


def test_a_linear_recurrence_takes_one_iteration_from_any_guess():
    def step(params, s, x):
        return s @ params + x, s

    params = 0.5 * jax.random.normal(jax.random.key(0), (3, 3))
    xs = jax.random.normal(jax.random.key(1), (2, 40, 3))
    carry = jnp.ones((2, 3))
    expected = scanned(step, params, carry, xs)
    for seed in range(3):
        guess = 10 * jax.random.normal(jax.random.key(seed), (2, 40, 3))
        last, ys, info = solve(step, params, carry, xs, guess=guess)
        assert info.converged
        assert info.iterations == 1
        assert_close((last, ys), expected)


def test_the_solution_as_guess_takes_no_iteration():
    arguments = problem(lstm)
    _, (_, states) = scanned(with_carries(lstm), *arguments)
    _, ys, info = solve(lstm, *arguments, guess=states)
    assert info.converged
    assert info.iterations == 0
    assert_close(ys, scanned(lstm, *arguments)[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_after_k_iterations_the_first_k_states_are_exact(kind, damping):
    """So T iterations are enough for any cell, and k for the first k steps; chaotic on purpose."""
    with double_precision():
        params, carry, xs = jax.tree.map(lambda x: x.astype(jnp.float64), problem(rnn, gain=3.0, steps=24))
        for k in (1, 5, 24):
            _, ys, info = solve(
                rnn, params, carry, xs[:, :k], jacobian=kind, damping=damping, max_iterations=k, tolerance=1e-12
            )
            assert info.converged
            assert_close(ys, scanned(rnn, params, carry, xs[:, :k])[1], 1e-11)


def test_convergence_in_the_last_iteration_counts_and_one_less_falls_back():
    arguments = problem(gru)
    *_, info = solve(gru, *arguments)
    needed = int(info.iterations)
    assert solve(gru, *arguments, max_iterations=needed)[2].converged
    carry, ys, info = solve(gru, *arguments, max_iterations=needed - 1)
    assert not info.converged
    assert info.residual > 1e-5
    assert_close((carry, ys), scanned(gru, *arguments), 1e-6)


def residual_after(count, cell, arguments, kind):
    return solve(cell, *arguments, jacobian=kind, max_iterations=count)[2].residual


def test_quasi_newton_is_newton_where_channels_do_not_mix():
    def independent(params, s, x):
        s = jnp.tanh(jnp.broadcast_to(params, s.shape) * s + x)
        return s, s

    arguments = jnp.array([0.9, -2.0, 1.5]), jnp.ones((2, 3)), jax.random.normal(jax.random.key(1), (2, 50, 3))
    for count in (1, 3):
        dense, diagonal = (residual_after(count, independent, arguments, kind) for kind in ("dense", "diagonal"))
        assert dense > 1e-3
        np.testing.assert_allclose(dense, diagonal, rtol=1e-3)


def test_blocks_are_newton_for_an_lstm_whose_channels_do_not_mix():
    params, carry, xs = problem(lstm, gain=2.0)
    own = jnp.eye(4)[:, None] * params.recurrent.reshape(4, 4, 4)
    arguments = params._replace(recurrent=own.reshape(4, 16)), carry, xs
    dense, block, diagonal = (residual_after(2, lstm, arguments, kind) for kind in KINDS)
    assert dense > 1e-4
    np.testing.assert_allclose(dense, block, rtol=1e-3)
    assert diagonal > 2 * dense


@pytest.mark.parametrize("kind", KINDS)
def test_a_chaotic_network_is_never_silently_wrong(kind):
    arguments = problem(rnn, gain=3.0, steps=512, features=8)
    expected = scanned(rnn, *arguments)
    carry, ys, info = solve(rnn, *arguments, jacobian=kind)
    assert not info.converged
    assert_close((carry, ys), expected, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fallback_has_the_gradient_of_the_scan(kind):
    arguments = problem(lstm)

    def ours(*arguments):
        return solve(lstm, *arguments, jacobian=kind, max_iterations=1)[:2]

    assert not solve(lstm, *arguments, jacobian=kind, max_iterations=1)[2].converged
    assert_gradients_close(gradients(ours, *arguments), gradients(functools.partial(unroll, lstm), *arguments), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vanishing_gradient_is_right_at_the_first_step(kind):
    """The loss reads the last state alone; what reaches the first input is a billion times smaller."""
    params, carry, xs = problem(gru, gain=0.3, rows=1, steps=40)

    def last(run):
        return jax.jit(jax.grad(lambda x: jnp.sum(run(gru, params, carry, x)[0]) * 1.0))(xs)[0, 0]

    expected = last(unroll)
    assert 0 < np.abs(expected).max() < 1e-9
    np.testing.assert_allclose(last(functools.partial(newton, jacobian=kind)), expected, rtol=1e-3)


@pytest.mark.parametrize("steps", [8, 4096])
def test_nan_in_an_input_is_not_convergence(steps):
    params, carry, xs = problem(gru, steps=steps)
    for poisoned in (xs.at[0, 5].set(jnp.nan), jnp.full_like(xs, jnp.nan)):
        _, ys, info = solve(gru, params, carry, poisoned)
        assert not info.converged
        assert np.isnan(info.residual)
        np.testing.assert_array_equal(np.isnan(ys), np.isnan(scanned(gru, params, carry, poisoned)[1]))


def test_an_infinite_guess_does_not_win():
    arguments = problem(lstm)
    guess = jax.tree.map(lambda x: jnp.full((2, 32, *x.shape[1:]), jnp.inf), arguments[1])
    carry, ys, info = solve(lstm, *arguments, guess=guess)
    assert not info.converged
    assert_close((carry, ys), scanned(lstm, *arguments), 1e-6)


def test_damping_shrinks_the_transition_alone():
    """One damped correction of a scalar linear recurrence from zeros, with the residual it leaves, in NumPy."""
    a, xs = -0.8, np.random.default_rng(0).normal(size=20)
    states, corrected = np.zeros(20), np.zeros(20)
    for t in range(20):
        corrected[t] = xs[t] + a / 1.5 * (corrected[t - 1] if t else 0.0)
    left = np.abs(a * np.append(states[0], corrected[:-1]) + xs - corrected).max()

    def step(params, s, x):
        return params * s + x, s

    options = {"damping": 0.5, "max_iterations": 1}
    *_, info = solve(
        step, jnp.full((1, 1), a), jnp.zeros((1, 1)), jnp.asarray(xs, jnp.float32)[None, :, None], **options
    )
    np.testing.assert_allclose(info.residual, left, rtol=1e-5)


def test_damping_saves_iterations_where_corrections_overshoot():
    arguments = problem(gru, gain=3.0, steps=256, features=8)
    counts = []
    for damping in (0.0, 0.1):
        *result, info = solve(gru, *arguments, damping=damping, max_iterations=256, tolerance=1e-6)
        assert info.converged
        assert_close(result, scanned(gru, *arguments), 1e-4)
        counts.append(int(info.iterations))
    assert counts[1] < counts[0]


def test_vmap_is_a_loop_of_calls():
    params, carry, xs = problem(gru)
    stacked = jnp.stack([xs, 2 * xs])
    together = jax.vmap(lambda x: solve(gru, params, carry, x)[:2])(stacked)
    for i in range(2):
        assert_close(jax.tree.map(lambda y, i=i: y[i], together), solve(gru, params, carry, stacked[i])[:2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jacobian": "full"}, "'?dense'?, 'block'"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        ({"damping": -1.0}, "damping -1.0"),
        ({"carry": jnp.zeros((2, 4), jnp.bfloat16), "guess": jnp.zeros((2, 31, 4))}, "guess has shapes"),
        ({"carry": (jnp.zeros((2, 4)), jnp.zeros((3, 4)))}, "same"),
        ({"carry": (jnp.zeros((2, 4)), jnp.zeros((2, 3))), "jacobian": "block"}, "one shape for all leaves"),
        ({"carry": jnp.zeros((2, 5, 4))}, "convolutional"),
        ({"cell": plain_rnn, "jacobian": "block"}, "needs a Cell"),
    ],
)
def test_bad_arguments_are_named(change, words):
    params, carry, xs = problem(rnn)
    arguments = {"cell": rnn, "params": params, "carry": carry, "xs": xs} | change
    with pytest.raises((InputError, TypeError), match=words):
        newton(**arguments)
