"""``ops.compose`` against the same layers unrolled one by one and against a Python loop of feedback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import linear
from seqjax.ops.cells import gru, lstm
from seqjax.ops.compose import (
    Directions,
    Dropped,
    FeedbackCarry,
    FeedbackParams,
    Teacher,
    bidirectional,
    dropout_mask,
    feedback,
    learned_carry,
    recurrent_dropout,
    residual,
    stack,
)
from seqjax.ops.scan import unroll


def random_like(tree, seed=0, scale=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype), tree)


def assert_close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


LENGTHS = jnp.array([2, 0, 5])


@pytest.mark.parametrize("weight_gradient", ["deferred", "autodiff"])
def test_stack_equals_one_scan_per_layer(weight_gradient):
    cell = stack([lstm, lstm], outputs="all")
    params = random_like(cell.init(jax.random.key(0), 2, [3, 4], kernel_size=(3, 3)))
    xs = random_like(jnp.zeros((3, 5, 4, 4, 2)), 1)

    def together(params):
        return unroll(cell, params, None, xs, lengths=LENGTHS, weight_gradient=weight_gradient)

    def one_by_one(params):
        carries, outputs, ys = [], [], xs
        for p in params:
            carry, ys = unroll(lstm, p, None, ys, lengths=LENGTHS)
            carries.append(carry)
            outputs.append(ys)
        return tuple(carries), tuple(outputs)

    def total(run):
        return lambda params: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(run(params)))

    assert_close(together(params), one_by_one(params), 1e-6)
    assert_close(jax.grad(total(together))(params), jax.grad(total(one_by_one))(params))


def test_stack_gives_the_last_output_unless_all_are_asked_for():
    params = stack([lstm, lstm]).init(jax.random.key(0), 2, [3, 4])
    xs = random_like(jnp.zeros((3, 5, 2)))
    _, last = unroll(stack([lstm, lstm]), params, None, xs)
    _, every = unroll(stack([lstm, lstm], outputs="all"), params, None, xs)
    np.testing.assert_array_equal(last, every[-1])


def test_stack_names_a_wrong_number_of_layers():
    with pytest.raises(InputError, match=r"\(3,\).*expected 2"):
        stack([lstm, lstm]).init(jax.random.key(0), 2, [3])


def readout(params, y_t, affine):
    logits = affine(jnp.zeros(2), params, y_t)
    return jnp.tanh(logits), logits


def feedback_loop(params, carry, first, teacher, use):
    """The same by hand: what the cell reads is the teacher's input where ``use`` says so, else its own."""
    x, outputs = first, []
    for t in range(use.shape[1]):
        x = jnp.where(use[:, t, None] > 0.5, teacher[:, t], x)
        z_t = lstm.project(params.cell, x, linear.affine)
        carry, y_t = lstm.step(params.cell, carry, z_t, linear.affine)
        x, logits = readout(params.readout, y_t, linear.affine)
        outputs.append(logits)
    return jnp.stack(outputs, axis=1)


@pytest.mark.parametrize("kind", ["free", "forced", "scheduled"])
@pytest.mark.parametrize("weight_gradient", ["deferred", "autodiff"])
def test_feedback_equals_the_loop(kind, weight_gradient):
    params = FeedbackParams(lstm.init(jax.random.key(0), 2, 3), jnp.zeros((3, 2)))
    params, first, teacher = random_like((params, jnp.zeros((4, 2)), jnp.zeros((4, 5, 2))))
    carry = random_like(lstm.carry(params.cell, (4,)), 1)
    use = {
        "free": np.zeros,
        "forced": np.ones,
        "scheduled": lambda s: np.random.default_rng(0).integers(2, size=s),
    }
    use = jnp.asarray(use[kind]((4, 5)), jnp.float32)
    xs = None if kind == "free" else Teacher(teacher, use)

    def ours(params):
        start = FeedbackCarry(carry, first)
        return unroll(feedback(lstm, readout), params, start, xs, steps=5, weight_gradient=weight_gradient)[1]

    def by_hand(params):
        return feedback_loop(params, carry, first, teacher, use)

    assert_close(ours(params), by_hand(params), 1e-6)
    gradients = [jax.grad(lambda p, run=run: jnp.sum(jnp.sin(run(p))))(params) for run in (ours, by_hand)]
    assert_close(*gradients)


