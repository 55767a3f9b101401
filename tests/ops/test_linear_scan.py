"""``ops.linear_scan`` against NumPy loops, SciPy's filter, the explicit kernel and the papers' own formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.errors import InputError
from seqjax.ops.cells import lstm
from seqjax.ops.compose import stack
from seqjax.ops.linear_scan import _combine, hold, linear_scan, lru, min_gru, min_lstm
from seqjax.ops.recurrence import Flags
from seqjax.ops.scan import unroll

METHODS = ("associative", "sequential")
CELLS = {"min_gru": min_gru, "min_lstm": min_lstm, "lru": lru}
WAYS = ("associative", None)
"""Of ``unroll`` to run a linear cell for all steps at once."""
EACH_METHOD = pytest.mark.parametrize("method", METHODS)
EACH_CELL = pytest.mark.parametrize("name", CELLS)


def normal(rng, shape, kind):
    values = rng.normal(size=shape)
    return values + 1j * rng.normal(size=shape) if kind == "complex" else values


def coefficients(kind, *, rows=2, steps=5, width=3, seed=0):
    """Float64 ``a [B, T, D]`` (or ``[B, T, D, D]``), ``b [B, T, D]`` and ``h_0 [B, D]``."""
    rng = np.random.default_rng(seed)
    shape = (rows, steps, width, width) if kind == "dense" else (rows, steps, width)
    a = 0.6 * normal(rng, shape, kind)
    return a, normal(rng, (rows, steps, width), kind), normal(rng, (rows, width), kind)


def loop(a, b, h, reverse=False):
    """The definition in NumPy, step by step; ``a`` diagonal or dense."""
    hs = np.zeros_like(b)
    order = range(b.shape[1])
    for t in reversed(order) if reverse else order:
        h = (a[:, t] * h if a.ndim == b.ndim else np.stack([m @ v for m, v in zip(a[:, t], h, strict=True)])) + b[:, t]
        hs[:, t] = h
    return h, hs


def single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.complex64 if np.iscomplexobj(x) else jnp.float32), tree)


def assert_close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(*(np.asarray(v, np.complex128) for v in (x, y)), rtol=tolerance, atol=tolerance)


@EACH_METHOD
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["real", "complex", "dense"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_linear_scan_equals_the_loop(steps, kind, reverse, method):
    a, b, h = coefficients(kind, steps=steps, seed=steps)
    expected = loop(a, b, h, reverse)
    assert_close(linear_scan(*single((a, b, h)), reverse=reverse, method=method), expected)


@pytest.mark.parametrize("kind", ["complex", "dense"])
def test_time_in_front_and_no_carry(kind):
    a, b, h = coefficients(kind)
    carry, hs = linear_scan(*single((a.swapaxes(0, 1), b.swapaxes(0, 1))), time_axis=0)
    assert_close((carry, hs.swapaxes(0, 1)), loop(a, b, 0 * h))


@EACH_METHOD
def test_a_constant_coefficient_is_scipys_first_order_filter(method):
    _, b, h = coefficients("real", steps=50, width=1)
    expected, last = scipy.signal.lfilter([1.0], [1.0, -0.9], b[..., 0], zi=0.9 * h)
    carry, hs = linear_scan(jnp.full((1, 1, 1), 0.9), *single((b, h)), method=method)
    assert_close((0.9 * carry, hs[..., 0]), (last, expected))


def naive(a, b, h):
    def body(h, coefficient):
        a_t, b_t = coefficient
        h = (a_t * h if a_t.ndim == h.ndim else jnp.einsum("bij,bj->bi", a_t, h)) + b_t
        return h, h

    h, hs = jax.lax.scan(body, h, (jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)))
    return h, jnp.moveaxis(hs, 0, 1)


def scalar(outputs):
    """A real number that every entry enters with a weight of its own, real and imaginary part apart."""
    total, rng = 0.0, np.random.default_rng(7)
    for x in jax.tree.leaves(outputs):
        dtype = x.real.dtype if x.real.dtype.itemsize >= 4 else jnp.float32
        real, imaginary = (jnp.asarray(w, dtype) for w in rng.normal(size=(2, *x.shape)))
        total = total + jnp.sum(jnp.sin(x.real.astype(dtype)) * real + jnp.square(x.imag.astype(dtype)) * imaginary)
    return total


@EACH_METHOD
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["real", "complex", "dense"])
def test_gradient_equals_autodiff_of_a_loop(kind, reverse, method):
    """This pins JAX's convention for complex cotangents: conjugates in the adjoint would show here."""
    a, b, h = single(coefficients(kind))
    flip = (lambda x: x[:, ::-1]) if reverse else lambda x: x

    def ours(a, b, h):
        return scalar(linear_scan(a, b, h, reverse=reverse, method=method))

    def expected(a, b, h):
        carry, hs = naive(flip(a), flip(b), h)
        return scalar((carry, flip(hs)))

    assert_close(*(jax.jit(jax.grad(f, argnums=(0, 1, 2)))(a, b, h) for f in (ours, expected)))


