"""Log-likelihoods of images under what a network outputs, one value per frame, and the divergence of latent
distributions; the caller reduces."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def bernoulli_cross_entropy(
    logits: Float[Array, "*B H W C"],
    targets: Float[Array, "*B H W C"],
    *,
    weights: Float[Array, "*B H W C"] | None = None,
) -> Float[Array, "*B"]:
    """Cross-entropy between grey levels and independent Bernoulli pixels, in nats per frame.

        -Σ_{h,w,c}  w [t log σ(z) + (1 - t) log(1 - σ(z))],    z = logits, t = targets in [0, 1]

    The weights w are 1 unless given; where hardly any pixel is set, larger ones keep those from being given up.
    Each log σ is taken from the logit, so that saturated pixels cost |z| and no infinity. All logits 0
    give D log 2, with D = H·W·C. Grey targets make the least possible value the entropy of the targets,
    not 0: report the excess over it when models are compared. For the cross-entropy per sequence of the
    ConvLSTM tables, sum over time. Computed and returned in float32.

    Sources: Srivastava, Mansimov, Salakhutdinov, Unsupervised Learning of Video Representations using
    LSTMs, 2015, section 3; Shi et al., Convolutional LSTM Network, 2015, section 4.1.
    """
    chex.assert_equal_shape([logits, targets])
    z, t = logits.astype(jnp.float32), targets.astype(jnp.float32)
    log_likelihood = t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z)
    if weights is not None:
        chex.assert_equal_shape([weights, targets])
        log_likelihood = weights.astype(jnp.float32) * log_likelihood
    return -jnp.sum(log_likelihood, axis=(-3, -2, -1))


def standard_normal_kl(mean: Float[Array, "*B Z"], log_deviation: Float[Array, "*B Z"]) -> Float[Array, "*B"]:
    """``KL(N(μ, σ² I) ‖ N(0, I)) = ½ Σ_j (μ_j² + σ_j² - log σ_j² - 1)`` in nats, 0 where μ = 0 and σ = 1.

    Computed and returned in float32.

    Args:
      mean: ``μ``.
      log_deviation: ``log σ``, of the deviation and not of the variance.

    Source: Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, appendix B.
    """
    return gaussian_kl(mean, log_deviation, jnp.zeros_like(mean), jnp.zeros_like(log_deviation))


def gaussian_kl(
    mean: Float[Array, "*B Z"],
    log_deviation: Float[Array, "*B Z"],
    prior_mean: Float[Array, "*B Z"],
    prior_log_deviation: Float[Array, "*B Z"],
) -> Float[Array, "*B"]:
    """``KL(N(μ, σ² I) ‖ N(m, s² I)) = Σ_j log(s_j/σ_j) + (σ_j² + (μ_j - m_j)²) / (2 s_j²) - ½`` in nats.

    0 where both are one, and nowhere else; not symmetric. Computed and returned in float32.

    Args:
      mean: ``μ``.
      log_deviation: ``log σ``.
      prior_mean: ``m``.
      prior_log_deviation: ``log s``.

    Source: Denton and Fergus, *Stochastic Video Generation with a Learned Prior*, 2018, section 3, for a learned prior.
    """
    arrays = (mean, log_deviation, prior_mean, prior_log_deviation)
    chex.assert_equal_shape(arrays)
    mean, log_deviation, prior_mean, prior_log_deviation = (x.astype(jnp.float32) for x in arrays)
    log_ratio = log_deviation - prior_log_deviation
    distance = jnp.square((mean - prior_mean) * jnp.exp(-prior_log_deviation))
    return 0.5 * jnp.sum(distance + jnp.exp(2 * log_ratio) - 2 * log_ratio - 1, axis=-1)
