"""Score-function gradients against exact enumeration of all outcomes, with and without baselines.

The cases: an episode of two draws among three, the second seeing the first, whose reward is any table; and hard
attention over two steps whose reward is nonlinear in both contexts. Statistical bounds are five standard errors at a
fixed seed.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import attention, policy

REWARDS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) + 2.0, jnp.float32)
THETA = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
NUMBER = 20_000


def second(theta, first):
    """The second draw's logits see the first."""
    return theta[1:][first]


def expected_reward(theta):
    """By enumeration of the nine outcomes."""
    total = jnp.zeros(())
    for a, b in itertools.product(range(3), repeat=2):
        p = jax.nn.softmax(theta[0])[a] * jax.nn.softmax(second(theta, a))[b]
        total = total + p * REWARDS[a, b]
    return total


def promised(theta):
    """What a baseline may know: the expected reward before the first draw, and after each outcome of it."""
    after = jnp.stack([jax.nn.softmax(second(theta, a)) @ REWARDS[a] for a in range(3)])
    return jnp.concatenate([expected_reward(theta)[None], after])


def surrogate(theta, key, baseline):
    """The loss of one episode whose draws come from the key; baselines before the first draw and after each outcome."""
    keys = jax.random.split(key)
    one = policy.sample_categorical(theta[0], key=keys[0])
    two = policy.sample_categorical(second(theta, one.chosen), key=keys[1])
    log_probs = jnp.stack([one.log_prob, two.log_prob])
    reward = jnp.broadcast_to(REWARDS[one.chosen, two.chosen], (2,))
    return jnp.sum(policy.score_function(log_probs, reward, jnp.stack([baseline[0], baseline[1 + one.chosen]])))


@functools.cache
def estimates():
    """By baseline, gradients of the reward, one for each episode: ``[NUMBER, 4, 3]``."""
    numbers = {"none": 0.0, "mean reward": expected_reward(THETA), "absurd": -7.0}
    baselines = {name: jnp.full(4, number) for name, number in numbers.items()} | {"learned": promised(THETA)}
    of_keys = jax.vmap(jax.grad(surrogate), in_axes=(None, 0, None))
    gradients = jax.jit(jax.vmap(of_keys, in_axes=(None, None, 0)))(
        THETA, jax.random.split(jax.random.key(0), NUMBER), jnp.stack(list(baselines.values()))
    )
    return dict(zip(baselines, -np.asarray(gradients, np.float64), strict=True))


def within(samples, exact):
    error = np.abs(samples.mean(axis=0) - exact)
    return (error < 5 * samples.std(axis=0) / np.sqrt(len(samples)) + 1e-6).all()


@pytest.mark.parametrize("name", ["none", "mean reward", "absurd", "learned"])
def test_mean_of_estimates_is_the_gradient_of_the_expectation_whatever_the_baseline(name):
    assert within(estimates()[name], np.asarray(jax.grad(expected_reward)(THETA)))


def test_baseline_reduces_the_variance_and_an_absurd_one_does_not():
    spread = {name: samples.var(axis=0).sum() for name, samples in estimates().items()}
    assert spread["mean reward"] < 0.35 * spread["none"] < 0.35 * spread["absurd"]
    assert spread["learned"] < spread["mean reward"]


def test_gradients_summed_over_all_outcomes_are_exact_for_any_baseline():
    """No sampling: each outcome's surrogate gradient weighted by its probability."""
    exact = jax.grad(expected_reward)(THETA)

    def weighted(theta, baseline):
        total = jnp.zeros(())
        for a, b in itertools.product(range(3), repeat=2):
            log_prob = jax.nn.log_softmax(theta[0])[a] + jax.nn.log_softmax(second(theta, a))[b]
            loss = policy.score_function(log_prob, REWARDS[a, b], baseline)
            total = total + jax.lax.stop_gradient(jnp.exp(log_prob)) * loss
        return total

    for baseline in (None, 0.0, 2.0, -50.0):
        found = -jax.grad(weighted)(THETA, None if baseline is None else jnp.asarray(baseline))
        # What cancels is as large as the baseline.
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * max(1.0, abs(baseline or 0.0)))


LOGITS = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)), jnp.float32)
VALUES = jnp.asarray(np.random.default_rng(3).normal(size=(3, 2)), jnp.float32)


def look(contexts):
    """A reward that is not a sum over steps."""
    return jnp.sin(jnp.sum(contexts[..., 0, :] * contexts[..., 1, :], axis=-1)) + contexts[..., 0, 0]


def test_gradient_of_hard_attention_is_that_of_the_enumerated_expectation():
    def exact(logits, values):
        total = jnp.zeros(())
        for a, b in itertools.product(range(3), repeat=2):
            p = jax.nn.softmax(logits[0])[a] * jax.nn.softmax(logits[1])[b]
            total = total + p * look(jnp.stack([values[a], values[b]]))
        return total

    def one(logits, values, key):
        sampled = attention.hard_attention(logits, values, key=key)
        reward = look(sampled.context)
        return policy.score_function(jnp.sum(sampled.log_prob), reward) - reward

    keys = jax.random.split(jax.random.key(1), NUMBER)
    gradients = jax.jit(jax.vmap(jax.grad(one, argnums=(0, 1)), in_axes=(None, None, 0)))(LOGITS, VALUES, keys)
    for found, expected in zip(gradients, jax.grad(exact, argnums=(0, 1))(LOGITS, VALUES), strict=True):
        assert within(-np.asarray(found, np.float64), np.asarray(expected))