@pytest.mark.parametrize("kind", ["real", "complex", "dense"])
def test_gradient_against_finite_differences(kind, float64):
    arguments = coefficients(kind)
    direction = coefficients(kind, seed=1)

    @jax.jit
    def value(scale):
        moved = [jnp.asarray(x) + scale.astype(x.dtype) * d for x, d in zip(arguments, direction, strict=True)]
        return scalar(linear_scan(*moved, method="associative"))

    step = jnp.float64(1e-5)
    numeric = (value(step) - value(-step)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(jnp.float64(0)), numeric, rtol=1e-7)


def test_second_derivatives_equal_autodiff():
    a, b, h = single(coefficients("real"))

    def product(run):
        slope = jax.grad(lambda a: scalar(run(a, b, h)))
        return jax.jit(jax.grad(lambda a: jnp.sum(jnp.cos(slope(a)))))(a)

    assert_close(product(lambda *x: linear_scan(*x, method="associative")), product(naive), 1e-4)


@EACH_METHOD
def test_a_shared_coefficient_is_the_repeated_one(method):
    a, b, h = single(coefficients("complex"))
    a = a[:1, :1]

    def both(a, b, h):
        return scalar(linear_scan(a, b, h, method=method))

    gradient = jax.jit(jax.grad(both, argnums=(0, 1, 2)))
    repeated = gradient(jnp.broadcast_to(a, b.shape), b, h)
    expected = (jnp.sum(repeated[0], axis=(0, 1), keepdims=True), *repeated[1:])
    assert_close(gradient(a, b, h), expected)


@pytest.mark.parametrize("kind", ["real", "complex", "dense"])
@given(seed=st.integers(0, 999))
def test_combine_is_associative_and_composes_maps(kind, seed):
    """``(f∘g)∘k = f∘(g∘k)``, and both do to a state what the three maps do one after the other."""
    a, b, h = single(coefficients(kind, rows=3, steps=1, seed=seed))
    first, second, third = ((a[i], b[i]) for i in range(3))
    left = _combine(_combine(first, second), third)
    assert_close(left, _combine(first, _combine(second, third)))
    once = linear_scan(a.swapaxes(0, 1), b.swapaxes(0, 1), h[:1], method="sequential")[0]
    assert_close(linear_scan(left[0][None], left[1][None], h[:1], method="sequential")[0], once)


def test_a_long_sequence_stays_exact():
    rng = np.random.default_rng(0)
    a, b, h = rng.uniform(0.9, 1, (1, 4096, 8)), rng.uniform(0, 1, (1, 4096, 8)), rng.normal(size=(1, 8))
    arguments = single((a, b, h))
    expected = loop(*(np.asarray(x, np.float64) for x in arguments))
    for method in METHODS:
        carry, hs = linear_scan(*arguments, method=method)
        np.testing.assert_allclose(hs, expected[1], rtol=1e-5)
        np.testing.assert_allclose(carry, expected[0], rtol=1e-5)


