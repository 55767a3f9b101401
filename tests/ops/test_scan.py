"""``ops.scan.unroll`` against a Python loop over rows and steps, for every option and for gradients."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.cells import lstm
from seqjax.ops.compose import with_carries
from seqjax.ops.scan import unroll


def random_like(tree, seed=0, scale=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype), tree)


def make(space=(), *, batch=3, steps=5, features=2, peephole="none", seed=0, dtype=jnp.float32):
    """Parameters, carry and inputs ``[B, T, *space, C]`` of an LSTM, all random."""
    kernel = (3,) * len(space)
    params = lstm.init(jax.random.key(0), 2, features, kernel_size=kernel, peephole=peephole)
    shapes = params, lstm.carry(params, (batch, *space)), jnp.zeros((batch, steps, *space, 2))
    return jax.tree.map(lambda x: x.astype(dtype), random_like(shapes, seed))


def loop(params, carry, xs, valid, resets, reverse=False):
    """The specification, literally: row by row, step by step, with Python's ``if``."""
    rows, carries = [], []
    for b in range(xs.shape[0]):
        start = state = jax.tree.map(lambda x, b=b: x[b : b + 1], carry)
        ys = {}
        order = range(xs.shape[1])
        for t in reversed(order) if reverse else order:
            if not valid[b, t]:
                ys[t] = jnp.zeros_like(start.h)
                continue
            if resets[b, t]:
                state = start
            z_t = lstm.project(params, xs[b : b + 1, t], linear.affine)
            state, ys[t] = lstm.step(params, state, z_t, linear.affine)
        rows.append(jnp.stack([ys[t] for t in order], axis=1))
        carries.append(state)
    return jax.tree.map(lambda *c: jnp.concatenate(c), *carries), jnp.concatenate(rows)


def assert_close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=tolerance, atol=tolerance)


def objective(run, arguments):
    """A scalar that every output and every entry of the last carry enters with its own weight."""

    def value(params, carry, xs):
        outputs = run(params, carry, xs)
        weights = random_like(outputs, 7)
        return sum(jax.tree.leaves(jax.tree.map(lambda o, w: jnp.sum(jnp.sin(o) * w), outputs, weights)))

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*arguments)


EVERYTHING = pytest.mark.parametrize("weight_gradient", ["deferred", "autodiff"])


@EVERYTHING
@given(data=st.data())
@settings(max_examples=10)
def test_every_option_equals_the_loop(weight_gradient, data):
    batch, steps = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(1, 6), "steps")
    space = data.draw(st.sampled_from([(), (3,), (2, 3)]), "space")
    peephole = data.draw(st.sampled_from(["none", "channel"]), "peephole")
    flags = st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=batch, max_size=batch)
    resets = np.array(data.draw(flags, "resets"))
    options = {
        "reverse": data.draw(st.booleans(), "reverse"),
        "remat": data.draw(st.sampled_from([None, 1, 2, 4, 9, "sqrt"]), "remat"),
        "unroll": data.draw(st.integers(1, 3), "unroll"),
        "hoist": data.draw(st.sampled_from([None, True, False]), "hoist"),
        "saved": data.draw(st.sampled_from(["products", "carries"]), "saved"),
    }
    kind = data.draw(st.sampled_from(["none", "lengths", "mask"]), "kind")
    valid = np.ones((batch, steps), bool)
    if kind == "lengths":
        lengths = np.array(data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch), "lengths"))
        valid = np.arange(steps) < lengths[:, None]
        options["lengths"] = jnp.asarray(lengths, jnp.int32)
    elif kind == "mask":
        valid = np.array(data.draw(flags, "mask"))
        options["mask"] = jnp.asarray(valid)
    arguments = make(space, batch=batch, steps=steps, peephole=peephole, seed=data.draw(st.integers(0, 9), "seed"))

    def ours(params, carry, xs):
        return unroll(lstm, params, carry, xs, resets=jnp.asarray(resets), weight_gradient=weight_gradient, **options)

    expected = objective(lambda p, c, x: loop(p, c, x, valid, resets, options["reverse"]), arguments)
    assert_close(objective(ours, arguments), expected)


@EVERYTHING
def test_time_major_is_the_transpose(weight_gradient):
    params, carry, xs = make((3, 2))
    mask = jnp.array([[1, 1, 0, 1, 0], [1] * 5, [0] * 5], bool)
    expected_carry, expected = unroll(lstm, params, carry, xs, mask=mask, weight_gradient=weight_gradient)
    last, ys = unroll(lstm, params, carry, xs.swapaxes(0, 1), mask=mask.T, time_axis=0, weight_gradient=weight_gradient)
    assert_close((last, ys.swapaxes(0, 1)), (expected_carry, expected), 0)