def test_gaussian_estimate_is_the_gradient_of_a_known_expectation():
    """E[(x - 1)²] over N(μ, σ²) is (μ - 1)² + σ², of slope 2 (μ - 1); the density is SciPy's."""
    from scipy.stats import norm

    mean, keys = jnp.asarray([0.4]), jax.random.split(jax.random.key(2), NUMBER)

    def one(mean, key):
        x, log_prob = policy.sample_gaussian(mean, deviation=0.5, key=key)
        return policy.score_function(log_prob, jnp.square(x[0] - 1)), (x, log_prob)

    gradients, (x, log_prob) = jax.jit(jax.vmap(jax.grad(one, has_aux=True), in_axes=(None, 0)))(mean, keys)
    np.testing.assert_allclose(log_prob, norm(0.4, 0.5).logpdf(np.float64(x[:, 0])), rtol=1e-4, atol=1e-5)
    assert within(-np.asarray(gradients, np.float64), np.asarray([2 * (0.4 - 1)]))


def test_sampling_without_a_stopped_gradient_would_estimate_nothing():
    """What the stopped sample guards against: by reparameterisation the density does not see the mean."""
    gradient = jax.grad(lambda m: policy.sample_gaussian(m, deviation=0.5, key=jax.random.key(0))[1])(jnp.ones(2))
    assert np.abs(gradient).min() > 0
    moved = jax.grad(lambda m: jnp.sum(policy.sample_gaussian(m, deviation=0.5, key=jax.random.key(0))[0]))
    np.testing.assert_array_equal(moved(jnp.ones(2)), 0)


def test_no_gradient_flows_through_reward_and_baseline():
    gradients = jax.grad(lambda r, b: policy.score_function(jnp.asarray(0.3), r, b), argnums=(0, 1))
    assert [float(g) for g in gradients(jnp.asarray(2.0), jnp.asarray(1.0))] == [0, 0]
    assert jax.grad(lambda p: policy.score_function(p, jnp.asarray(2.0), jnp.asarray(2.0)))(jnp.asarray(0.3)) == 0


def test_moving_baseline_approaches_the_mean_reward():
    b = jnp.zeros(())
    for _ in range(3):
        b = policy.moving_baseline(b, jnp.asarray([1.0, 3.0]), decay=0.9)
    np.testing.assert_allclose(b, 2 * (1 - 0.9**3), rtol=1e-6)


def test_learned_baseline_is_least_at_the_mean_reward_and_moves_alone():
    rewards = jnp.asarray([1.0, 2.0, 6.0])

    def loss(b, rewards):
        return jnp.mean(policy.baseline_loss(jnp.broadcast_to(b, (3,)), rewards))

    slope, of_rewards = jax.grad(loss, argnums=(0, 1))(jnp.asarray(3.0), rewards)
    assert abs(float(slope)) < 1e-6
    np.testing.assert_array_equal(of_rewards, 0)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(4.0), rewards), 2.0, rtol=1e-6)


def test_choices_respect_the_mask_and_their_entropy_has_known_values():
    logits = jnp.zeros((3, 4))
    mask = jnp.asarray([[True] * 4, [True, True, False, False], [False] * 4])
    choice = policy.sample_categorical(logits, mask=mask, key=jax.random.key(0))
    np.testing.assert_allclose(choice.entropy, [np.log(4), np.log(2), 0], rtol=1e-6)
    np.testing.assert_allclose(choice.log_prob, [-np.log(4), -np.log(2), 0], rtol=1e-6)
    assert int(choice.chosen[1]) < 2
    assert int(choice.chosen[2]) == 0
    gradient = jax.grad(lambda z: jnp.sum(policy.sample_categorical(z, mask=mask, key=None).entropy))(logits + 1.0)
    np.testing.assert_allclose(gradient, np.zeros((3, 4)), atol=1e-6)


def test_entropy_bonus_pulls_towards_even_choices():
    """Oracle: finite differences of -Σ p log p in float64."""

    def entropy(z):
        p = np.exp(z) / np.exp(z).sum()
        return -(p * np.log(p)).sum()

    z = np.array([2.0, 0.0, -1.0])
    numeric = [(entropy(z + h) - entropy(z - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    found = jax.grad(lambda z: policy.sample_categorical(z, key=None).entropy)(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, numeric, rtol=1e-4, atol=1e-6)
    assert found[0] < 0 < found[2]


def test_what_is_forbidden_by_an_infinite_logit_is_as_if_masked():
    """In draw, entropy and gradient."""
    logits, mask = jnp.asarray([1.0, -jnp.inf, 0.5]), jnp.asarray([True, False, True])

    def values(logits, **options):
        choice = policy.sample_categorical(logits, key=jax.random.key(1), **options)
        return choice.entropy + 2 * choice.log_prob

    found, expected = (
        jax.value_and_grad(functools.partial(values, **options))(z)
        for z, options in ((logits, {}), (jnp.where(mask, logits, 0.0), {"mask": mask}))
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_a_deviation_may_be_learned():
    """Oracle: the derivative of log N in σ, ``Σ (z² - 1) / σ`` with ``z = (x - μ) / σ``."""
    x, mean, sigma = jnp.asarray([0.3, -1.0]), jnp.asarray([0.1, 0.4]), jnp.asarray(0.5)
    found = jax.jit(jax.grad(lambda s: policy.gaussian_log_prob(x, mean, deviation=s)))(sigma)
    np.testing.assert_allclose(found, np.sum(((np.asarray(x) - mean) / 0.5) ** 2 - 1) / 0.5, rtol=1e-5)
    with pytest.raises(InputError, match="deviation is 0"):
        policy.gaussian_log_prob(x, mean, deviation=0.0)


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_differ_are_refused():
    for function in (policy.score_function, policy.baseline_loss):
        with pytest.raises(AssertionError, match="different shapes"):
            function(jnp.zeros((3, 2)), jnp.zeros(3))