def test_the_gradient_stores_the_coefficients_and_the_states_alone():
    a, b, h = single(coefficients("real", steps=64))
    _, pullback = jax.vjp(lambda *x: linear_scan(*x, method="associative")[1], a, b, h)
    stored = sum(x.size for x in jax.tree.leaves(pullback))
    assert stored <= a.size + b.size + h.size


def test_no_steps_return_the_carry():
    a, b, h = single(coefficients("real", steps=0))
    carry, hs = linear_scan(a, b, h)
    assert hs.shape == (2, 0, 3)
    assert_close(carry, h, 0)


def test_jit_and_vmap_change_nothing():
    a, b, h = single(coefficients("dense"))

    def run(a, b, h):
        return linear_scan(a, b, h, time_axis=0, method="associative")[1]

    expected = linear_scan(a, b, h, method="associative")[1]
    assert_close(jax.vmap(run)(a, b, h), expected)
    assert_close(jax.jit(jax.vmap(run))(a, b, h), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": jnp.zeros((2, 4, 3))}, r"a is float32\[2, 4, 3\]"),
        ({"a": jnp.zeros((2, 5, 3, 1))}, r"a is float32\[2, 5, 3, 1\]"),
        ({"a": jnp.zeros(5)}, r"a is float32\[5\]"),
        ({"a": jnp.zeros((2, 5, 3), jnp.bfloat16)}, "one dtype"),
        ({"carry": jnp.zeros(3)}, r"carry is float32\[3\]"),
        ({"carry": jnp.zeros((2, 3), jnp.complex64)}, "carry is complex64"),
        ({"time_axis": 2}, "time_axis is 2"),
    ],
)
def test_arguments_that_disagree_are_named(change, message):
    arguments = {"a": jnp.zeros((2, 5, 3)), "b": jnp.zeros((2, 5, 3))} | change
    with pytest.raises(InputError, match=message):
        linear_scan(**arguments)


def make(name, *, space=(), rows=3, steps=6, seed=0, dtype=jnp.float32):
    """Random parameters, carry (of both signs) and inputs ``[B, T, *space, 2]`` of a cell of 2 features."""
    cell, rng = CELLS[name], np.random.default_rng(seed)
    options = {"state": 4} if name == "lru" else {"kernel_size": (3,) * len(space)}
    params = cell.init(jax.random.key(seed), 2, 2, **options)
    params = jax.tree.map(lambda x: (x + 0.1 * jnp.asarray(rng.normal(size=x.shape), x.dtype)).astype(dtype), params)
    carry = cell.carry(params, (rows, *space))
    kind = "complex" if jnp.iscomplexobj(carry) else "real"
    xs = jnp.asarray(rng.normal(size=(rows, steps, *space, 2)), dtype)
    return params, jnp.asarray(normal(rng, carry.shape, kind), carry.dtype), xs


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru_oracle(params, h, xs):
    z, candidate = np.split(xs @ params.input + params.bias, 2, axis=-1)
    hs = []
    for t in range(xs.shape[1]):
        h = (1 - sigmoid(z[:, t])) * h + sigmoid(z[:, t]) * positive(candidate[:, t])
        hs.append(h)
    return h, np.stack(hs, axis=1)


def min_lstm_oracle(params, h, xs):
    f, i, candidate = np.split(xs @ params.input + params.bias, 3, axis=-1)
    f, i = sigmoid(f), sigmoid(i)
    hs = []
    for t in range(xs.shape[1]):
        h = (f * h[:, None] + i * positive(candidate))[:, t] / (f + i)[:, t]
        hs.append(h)
    return h, np.stack(hs, axis=1)


def lru_oracle(params, h, xs):
    """No recurrence: ``h_t = λ^t h_0 + Σ_s λ^(t-s) γ B x_s``, with the powers taken one by one."""
    eigenvalue = np.exp(-np.exp(params.nu_log) + 1j * np.exp(params.theta_log))
    width, steps = len(eigenvalue), xs.shape[1]
    b = params.input[:, :width] + 1j * params.input[:, width:]
    c = params.output[:width] + 1j * params.output[width:]
    drive = np.exp(params.gamma_log) * (xs @ b)
    kernel = [[eigenvalue ** (t - s) if s <= t else 0 * eigenvalue for s in range(steps)] for t in range(steps)]
    hs = np.einsum("tsn,bsn->btn", np.array(kernel), drive)
    hs += np.array([eigenvalue**t for t in range(1, steps + 1)]) * h[:, None]
    return hs[:, -1], (hs @ c).real + params.skip * xs


