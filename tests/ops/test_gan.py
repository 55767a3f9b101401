"""``ops.gan`` beyond the losses' own laws: optimum, penalties, matching terms, health, reversal of the gradient.

Oracles: closed forms of linear and quadratic critics, and a network whose slope is written out in NumPy float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import gan

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_best_discriminator_reaches_twice_the_jensen_shannon_divergence():
    """Atoms with counts p and q of 20 each: at the logits log p/q, the game's value 2 JSD - log 4, and no gradient."""
    counts = np.array([[10, 6, 3, 1], [2, 3, 5, 10]])
    p, q = counts / 20
    middle = (p + q) / 2
    twice_jsd = np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))
    best = jnp.asarray(np.log(p / q), jnp.float32)

    def loss(atoms):
        real, fake = (atoms[np.repeat(np.arange(4), n)] for n in counts)
        return jnp.mean(gan.minimax.discriminator(real, fake))

    value, gradient = jax.value_and_grad(loss)(best)
    np.testing.assert_allclose(-value, twice_jsd - np.log(4), atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    assert all(loss(best + 0.1 * normal(4, seed=seed)) > value for seed in range(5))


def test_hinge_has_no_gradient_beyond_the_margin():
    real, fake = jnp.asarray([0.5, 1.5, -3.0, 2.0]), jnp.asarray([-0.5, -1.5, 3.0, -2.0])
    loss = lambda r, f: jnp.mean(gan.hinge.discriminator(r, f))  # noqa: E731
    d_real, d_fake = jax.grad(loss, argnums=(0, 1))(real, fake)
    np.testing.assert_allclose(d_real, [-0.25, 0, -0.25, 0])
    np.testing.assert_allclose(d_fake, [0.25, 0, 0.25, 0])


def linear(w):
    return lambda x: jnp.tensordot(x, w, axes=w.ndim)


def test_linear_critic_has_one_slope_everywhere():
    w, real, fake = normal(4, 3, 2), normal(5, 4, 3, 2, seed=1), normal(5, 4, 3, 2, seed=2)
    square = float(np.sum(np.float64(w) ** 2))
    for penalty in (gan.r1(linear(w), real), gan.r2(linear(w), fake)):
        np.testing.assert_allclose(penalty, np.full(5, square / 2), rtol=1e-5)
    penalty = gan.wgan_gp(linear(w), real, fake, key=KEY)
    np.testing.assert_allclose(penalty, np.full(5, (square**0.5 - 1) ** 2), rtol=1e-5)


def quadratic(a):
    return lambda x: jnp.einsum("bi,ij,bj->b", x, a, x) / 2


def test_quadratic_critic_has_a_slope_by_example():
    root, x = normal(4, 4), normal(5, 4, seed=1)
    a = root + root.T
    expected = np.sum((np.float64(x) @ np.float64(a)) ** 2, axis=1) / 2
    np.testing.assert_allclose(gan.r1(quadratic(a), x), expected, rtol=1e-5)


def test_wgan_gp_lies_between_each_pair_at_a_place_of_its_own():
    """With ``D = ‖x‖²/2`` the slope is the place itself: on the line from real to fake, uniform, and by example."""
    real, fake = jnp.full((4000, 1), 2.0), jnp.full((4000, 1), 5.0)
    penalty = gan.wgan_gp(quadratic(jnp.eye(1)), real, fake, key=KEY)
    place = (np.sqrt(penalty) + 1 - 2) / 3
    assert ((place > 0) & (place < 1)).all()
    np.testing.assert_allclose(np.quantile(place, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_patch_of_logits_counts_as_its_sum():
    w, x = normal(6, 3), normal(4, 6, seed=1)
    expected = np.full(4, np.sum(np.float64(w).sum(axis=1) ** 2) / 2)
    np.testing.assert_allclose(gan.r1(lambda x: (x @ w)[:, :, None, None], x), expected, rtol=1e-5)


def network(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["top"]


PENALTIES = {
    "r1": lambda critic, x: gan.r1(critic, x),
    "r2": lambda critic, x: gan.r2(critic, x),
    "wgan_gp": lambda critic, x: gan.wgan_gp(critic, x, x, key=KEY),
}
EVERY_PENALTY = pytest.mark.parametrize("name", PENALTIES)


def penalty_by_hand(name, params, x):
    """``∂D/∂x = (1 - tanh²) ⊙ top`` times ``hiddenᵀ``; both ends of the line of WGAN-GP are ``x``."""
    slope = ((1 - np.tanh(x @ params["hidden"]) ** 2) * params["top"]) @ params["hidden"].T
    square = np.sum(slope**2, axis=1)
    return (np.sqrt(square) - 1) ** 2 if name == "wgan_gp" else square / 2


@EVERY_PENALTY
def test_gradient_in_the_parameters_equals_finite_differences(name):
    params, x = {"hidden": normal(3, 5), "top": normal(5, seed=1)}, normal(4, 3, seed=2)
    penalty = lambda params: PENALTIES[name](lambda x: network(params, x), x)  # noqa: E731
    gradient = jax.jit(jax.grad(lambda params: jnp.mean(penalty(params))))(params)
    wide, wide_x = jax.tree.map(np.float64, (params, x))
    values = jax.jit(penalty)(params)
    np.testing.assert_allclose(values, penalty_by_hand(name, wide, wide_x), rtol=1e-5)
    np.testing.assert_allclose(values, penalty(params), rtol=1e-5)
    for leaf in params:
        for seed in range(3):
            step = 1e-6 * np.random.default_rng(seed).normal(size=params[leaf].shape)
            ends = [penalty_by_hand(name, wide | {leaf: wide[leaf] + s * step}, wide_x).mean() for s in (1, -1)]
            np.testing.assert_allclose(np.vdot(gradient[leaf], step) / 1e-6, (ends[0] - ends[1]) / 2e-6, rtol=1e-4)


@EVERY_PENALTY
def test_samples_are_held_constant(name):
    gradient = jax.grad(lambda x: jnp.sum(PENALTIES[name](quadratic(jnp.eye(3)), x)))(normal(4, 3))
    np.testing.assert_array_equal(gradient, 0)


@EVERY_PENALTY
def test_flat_critic_gives_a_finite_gradient(name):
    value, gradient = jax.value_and_grad(lambda w: jnp.mean(PENALTIES[name](linear(w), normal(4, 3))))(jnp.zeros(3))
    np.testing.assert_allclose(value, name == "wgan_gp", atol=1e-5)
    np.testing.assert_array_equal(gradient, 0)


@EVERY_PENALTY
def test_bfloat16_slopes_are_squared_and_summed_in_float32(name):
    """256 squares of 1/16 and as many of 1/256: the small ones would be lost in bfloat16."""
    w = jnp.concatenate([jnp.full(256, 0.0625), jnp.full(256, 2**-8)]).astype(jnp.bfloat16)
    penalty = PENALTIES[name](linear(w), jnp.ones((2, 512), jnp.bfloat16))
    assert penalty.dtype == jnp.float32
    square = 1 + 2**-8
    np.testing.assert_allclose(penalty, [(square**0.5 - 1) ** 2 if name == "wgan_gp" else square / 2] * 2, rtol=1e-4)


def batch_normalised(x):
    return jnp.tanh((x - jnp.mean(x, axis=0, keepdims=True)) / jnp.std(x, axis=0, keepdims=True)) @ normal(3)


def test_interacting_examples_are_found():
    with pytest.raises(InputError, match="batch normalisation is the usual reason"):
        gan.check_independent(batch_normalised, normal(4, 3))
    gan.check_independent(lambda x: network({"hidden": normal(3, 5), "top": normal(5)}, x), normal(4, 3))
    gan.check_independent(batch_normalised, normal(1, 3))


def test_mode_seeking_is_the_inverse_ratio_of_mean_distances():
    x, z = normal(2, 3, 4, 4, 1), normal(2, 3, 5, seed=1)
    distance = lambda a: np.abs(np.float64(a[0]) - np.float64(a[1])).mean()  # noqa: E731
    expected = 1 / (distance(x) / distance(z) + 1e-5)
    np.testing.assert_allclose(gan.mode_seeking(*x, *z), expected, rtol=1e-5)
    np.testing.assert_allclose(gan.mode_seeking(x[0], x[0], *z), 1e5, rtol=1e-5)


def test_mode_seeking_pulls_images_of_different_latents_apart():
    z = normal(2, 3, 5, seed=1)
    gradient = jax.grad(lambda x: gan.mode_seeking(x[0], x[1], *z))(jnp.asarray([[[1.0]] * 3, [[0.0]] * 3]))
    assert (gradient[0] < 0).all()
    assert (gradient[1] > 0).all()


def test_feature_matching_compares_batch_means():
    real, fake = normal(6, 4, 4, 3), normal(5, 4, 4, 3, seed=1)
    expected = np.mean((np.float64(real).mean(axis=0) - np.float64(fake).mean(axis=0)) ** 2)
    np.testing.assert_allclose(gan.feature_matching(real, fake), expected, rtol=1e-5)
    np.testing.assert_allclose(gan.feature_matching(real, real[::-1]), 0, atol=1e-12)
    assert gan.feature_matching(real.astype(jnp.bfloat16), fake.astype(jnp.bfloat16)).dtype == jnp.float32


def test_drift_is_the_mean_square_of_real_logits():
    np.testing.assert_allclose(gan.drift(jnp.asarray([[1.0, 3.0], [0.0, -2.0]])), [5, 2])


def test_health_counts_and_averages():
    real, fake = jnp.asarray([1.0, 0.2, -1.0, 4.0]), jnp.asarray([-1.0, 0.3, 0.7, -4.0])
    found = jax.jit(gan.health)(real, fake)
    expected = {"real_accuracy": 0.75, "fake_accuracy": 0.5, "real_logit": 1.05, "fake_logit": -1.0, "margin": 2.05}
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    between = gan.health(real, fake, threshold=0.5)
    assert (between["real_accuracy"], between["fake_accuracy"]) == (0.5, 0.75)
    patches = gan.health(real.reshape(1, 2, 2, 1).astype(jnp.bfloat16), fake.reshape(1, 2, 2, 1).astype(jnp.bfloat16))
    assert patches["real_accuracy"] == 0.75


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_reversal_passes_values_and_turns_gradients(scale):
    x, weights = normal(4, 3), normal(4, 3, seed=1)
    reversed_loss = lambda x, scale: jnp.sum(weights * jnp.sin(gan.reverse_gradient(x, scale=scale)))  # noqa: E731
    plain = jax.grad(lambda x: jnp.sum(weights * jnp.sin(x)))(x)
    value, (to_x, to_scale) = jax.jit(jax.value_and_grad(reversed_loss, argnums=(0, 1)))(x, scale)
    np.testing.assert_allclose(value, jnp.sum(weights * jnp.sin(x)), rtol=1e-6)
    np.testing.assert_array_equal(gan.reverse_gradient(x, scale=scale), x)
    np.testing.assert_allclose(to_x, -scale * plain, rtol=1e-6)
    assert to_scale == 0
    assert gan.reverse_gradient(x.astype(jnp.bfloat16), scale=scale).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("real", "fake", "discriminator", "generator"),
    [
        (0.5, 0.5, True, True),
        (0.2, 0.5, False, True),
        (0.5, 0.2, False, True),
        (0.2, 0.1, False, True),
        (0.8, 0.5, True, False),
        (0.5, 0.8, True, False),
        (0.9, 0.8, True, False),
        (0.2, 0.8, True, True),
        (0.8, 0.2, True, True),
        (np.log(2), np.log(2), True, True),
    ],
)
def test_turns(real, fake, discriminator, generator):
    """The truth table of the rule, written out."""
    found = jax.jit(gan.turns)(jnp.float32(real), jnp.float32(fake))
    assert tuple(map(bool, found)) == (discriminator, generator)


def test_turns_with_another_margin():
    assert tuple(map(bool, gan.turns(jnp.float32(0.2), jnp.float32(0.5), margin=0.1))) == (True, True)
    assert tuple(map(bool, gan.turns(jnp.float32(0.5), jnp.float32(0.95), margin=0.1))) == (True, False)
    with pytest.raises(InputError, match=r"margin=0\.5"):
        gan.turns(jnp.float32(0.2), jnp.float32(0.5), margin=0.5)