@EVERYTHING
def test_padding_may_hold_nan(weight_gradient):
    arguments = params, carry, xs = make()
    lengths = jnp.array([0, 3, 5])
    valid = jnp.arange(5)[None] < lengths[:, None]
    poisoned = jnp.where(valid[..., None], xs, jnp.nan)

    def ours(params, carry, xs):
        return unroll(lstm, params, carry, xs, lengths=lengths, weight_gradient=weight_gradient)

    clean = objective(ours, arguments)
    assert_close(objective(ours, (params, carry, poisoned)), clean, 0)


def test_length_zero_returns_the_initial_carry():
    params, carry, xs = make()
    last, ys = unroll(lstm, params, carry, xs, lengths=jnp.array([0, 0, 5]))
    assert_close(jax.tree.map(lambda x: x[:2], last), jax.tree.map(lambda x: x[:2], carry), 0)
    np.testing.assert_array_equal(ys[:2], 0)
    assert np.abs(ys[2]).min() > 0


def test_a_reset_of_a_sequence_that_goes_on_starts_from_the_state_given():
    """One row in two calls, a new sequence beginning in the second, equals two rows."""
    params, carry, xs = make(batch=1, steps=6)
    middle, _ = unroll(lstm, params, carry, xs[:, :3])
    resets = jnp.array([[False, True, False]])
    _, ys = unroll(lstm, params, middle, xs[:, 3:], resets=resets, reset_carry=carry)
    assert_close(ys[:, 1:], unroll(lstm, params, carry, xs[:, 4:])[1], 1e-6)
    assert_close(ys[:, :1], unroll(lstm, params, carry, xs)[1][:, 3:4], 1e-6)


def test_other_lengths_do_not_recompile():
    params, carry, xs = make()
    run = jax.jit(lambda lengths: unroll(lstm, params, carry, xs, lengths=lengths))
    for lengths in ([1, 2, 3], [5, 0, 4]):
        run(jnp.array(lengths))
    assert run._cache_size() == 1


@EVERYTHING
@pytest.mark.parametrize("space", [(), (3, 3)])
def test_gradient_against_finite_differences(space, weight_gradient, float64):
    arguments = make(space, batch=2, steps=4, dtype=jnp.float64, peephole="channel")
    direction = random_like(arguments, 5)

    def value(scale):
        moved = jax.tree.map(lambda a, d: a + scale * d, arguments, direction)
        carry, ys = unroll(lstm, *moved, weight_gradient=weight_gradient, lengths=jnp.array([2, 4]))
        return jnp.sum(jnp.sin(ys)) + jnp.sum(carry.c**2)

    numeric = (value(1e-5) - value(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(0.0), numeric, rtol=1e-8)


@pytest.mark.parametrize("options", [{"hoist": True}, {"hoist": False}, {"saved": "carries"}], ids=str)
def test_second_derivatives_of_the_deferred_gradient_equal_autodiff(options):
    params, carry, xs = make(peephole="channel", batch=2, steps=3)

    def hessian_product(weight_gradient):
        def value(params):
            return jnp.sum(jnp.sin(unroll(lstm, params, carry, xs, weight_gradient=weight_gradient, **options)[1]))

        direction = random_like(params, 3)

        def slope(params):
            products = jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(value)(params), direction)
            return sum(jax.tree.leaves(products))

        return jax.grad(slope)(params)

    assert_close(hessian_product("deferred"), hessian_product("autodiff"))


def test_no_weight_gradient_inside_the_backward_loop():
    """The point of the deferred gradient, read from the compiled program: no loop carries a second kernel."""
    params, carry, xs = make((4, 4), features=3)

    def value(params, weight_gradient):
        return jnp.sum(unroll(lstm, params, carry, xs, weight_gradient=weight_gradient)[1])

    def loops_with_kernel_sum(weight_gradient):
        text = jax.jit(jax.grad(value), static_argnums=1).lower(params, weight_gradient).compile().as_text()
        loops = [line.split(" while(")[0] for line in text.splitlines() if " while(" in line]
        return max(line.count("f32[3,3,3,12]") + line.count("f32[27,12]") for line in loops)

    assert loops_with_kernel_sum("autodiff") > loops_with_kernel_sum("deferred")


@pytest.mark.parametrize(
    ("space", "batch", "hoisted"), [((), 7, True), ((), 8, False), ((31, 33), 1, True), ((32, 32), 1, False)]
)
def test_where_inputs_are_projected_is_chosen_by_size(space, batch, hoisted):
    """The same program as with the choice made by hand, where no gradient is asked for."""
    arguments = make(space, batch=batch, steps=2)
    chosen, by_hand = (
        str(jax.make_jaxpr(lambda *a, o=options: unroll(lstm, *a, weight_gradient="autodiff", **o))(*arguments))
        for options in ({}, {"hoist": hoisted})
    )
    assert chosen == by_hand