ORACLES = {"min_gru": min_gru_oracle, "min_lstm": min_lstm_oracle, "lru": lru_oracle}


@pytest.mark.parametrize("method", ["sequential", *WAYS])
@EACH_CELL
def test_cell_equals_its_equations_in_numpy(name, method):
    arguments = make(name)
    exact = jax.tree.map(lambda x: np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64), arguments)
    expected = ORACLES[name](*exact)
    assert_close(jax.jit(functools.partial(unroll, CELLS[name], method=method))(*arguments), expected)


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_equals_the_papers_log_space_formula(name):
    """``log h_t = a*_t + logcumsumexp([log h_0, log i + log g] - a*)``, ``a* = cumsum(log f)``, in float64."""
    params, carry, xs = make(name, steps=40)
    carry = jnp.abs(carry) + 0.1
    z = np.asarray(xs, np.float64) @ np.asarray(params.input, np.float64) + np.asarray(params.bias, np.float64)
    if name == "min_gru":
        k, candidate = np.split(z, 2, axis=-1)
    else:
        f, i, candidate = np.split(z, 3, axis=-1)
        k = np.logaddexp(0, -f) - np.logaddexp(0, -i)
    log_keep, log_take = -np.logaddexp(0, k), -np.logaddexp(0, -k)
    log_g = np.where(candidate >= 0, np.log(np.maximum(candidate, 0) + 0.5), -np.logaddexp(0, -candidate))
    total = np.cumsum(np.concatenate([np.zeros_like(log_keep[:, :1]), log_keep], axis=1), axis=1)
    values = np.concatenate([np.log(np.asarray(carry, np.float64))[:, None], log_take + log_g], axis=1)
    expected = np.exp(total + np.logaddexp.accumulate(values - total, axis=1))[:, 1:]
    assert_close(unroll(CELLS[name], params, carry, xs, method="associative"), (expected[:, -1], expected))


ROWS, STEPS = 3, 6
FLAGS = st.lists(st.booleans(), min_size=ROWS * STEPS, max_size=ROWS * STEPS).map(
    lambda flags: jnp.array(flags).reshape(ROWS, STEPS)
)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def outputs_and_gradients(name, method, options, arguments, flags):
    """With respect to parameters, carry and inputs."""

    def value(*arguments):
        outputs = unroll(CELLS[name], *arguments, method=method, **dict(options), **flags)
        return scalar(outputs), outputs

    return jax.grad(value, (0, 1, 2), has_aux=True)(*arguments)


@EACH_CELL
@pytest.mark.parametrize("reverse", [False, True])
@given(data=st.data())
@settings(max_examples=10)
def test_parallel_equals_unroll_for_every_mask(reverse, name, data):
    flags = {"resets": data.draw(FLAGS, "resets"), "mask": data.draw(FLAGS, "mask")}
    arguments = make(name, seed=data.draw(st.integers(0, 9), "seed"))
    expected, *ours = (
        outputs_and_gradients(name, method, (("reverse", reverse),), arguments, flags)
        for method in ("sequential", *WAYS)
    )
    for found in ours:
        assert_close(found, expected, 5e-5)