def test_forced_feedback_is_a_plain_unroll_over_the_truth():
    params = FeedbackParams(lstm.init(jax.random.key(0), 2, 3), jnp.zeros((3, 2)))
    params, teacher = random_like((params, jnp.zeros((4, 5, 2))))
    carry = lstm.carry(params.cell, (4,))
    xs = Teacher(teacher, jnp.ones((4, 5)))
    _, logits = unroll(feedback(lstm, readout), params, FeedbackCarry(carry, teacher[:, 0]), xs)
    _, hs = unroll(lstm, params.cell, carry, teacher)
    assert_close(logits, hs @ params.readout, 1e-6)


def test_feedback_has_no_parameters_of_its_own():
    with pytest.raises(InputError, match="FeedbackParams"):
        feedback(lstm, readout).init(jax.random.key(0), 2, 3)


def gru_and_inputs(features=4, channels=2):
    params = random_like(gru.init(jax.random.key(0), channels, features))
    return params, random_like(jnp.zeros((3, 5, channels)), 1)


def test_bidirectional_of_the_reversed_valid_prefix_swaps_the_directions():
    forward, xs = gru_and_inputs()
    params = Directions(forward, random_like(forward, 9))
    swapped = Directions(params.backward, params.forward)
    turned = jnp.stack([jnp.concatenate([x[:n][::-1], x[n:]]) for x, n in zip(xs, LENGTHS, strict=True)])
    carry, ys = bidirectional(gru, params, None, xs, lengths=LENGTHS)
    other_carry, other = bidirectional(gru, swapped, None, turned, lengths=LENGTHS)
    expected = jnp.stack([jnp.concatenate([y[:n][::-1], y[n:]]) for y, n in zip(other, LENGTHS, strict=True)])
    assert_close(ys, jnp.concatenate([expected[..., 4:], expected[..., :4]], axis=-1), 1e-6)
    assert_close(carry, Directions(other_carry.backward, other_carry.forward), 1e-6)


def test_residual_adds_the_input():
    params, xs = gru_and_inputs(channels=4)
    _, ys = unroll(residual(gru), params, None, xs, lengths=LENGTHS)
    valid = jnp.arange(5)[None, :, None] < LENGTHS[:, None, None]
    assert_close(ys, jnp.where(valid, unroll(gru, params, None, xs, lengths=LENGTHS)[1] + xs, 0), 1e-6)


def test_residual_names_shapes_that_differ():
    params, xs = gru_and_inputs()
    with pytest.raises(InputError, match="residual: the output"):
        unroll(residual(gru), params, None, xs)


def test_recurrent_dropout_masks_what_the_weights_see():
    """Oracle: a mask on the state's side of the kernel is the same as scaling the kernel's rows, where rows agree."""
    params, xs = gru_and_inputs()
    mask = jnp.array([2.0, 0.0, 2.0, 1.0])
    dropped = Dropped(params, jnp.broadcast_to(mask, (3, 4)))
    scaled = params._replace(recurrent=params.recurrent * mask[:, None])

    def total(run):
        return lambda params: jnp.sum(jnp.sin(run(params)[1]))

    def ours(params):
        return unroll(recurrent_dropout(gru), dropped._replace(params=params), None, xs, lengths=LENGTHS)

    def theirs(params):
        rows = params._replace(recurrent=params.recurrent * mask[:, None])
        return unroll(gru, rows, None, xs, lengths=LENGTHS)

    assert_close(ours(params), unroll(gru, scaled, None, xs, lengths=LENGTHS), 1e-6)
    assert_close(jax.grad(total(ours))(params), jax.grad(total(theirs))(params))


def test_dropout_mask_keeps_the_mean_and_shares_draws_along_dimensions_of_one():
    mask = dropout_mask(jax.random.key(0), 0.25, (200, 1, 50))
    assert set(np.unique(mask).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert abs(mask.mean() - 1) < 0.02  # four standard errors of 10,000 draws are 0.023
    with pytest.raises(InputError, match=r"rate is 1\.0"):
        dropout_mask(jax.random.key(0), 1.0, (2,))


def test_learned_carry_gets_the_gradient_of_every_row():
    params, xs = gru_and_inputs()

    def total(start):
        return jnp.sum(unroll(gru, params, learned_carry(start, (3,)), xs)[0])

    def by_row(start):
        return sum(jnp.sum(unroll(gru, params, start[None], xs[b : b + 1])[0]) for b in range(3))

    start = random_like(jnp.zeros(4), 3)
    assert_close(jax.grad(total)(start), jax.grad(by_row)(start))