def test_bfloat16_stays_bfloat16_and_close():
    arguments = make((3, 3), dtype=jnp.bfloat16)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), arguments)

    def ours(params, carry, xs):
        return unroll(lstm, params, carry, xs, lengths=jnp.array([1, 3, 5]))

    outputs = ours(*arguments)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(outputs, ours(*exact), 3e-2)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in jax.tree.leaves(objective(ours, arguments)))


def test_jit_and_vmap_change_nothing():
    params, carry, xs = make()

    def run(carry, xs):
        return unroll(lstm, params, carry, xs, time_axis=0)[1]

    rows = [run(*jax.tree.map(lambda x, b=b: x[b], (carry, xs))) for b in range(3)]
    assert_close(jax.vmap(run)(carry, xs), jnp.stack(rows))
    assert_close(jax.jit(lambda xs: unroll(lstm, params, carry, xs))(xs), unroll(lstm, params, carry, xs), 1e-6)


def test_outputs_depend_on_the_past_alone():
    params, carry, xs = make(batch=1)
    jacobian = jax.jacobian(lambda xs: unroll(lstm, params, carry, xs)[1][0].sum(-1))(xs)[:, 0].sum(-1)
    assert (np.triu(jacobian, 1) == 0).all()
    assert (np.abs(np.tril(jacobian)[np.tril_indices(5)]) > 0).all()


def test_history_of_carries_only_when_asked_for():
    params, carry, xs = make()
    last, (ys, history) = unroll(with_carries(lstm), params, carry, xs)
    assert_close(history.h, ys, 0)
    assert_close(jax.tree.map(lambda x: x[:, -1], history), last, 0)


def test_plain_function_as_a_cell():
    """A reader's own cell, a leaky sum, against its closed form."""
    xs = random_like(jnp.zeros((2, 6, 3)))
    carry, ys = unroll(lambda rate, c, x: (rate * c + x,) * 2, jnp.float32(0.5), jnp.zeros((2, 3)), xs)
    weights = 0.5 ** np.arange(5, -1, -1)
    np.testing.assert_allclose(carry, np.einsum("t,btc->bc", weights, xs), rtol=1e-5)
    np.testing.assert_array_equal(ys[:, -1], carry)


def test_cell_without_input_runs_for_the_steps_given():
    params = random_like(lstm.init(jax.random.key(0), None, 4))
    carry = random_like(lstm.carry(params, (3,)), 1)
    silent = params._replace(input=jnp.zeros((1, 16)))
    expected = unroll(lstm, silent, carry, jnp.zeros((3, 5, 1)))
    assert_close(unroll(lstm, params, carry, None, steps=5), expected)

    def total(bias, params, xs):
        return jnp.sum(unroll(lstm, params._replace(bias=bias), carry, xs, steps=5)[1])

    gradients = [jax.grad(total)(params.bias, p, x) for p, x in ((params, None), (silent, jnp.zeros((3, 5, 1))))]
    assert_close(*gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": jnp.array([1, 2, 3]), "mask": jnp.ones((3, 5), bool)}, "both lengths and mask"),
        ({"mask": jnp.ones((3, 4), bool)}, "'mask': 4"),
        ({"resets": jnp.ones((2, 5), bool)}, r"have batch shape \(2,\)"),
        ({"lengths": jnp.array([1, 2])}, r"have batch shape \(5, 2\)"),
        ({"mask": jnp.ones(5, bool)}, r"mask has shape \(5,\)"),
        ({"time_axis": 2}, "time_axis is 2"),
        ({"remat": 0}, "remat is 0"),
        ({"steps": 7}, "'steps': 7"),
        ({"method": "associative"}, "no LinearStep"),
        ({"method": "newton", "remat": 2}, "'newton', which takes no remat; remat is 2"),
    ],
)
def test_arguments_that_disagree_are_named(options, message):
    params, carry, xs = make()
    with pytest.raises(InputError, match=message):
        unroll(lstm, params, carry, xs, **options)


@pytest.mark.parametrize("name", ["method", "weight_gradient", "saved"])
def test_unknown_choices_are_named(name):
    """Past the type checker that the suite runs under, as users meet it."""
    params, carry, xs = make()
    with pytest.raises(InputError, match=f"{name} is 'deer'; expected one of"):
        inspect.unwrap(unroll)(lstm, params, carry, xs, **{name: "deer"})


def test_missing_carry_is_named():
    params, _, _ = make()
    with pytest.raises(InputError, match="carry"):
        unroll(lstm, params, None, None, steps=3)
    with pytest.raises(InputError, match="carry"):
        unroll(lambda p, c, x: (c, x), None, None, jnp.zeros((2, 3)))
