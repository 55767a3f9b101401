"""Laws that every adversarial loss joins; the oracles are NumPy's, in the table of ``laws.gan_losses``."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.gan_losses import CASES

from seqjax.errors import InputError
from seqjax.ops import gan

EVERY_LOSS = pytest.mark.parametrize("name", CASES)
SHAPE = (3, 4)


def logits(shape=SHAPE, seed=0):
    return jnp.asarray(1.7 * np.random.default_rng(seed).normal(size=(2, *shape)), jnp.float32)


@functools.cache
def players(name):
    """Each player's loss, compiled, of its own side's logits and the other's, beside its oracle."""
    return [(jax.jit(loss), oracle) for loss, oracle in zip(gan.adversarial(name), CASES[name][:2], strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def gradients(loss, own, other):
    """Of the sum over examples, with respect to both sides."""
    return jax.grad(lambda sides: jnp.sum(loss(*sides)))((own, other))


def test_every_loss_is_here_and_found_by_its_name():
    pairs = {name for name, value in vars(gan).items() if isinstance(value, gan.Adversarial)}
    assert set(CASES) == set(get_args(gan.Loss)) == pairs
    assert all(gan.adversarial(name) is getattr(gan, name) for name in pairs)


@pytest.mark.usefixtures("unchecked")
def test_unknown_name_is_refused():
    with pytest.raises(InputError, match="'lsgan' is unknown; expected one of minimax, non_saturating"):
        gan.adversarial("lsgan")


@EVERY_LOSS
@pytest.mark.parametrize("shape", [(6,), SHAPE, (3, 4, 5, 1)])
def test_values_equal_oracle_example_by_example(name, shape):
    own, other = logits(shape)
    for loss, oracle in players(name):
        result = loss(own, other)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, oracle(np.float64(own), np.float64(other)), rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(loss.__wrapped__(own, other), result, rtol=1e-6, atol=1e-6)


@EVERY_LOSS
def test_known_values_at_zero(name):
    zeros = jnp.zeros(SHAPE)
    for (loss, _), expected in zip(players(name), CASES[name].at_zero, strict=True):
        np.testing.assert_allclose(loss(zeros, zeros), np.full(3, expected), rtol=1e-6)


@EVERY_LOSS
def test_generator_asks_for_real_logits_only_to_compare(name):
    fake, real = logits()
    generator = gan.adversarial(name).generator
    if CASES[name].relativistic:
        with pytest.raises(InputError, match="real is None"):
            generator(fake)
    else:
        np.testing.assert_array_equal(generator(fake), generator(fake, real))


@EVERY_LOSS
def test_vmap_equals_loop(name):
    own, other = logits((2, *SHAPE))
    for loss, _ in players(name):
        looped = [loss(a, b) for a, b in zip(own, other, strict=True)]
        np.testing.assert_allclose(jax.jit(jax.vmap(loss))(own, other), looped, rtol=1e-6)


@EVERY_LOSS
def test_gradients_equal_finite_differences_of_oracle(name):
    sides = logits()
    for loss, oracle in players(name):
        gradient = np.stack(gradients(loss, *sides)) / 3
        wide = np.float64(sides)
        for seed in range(3):
            step = 1e-6 * np.random.default_rng(seed).normal(size=sides.shape)
            slope = (oracle(*(wide + step)).mean() - oracle(*(wide - step)).mean()) / 2e-6
            np.testing.assert_allclose(np.vdot(gradient, step) / 1e-6, slope, rtol=1e-4, atol=1e-6)


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_huge_logits_stay_finite(name, dtype):
    own, other = (jnp.full(SHAPE, 1e4, dtype).at[:, i::2].set(-1e4).at[0].set(1e4) for i in (0, 1))
    for loss, _ in players(name):
        values = loss(own, other)
        assert values.dtype == jnp.float32
        assert all(np.isfinite(np.float32(array)).all() for array in (values, *gradients(loss, own, other)))


@EVERY_LOSS
def test_bfloat16_is_computed_in_float32(name):
    own, other = logits().astype(jnp.bfloat16)
    for loss, _ in players(name):
        np.testing.assert_array_equal(loss(own, other), loss(own.astype(jnp.float32), other.astype(jnp.float32)))


@EVERY_LOSS
def test_shift_of_all_logits_is_seen_by_all_but_the_relativistic(name):
    """Wasserstein's discriminator does not see it either; its generator does, by a constant without a gradient."""
    own, other = logits()
    for index, (loss, _) in enumerate(players(name)):
        same = np.allclose(loss(own + 3, other + 3), loss(own, other), atol=1e-5)
        assert same == (CASES[name].shift_invariant or (name == "wasserstein" and index == 0))


@EVERY_LOSS
@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (3,)])
@pytest.mark.usefixtures("unchecked")
def test_shapes_that_differ_are_refused(name, shape):
    loss = gan.adversarial(name)
    for player in loss if CASES[name].relativistic else loss[:1]:
        with pytest.raises(AssertionError, match="different shapes"):
            player(jnp.zeros((3, 4)), jnp.zeros(shape))


@EVERY_LOSS
def test_descent_moves_the_logits_the_players_way(name):
    """From equal logits the discriminator pulls the sides apart and the generator lifts the fake ones."""
    zeros = jnp.zeros(SHAPE)
    (discriminator, _), (generator, _) = players(name)
    d_real, d_fake = map(np.asarray, gradients(discriminator, zeros, zeros))
    assert (d_real < 0).all()
    # Zero is already what least squares wants of a fake.
    assert (d_fake > 0).all() or name == "least_squares"
    assert (np.asarray(gradients(generator, zeros, zeros)[0]) < 0).all()
