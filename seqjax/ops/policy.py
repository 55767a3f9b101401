"""Gradients of expected rewards: draws from a policy, the score-function estimate, its baselines and its entropy.

A reward R may depend on a draw in any way, through a look at an image or a written word: its expectation still has the
gradient

    ∇ E[R] = E[(R - b) ∇ log π(a)],        a ~ π,

for any baseline b that does not depend on the draw a; b changes the variance alone. Here are draws with their
``log π``, the loss whose gradient is the estimate, and two baselines: the moving average of rewards, and one that a
network learns from what it knows before the draw. All values are per draw: sum over the draws of an episode, then take
the mean over episodes.

Source: Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, 1992
(REINFORCE).
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.softmax import LOWEST, masked_log_softmax, wide


class Choice(NamedTuple):
    """A draw among K, with what learning needs of it."""

    chosen: Int[Array, "*B"]
    """0..K-1; 0 where nothing can be chosen."""
    log_prob: Float[Array, "*B"]
    """``log π(chosen)``, with its gradient to the logits; 0 where nothing can be chosen."""
    entropy: Float[Array, "*B"]
    """``-Σ_k π_k log π_k`` in nats, from 0 to log K, with its gradient: add its multiple to what is maximised."""


def sample_categorical(
    logits: Float[Array, "*B K"], *, mask: Bool[Array, "*#B K"] | None = None, key: PRNGKeyArray | None
) -> Choice:
    """Draw from ``π = softmax(logits)``.

    Args:
      logits: of the policy.
      mask: what can be chosen.
      key: draws; None takes the likeliest instead.
    """
    log_probs = masked_log_softmax(logits.astype(wide(logits)), mask)
    if key is None:
        index = jnp.argmax(log_probs, axis=-1)
    else:
        index = jax.random.categorical(key, jax.lax.stop_gradient(log_probs))
    # A probability of 0 adds nothing, whatever its logarithm.
    terms = jnp.exp(log_probs) * jnp.where(log_probs > LOWEST, log_probs, jnp.zeros_like(log_probs))
    log_prob = jnp.take_along_axis(log_probs, index[..., None], axis=-1)[..., 0]
    if mask is not None:
        terms = jnp.where(mask, terms, jnp.zeros_like(terms))
        some = jnp.broadcast_to(jnp.any(mask, axis=-1), index.shape)
        index = jnp.where(some, index, jnp.zeros_like(index))
        log_prob = jnp.where(some, log_prob, jnp.zeros_like(log_prob))
    return Choice(index, log_prob, -jnp.sum(terms, axis=-1))


def sample_gaussian(
    mean: Float[Array, "*B D"], *, deviation: float | Float[Array, ""], key: PRNGKeyArray
) -> tuple[Float[Array, "*B D"], Float[Array, "*B"]]:
    """Draw from ``N(mean, σ² I)``: the sample, which carries no gradient, and ``log π(sample)``, which does.

    With a gradient through the sample, which is mean + noise, that of its log-density would vanish: its distance from
    the mean would not change with the mean. Clip a place on an image only after this, for the sensor.

    Args:
      mean: of the policy.
      deviation: ``σ > 0``.
      key: draws.

    Source: Mnih et al., *Recurrent Models of Visual Attention*, 2014, section 3.1 (location network).
    """
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    sample = jax.lax.stop_gradient(mean + jnp.asarray(deviation, mean.dtype) * noise)
    return sample, gaussian_log_prob(sample, mean, deviation=deviation)


def gaussian_log_prob(
    sample: Float[Array, "*B D"], mean: Float[Array, "*B D"], *, deviation: float | Float[Array, ""]
) -> Float[Array, "*B"]:
    """``log N(sample; mean, σ² I)``, for samples drawn elsewhere, such as in a loop: give them without a gradient.

    Args:
      sample: what was drawn.
      mean: of the policy.
      deviation: ``σ > 0``.

    Raises:
      InputError: if a plain number is not positive.
    """
    chex.assert_equal_shape([sample, mean])
    if isinstance(deviation, int | float) and deviation <= 0:
        raise InputError(f"deviation is {deviation}; expected a number above 0.")
    sigma = jnp.asarray(deviation, mean.dtype)
    squares = jnp.sum(jnp.square((sample - mean) / sigma), axis=-1)
    return -0.5 * squares - mean.shape[-1] * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))


def score_function(
    log_prob: Float[Array, "*B"], reward: Float[Array, "*B"], baseline: Float[Array, "*B"] | None = None
) -> Float[Array, "*B"]:
    """``-(R - b) log π(a)``, to be minimised: its gradient is that of the expected reward, downhill, in expectation.

    Nothing flows through reward and baseline. Its value means nothing; watch the reward.

    Args:
      log_prob: of the draws; of several that share one reward, their sum, or broadcast the reward to them.
      reward: of each draw.
      baseline: of each, from what did not see the draw; None for 0.

    Source: Williams, 1992, Eq. 11.
    """
    chex.assert_equal_shape([log_prob, reward])
    advantage = reward
    if baseline is not None:
        chex.assert_equal_shape([reward, baseline])
        advantage = reward - baseline
    return -jax.lax.stop_gradient(advantage) * log_prob


def moving_baseline(
    baseline: Float[Array, ""], rewards: Float[Array, "..."], *, decay: float = 0.9
) -> Float[Array, ""]:
    """``b ← decay · b + (1 - decay) · mean(R)``: the state after a batch.

    Use the old one for the batch itself, which it has not seen. It must survive a restart.

    Source: Xu et al., *Show, Attend and Tell*, 2015, Eq. 12 (decay 0.9).
    """
    mean = jnp.mean(jax.lax.stop_gradient(rewards)).astype(baseline.dtype)
    return decay * baseline + (1 - decay) * mean


def baseline_loss(baseline: Float[Array, "*B"], reward: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """``(R - b)²``, by which a network learns the baseline: its best value is the expected reward.

    Give the network what was known before the draw, with its gradient stopped where it shall not shape the rest.

    Source: Mnih et al., 2014, section 3.2.
    """
    chex.assert_equal_shape([baseline, reward])
    return jnp.square(jax.lax.stop_gradient(reward) - baseline)
