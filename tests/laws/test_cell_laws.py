"""Laws that every cell joins: padding, resets, gradients in every leaf, both roads to the weight gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.cells import CASES, Case

from seqjax.ops import linear
from seqjax.ops.scan import unroll

EVERY_CELL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
BATCH, STEPS, FEATURES = 3, 5, 4
LENGTHS = np.array([0, 3, 5], np.int32)
RESETS = np.array([[0, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool)


def random_like(tree, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.5, dtype), tree)


def make(case: Case, dtype=jnp.float32):
    channels = case.inputs if isinstance(case.inputs[0], tuple) else (case.inputs,)
    params = case.cell.init(jax.random.key(0), channels[0][0], FEATURES, **case.options)
    carry = case.cell.carry(params, (BATCH, *case.space))
    xs = tuple(jnp.zeros((BATCH, STEPS, *case.space, *c)) for c in channels)
    return random_like((params, carry, xs if len(xs) > 1 else xs[0]), dtype=dtype)


def loop(case: Case, params, carry, xs):
    """Step by step in Python; the literal oracle of masks and resets is in ``test_scan``."""
    state, ys = carry, []
    for t in range(STEPS):
        x_t = jax.tree.map(lambda x, t=t: x[:, t], xs)
        before = choose(RESETS[:, t], carry, state)
        new, y_t = case.cell.step(params, before, case.cell.project(params, x_t, linear.affine), linear.affine)
        state = choose(t < LENGTHS, new, state)
        ys.append(choose(t < LENGTHS, y_t, jnp.zeros_like(y_t)))
    return state, jnp.stack(ys, axis=1)


def choose(rows, yes, no):
    return jax.tree.map(lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


def scanned(case: Case, **options):
    return lambda params, carry, xs: unroll(
        case.cell, params, carry, xs, lengths=jnp.asarray(LENGTHS), resets=jnp.asarray(RESETS), **options
    )


def value_and_gradients(run, arguments):
    def value(*arguments):
        outputs = run(*arguments)
        weighted = jax.tree.map(
            lambda o, w: jnp.sum(jnp.sin(o) * w), outputs, random_like(outputs, 7, outputs[1].dtype)
        )
        return sum(jax.tree.leaves(weighted))

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*arguments)


def assert_close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=tolerance, atol=tolerance)


@EVERY_CELL
def test_both_gradients_equal_the_loop_and_reach_every_parameter(case):
    arguments = make(case)
    expected = value_and_gradients(lambda *a: loop(case, *a), arguments)
    assert_close(value_and_gradients(scanned(case), arguments), expected)
    for options in (
        {"weight_gradient": "autodiff", "hoist": False},
        {"hoist": False},
        {"hoist": True, "saved": "carries"},
    ):
        assert_close(value_and_gradients(scanned(case, **options), arguments), expected)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(expected))


@EVERY_CELL
def test_gradient_against_finite_differences(case, float64):
    arguments = make(case, jnp.float64)
    direction = random_like(arguments, 5, jnp.float64)

    def value(scale):
        moved = jax.tree.map(lambda a, d: a + scale * d, arguments, direction)
        carry, ys = scanned(case)(*moved)
        return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(c**2) for c in jax.tree.leaves(carry))

    numeric = (jax.jit(value)(1e-5) - jax.jit(value)(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.0), numeric, rtol=1e-6)


@EVERY_CELL
def test_bfloat16_stays_bfloat16_and_finite(case):
    arguments = make(case, jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(scanned(case)(*arguments))} == {jnp.dtype(jnp.bfloat16)}
    gradients = value_and_gradients(scanned(case), arguments)[1]
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in jax.tree.leaves(gradients))