@EACH_METHOD
@pytest.mark.parametrize("kind", ["complex", "dense"])
def test_hold_writes_masks_and_resets_into_the_coefficients(kind, method):
    """A constant coefficient, against ``unroll`` of the recurrence as a plain step with the same flags."""
    a, b, start = single(coefficients(kind, rows=ROWS, steps=STEPS))
    a = a[:1, :1]
    rng = np.random.default_rng(0)
    valid, resets = jnp.asarray(rng.random((STEPS, ROWS)) < 0.6), jnp.asarray(rng.random((STEPS, ROWS)) < 0.4)

    def step(a, h, b_t):
        h = (a[0] * h if kind == "complex" else h @ a[0, 0].T) + b_t
        return h, h

    expected = unroll(step, a, start, b, mask=valid.T, resets=resets.T)
    held = hold(a.swapaxes(0, 1), b.swapaxes(0, 1), start, Flags(valid, resets))
    carry, hs = linear_scan(*held, start, time_axis=0, method=method)
    assert_close((carry, jnp.where(valid.T[..., None], hs.swapaxes(0, 1), jnp.zeros_like(b))), expected)


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize(
    ("name", "space", "time_axis"),
    [("min_gru", (2, 3), 1), ("min_gru", (), 0), ("min_lstm", (3,), 0), ("lru", (), 0), ("lru", (), 1)],
)
def test_parallel_equals_unroll_without_flags(name, space, time_axis, method):
    """Convolutional cells, and time in front."""
    params, carry, xs = make(name, space=space)
    arguments, options = (params, carry, jnp.moveaxis(xs, 1, time_axis)), (("time_axis", time_axis),)
    assert_close(*(outputs_and_gradients(name, m, options, arguments, {}) for m in (method, "sequential")), 5e-5)


@EACH_CELL
def test_padding_may_hold_nan_and_length_zero_returns_the_carry(name):
    params, carry, xs = make(name)
    flags = {"lengths": jnp.array([0, 3, 6])}
    poisoned = jnp.where((jnp.arange(STEPS)[None] < flags["lengths"][:, None])[..., None], xs, jnp.nan)
    expected = outputs_and_gradients(name, "sequential", (), (params, carry, xs), flags)
    for method in WAYS:
        clean = outputs_and_gradients(name, method, (), (params, carry, xs), flags)
        assert_close(outputs_and_gradients(name, method, (), (params, carry, poisoned), flags), clean, 0)
        assert_close(clean, expected, 5e-5)
        _, (last, ys) = clean
        assert_close(last[0], carry[0], 0)
        np.testing.assert_array_equal(ys[0], 0)
        np.testing.assert_array_equal(ys[1, 3:], 0)


@EACH_CELL
def test_no_carry_is_the_zero_carry(name):
    params, carry, xs = make(name)
    expected = unroll(CELLS[name], params, jnp.zeros_like(carry), xs)
    assert_close(unroll(CELLS[name], params, None, xs), expected, 0)
    assert_close(unroll(CELLS[name], params, None, xs), expected)


@EACH_CELL
def test_cell_gradient_against_finite_differences(name, float64):
    arguments, direction = make(name, dtype=jnp.float64), make(name, dtype=jnp.float64, seed=3)

    @jax.jit
    def value(scale):
        moved = jax.tree.map(lambda x, d: x + scale.astype(x.dtype) * d, arguments, direction)
        return scalar(unroll(CELLS[name], *moved, lengths=jnp.array([0, 4, 6]), method="associative"))

    step = jnp.float64(1e-5)
    numeric = (value(step) - value(-step)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(jnp.float64(0)), numeric, rtol=1e-7)


@EACH_CELL
def test_bfloat16_is_finite_and_close(name):
    arguments = make(name, dtype=jnp.bfloat16)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, arguments)
    expected = outputs_and_gradients(name, "sequential", (), exact, {})[1]
    for method in WAYS:
        gradients, (carry, ys) = outputs_and_gradients(name, method, (), arguments, {})
        assert (carry.dtype, ys.dtype) == (arguments[1].dtype, jnp.bfloat16)
        assert_close((carry, ys), expected, 5e-2)
        assert all(np.isfinite(np.asarray(g, np.complex64)).all() for g in jax.tree.leaves(gradients))


@EACH_CELL
def test_a_long_sequence_equals_unroll(name):
    params, carry, xs = make(name, rows=1, steps=4096)
    expected = jax.jit(lambda x: unroll(CELLS[name], params, carry, x, method="sequential"))(xs)
    assert_close(jax.jit(lambda x: unroll(CELLS[name], params, carry, x, method="associative"))(xs), expected)


@EACH_CELL
def test_every_parameter_gets_gradient(name):
    for method in ("sequential", *WAYS):
        gradient = outputs_and_gradients(name, method, (), make(name), {})[0][0]
        assert all((np.abs(g) > 0).all() for g in gradient)


@EACH_CELL
def test_outputs_depend_on_the_past_alone(name):
    params, carry, xs = make(name, rows=1)

    def outputs(xs):
        return unroll(CELLS[name], params, carry, xs, method="associative")[1][0].sum(-1)

    jacobian = np.asarray(jax.jit(jax.jacobian(outputs))(xs))[:, 0].sum(-1)
    np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
    assert (np.abs(jacobian[np.tril_indices(STEPS)]) > 0).all()


@EACH_CELL
def test_forward_mode_with_autodiff(name):
    params, carry, xs = make(name)
    value = lambda c: scalar(unroll(CELLS[name], params, c, xs, weight_gradient="autodiff"))  # noqa: E731
    _, slope = jax.jvp(value, (carry,), (carry,))
    gradient = jax.grad(value)(carry)
    np.testing.assert_allclose(slope, jnp.sum(gradient * carry).real, rtol=1e-4)


def test_layers_in_parallel_equal_a_stack_step_by_step():
    layers = (min_gru, lru)
    params, carries = zip(*(make(name)[:2] for name in ("min_gru", "lru")), strict=True)
    xs = make("lru")[2]
    expected_carry, expected = unroll(stack(layers), params, carries, xs)
    carry = []
    for cell, p, c in zip(layers, params, carries, strict=True):
        last, xs = unroll(cell, p, c, xs, method="associative")
        carry.append(last)
    assert_close((tuple(carry), xs), (expected_carry, expected))


@pytest.mark.parametrize("name", ["min_gru", "min_lstm"])
def test_forget_bias_sets_the_memory(name):
    """With inputs of zero the share of the state that is kept: ``σ(b)``, or ``σ(b)/(σ(b)+σ(0))``."""
    params = CELLS[name].init(jax.random.key(0), 2, 3, forget_bias=2.0)
    (one, _), (zero, _) = (unroll(CELLS[name], params, c * jnp.ones((1, 3)), jnp.zeros((1, 1, 2))) for c in (1, 0))
    expected = sigmoid(2.0) if name == "min_gru" else sigmoid(2.0) / (sigmoid(2.0) + 0.5)
    np.testing.assert_allclose(one - zero, expected, rtol=1e-6)


def test_lru_starts_uniform_on_its_ring_and_never_leaves_the_disk():
    params = lru.init(jax.random.key(0), 1, 1, state=4000, r_min=0.6, r_max=0.9, max_phase=1.0)
    modulus, phase = np.exp(-np.exp(params.nu_log)), np.exp(params.theta_log)
    assert modulus.min() >= 0.6 - 1e-6
    assert modulus.max() <= 0.9 + 1e-6
    # Uniform in area: means of |λ|² and of the phase, within four standard errors.
    np.testing.assert_allclose(np.mean(modulus**2), (0.36 + 0.81) / 2, atol=4 * 0.45 / np.sqrt(12 * 4000))
    np.testing.assert_allclose(np.mean(phase), 0.5, atol=4 / np.sqrt(12 * 4000))
    np.testing.assert_allclose(np.exp(params.gamma_log), np.sqrt(1 - modulus.astype(np.float64) ** 2), rtol=1e-5)
    anywhere = params._replace(nu_log=jnp.linspace(-10, 10, 4000))
    eigenvalue, _ = lru.step.coefficients(anywhere, lru.project(anywhere, jnp.ones((1, 1)), lambda b, k, x: b + x @ k))
    assert np.abs(eigenvalue).max() < 1


def test_a_cell_that_is_not_linear_is_refused():
    params = lstm.init(jax.random.key(0), 2, 2)
    with pytest.raises(InputError, match="LinearStep"):
        unroll(lstm, params, None, jnp.zeros((1, 2, 2)), method="associative")
    with pytest.raises(InputError, match="in_features is 2 and features is 3"):
        lru.init(jax.random.key(0), 2, 3)
