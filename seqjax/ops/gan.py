"""Adversarial losses as functions of logits, penalties as functions of a critic, and the measures of a game's health.

A discriminator returns logits, never probabilities: one per example ``[B]`` or a patch of them ``[B, h, w, 1]``. With
``r = D(real)``, ``f = D(fake)`` and ``s(x) = log(1 + eˣ)``, the two players minimise:

    name                     discriminator                     generator
    minimax                  s(-r) + s(f)                      -s(f)
    non_saturating           s(-r) + s(f)                      s(-f)
    least_squares            (r - 1)² + f²                     (f - 1)²
    hinge                    max(0, 1 - r) + max(0, 1 + f)     -f
    wasserstein              f - r                             -f
    relativistic             s(-(r - f))                       s(-(f - r))
    relativistic_average     s(-(r - mean f)) + s(f - mean r)  s(-(f - mean r)) + s(r - mean f)

A loss has one value per example, the mean over its patch, so that the mean over the batch is the mean over all logits;
add up those of several scales. All is computed and returned in float32, whatever came. Weights (γ, λ, halves) are the
caller's, and so is the stop of gradients between the players: differentiate each player's loss with respect to its own
parameters alone.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from seqjax.errors import InputError

Critic = Callable[[Any], Array]
"""Samples ``[B, *S]`` to logits ``[B, *P]``: a discriminator, its parameters and conditions closed over."""

Loss = Literal[
    "minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic", "relativistic_average"
]


class Adversarial(NamedTuple):
    """The two losses of one game. Each takes first the logits that its player wants high; both return ``[B]``."""

    discriminator: Callable[..., Array]
    """``discriminator(real, fake)``, logits of one shape ``[B, *P]``."""
    generator: Callable[..., Array]
    """``generator(fake, real=None)``; only the relativistic ones read ``real``, and raise InputError without it."""


def adversarial(name: Loss) -> Adversarial:
    """The pair of that name, for a configuration that chooses by a string; InputError if there is none.

    Whoever lets a configuration choose gives the generator's loss the real logits too.
    """
    if name not in LOSSES:
        raise InputError(f"adversarial: the loss {name!r} is unknown; expected one of {', '.join(LOSSES)}: choose one.")
    return LOSSES[name]


def _per_example(values: Array) -> Array:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _absolute(
    on_real: Callable[[Array], Array], on_fake: Callable[[Array], Array], generator: Callable[[Array], Array]
) -> Adversarial:
    """Each logit is scored on its own."""

    def discriminator_loss(real: Float[Array, "B *P"], fake: Float[Array, "B *P"]) -> Float[Array, " B"]:
        chex.assert_equal_shape([real, fake])
        return _per_example(on_real(real.astype(jnp.float32)) + on_fake(fake.astype(jnp.float32)))

    def generator_loss(fake: Float[Array, "B *P"], real: Float[Array, "B *P"] | None = None) -> Float[Array, " B"]:
        return _per_example(generator(fake.astype(jnp.float32)))

    return Adversarial(discriminator_loss, generator_loss)


def _relative(loss: Callable[[Array, Array], Array]) -> Adversarial:
    """Logits are scored against those of the other side, and one function serves both players."""

    def player_loss(own: Float[Array, "B *P"], other: Float[Array, "B *P"] | None = None) -> Float[Array, " B"]:
        if other is None:
            raise InputError(
                "generator: a relativistic loss compares the logits of both sides, and real is None; expected the "
                "logits of as many real samples, from the same discriminator: call generator(fake, real)."
            )
        chex.assert_equal_shape([own, other])
        return _per_example(loss(own.astype(jnp.float32), other.astype(jnp.float32)))

    return Adversarial(player_loss, player_loss)


def _against_mean(own: Array, other: Array) -> Array:
    return jax.nn.softplus(jnp.mean(other) - own) + jax.nn.softplus(other - jnp.mean(own))


minimax = _absolute(lambda r: jax.nn.softplus(-r), jax.nn.softplus, lambda f: -jax.nn.softplus(f))
"""The game itself, ``min_G max_D E log D(x) + E log(1 - D(G(z)))``; its best discriminator has ``2 JSD - log 4``.

The generator's gradient dies where the discriminator wins: for study, not for training.

Source: Goodfellow et al., *Generative Adversarial Nets*, 2014, Eq. 1.
"""

non_saturating = _absolute(lambda r: jax.nn.softplus(-r), jax.nn.softplus, lambda f: jax.nn.softplus(-f))
"""The same discriminator; the generator minimises ``-log D(G(z))``. Sigmoid cross-entropy with targets 1 and 0.

Source: Goodfellow et al., 2014, section 3. DCGAN, pix2pix, and with `r1` the StyleGANs.
"""

least_squares = _absolute(lambda r: jnp.square(r - 1), jnp.square, lambda f: jnp.square(f - 1))
"""Squares of the raw logits from the targets 1, 0 and 1. The paper has half of each.

CycleGAN's code, as pix2pix's, halves the discriminator's loss and not the generator's, whatever the loss.

Source: Mao et al., *Least Squares Generative Adversarial Networks*, 2017, Eq. 9.
"""

hinge = _absolute(lambda r: jax.nn.relu(1 - r), lambda f: jax.nn.relu(1 + f), jnp.negative)
"""The discriminator has no gradient from what it already scores beyond the margin of 1.

Sources: Lim and Ye, *Geometric GAN*, 2017; Miyato et al., *Spectral Normalization for GANs*, 2018, Eq. 16 and 17.
"""

wasserstein = _absolute(jnp.negative, lambda f: f, jnp.negative)
"""The discriminator is a critic without a scale of its own: clip its weights, or add `wgan_gp`, or `r1`.

Source: Arjovsky, Chintala, Bottou, *Wasserstein GAN*, 2017, Eq. 2.
"""

relativistic = _relative(lambda own, other: jax.nn.softplus(other - own))
"""Real and fake of one index, and one place in the patch, are a pair: shuffle no side alone. With `r1` and `r2`, R3GAN.

Sources: Jolicoeur-Martineau, *The Relativistic Discriminator*, 2018 (RpGAN); Huang et al., *The GAN is dead; long live
the GAN!*, 2024 (R3GAN).
"""

relativistic_average = _relative(_against_mean)
"""Each logit is compared with the mean of the other side's, over batch and patch; the values of a batch hang together.

Source: Jolicoeur-Martineau, 2018 (RaSGAN, whose two terms are summed).
"""

LOSSES = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "least_squares": least_squares,
    "hinge": hinge,
    "wasserstein": wasserstein,
    "relativistic": relativistic,
    "relativistic_average": relativistic_average,
}
RELATIVISTIC = ("relativistic", "relativistic_average")
"""Those whose generator compares with the logits of real samples."""


def mode_seeking(
    images_1: Float[Array, "B *S"],
    images_2: Float[Array, "B *S"],
    latents_1: Float[Array, "B *Z"],
    latents_2: Float[Array, "B *Z"],
    *,
    epsilon: float = 1e-5,
) -> Float[Array, ""]:
    """``1 / (|x₁ - x₂| / |z₁ - z₂| + ε)``: low where different latents give different images. A generator adds it.

    ``|·|`` is the mean absolute difference over the whole batch, as in the authors' code, and the value one for the
    batch: the mean of the examples' own inverses would be ruled by the one pair that came out alike.

    Args:
      images_1: ``x₁ = G(c, z₁)``.
      images_2: ``x₂ = G(c, z₂)``, of the same conditions.
      latents_1: ``z₁``.
      latents_2: ``z₂``.
      epsilon: ``ε``; the value where the images are the same is ``1/ε``.

    Source: Mao et al., *Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis*, 2019.
    """
    chex.assert_equal_shape([images_1, images_2])
    chex.assert_equal_shape([latents_1, latents_2])
    images, latents = (
        jnp.mean(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)))
        for a, b in ((images_1, images_2), (latents_1, latents_2))
    )
    return 1 / (images / latents + epsilon)


def feature_matching(real: Float[Array, "B *F"], fake: Float[Array, "N *F"]) -> Float[Array, ""]:
    """``mean_F (mean_B real - mean_B fake)²``, one value for the batch: a generator's loss; sum it over layers.

    Args:
      real: activations of one layer of the discriminator on real samples.
      fake: those on generated ones; the batches may differ in size.

    Sources: Salimans et al., *Improved Techniques for Training GANs*, 2016, section 3.1 (a sum over F); Kim et al.,
    *Learning to Discover Cross-Domain Relations with GANs*, 2017 (the mean, in the authors' code).
    """
    means = [jnp.mean(features.astype(jnp.float32), axis=0) for features in (real, fake)]
    chex.assert_equal_shape(means)
    return jnp.mean(jnp.square(means[0] - means[1]))


def _squared_slope(critic: Critic, samples: Array) -> Array:
    """``‖∇ₓ D(x)‖²`` of every example; one backward pass, and exact because no example acts on another's logits."""
    samples = jax.lax.stop_gradient(samples)
    slope = jax.grad(lambda x: jnp.sum(critic(x).astype(jnp.float32)))(samples)
    return jnp.sum(jnp.square(slope.astype(jnp.float32)), axis=tuple(range(1, slope.ndim)))


def r1(critic: Critic, real: Float[Array, "B *S"]) -> Float[Array, " B"]:
    """``½ ‖∇ₓ D(x)‖²`` at real samples: times ``γ``, what the discriminator adds to its loss.

    The square is *summed* over an example's values, so that ``γ`` grows with the number of pixels; a patch of logits
    counts as their sum. The weight 10 in the code of GAN_stability has no half: it is ``γ = 20``. Taken every k-th
    step alone, the penalty wants ``k γ``. In a critic whose examples act on one another, as through batch
    normalisation, no example has a slope of its own: see `check_independent`.

    Args:
      critic: ``D``; differentiate through it twice.
      real: ``x``; held constant.

    Source: Mescheder, Geiger, Nowozin, *Which Training Methods for GANs do actually Converge?*, 2018, Eq. 9.
    """
    return _squared_slope(critic, real) / 2


def r2(critic: Critic, fake: Float[Array, "B *S"]) -> Float[Array, " B"]:
    """`r1` at generated samples, which are held constant: ``½ ‖∇ₓ D(G(z))‖²`` (Mescheder et al., 2018, Eq. 10)."""
    return _squared_slope(critic, fake) / 2


def wgan_gp(
    critic: Critic, real: Float[Array, "B *S"], fake: Float[Array, "B *S"], *, epsilon: float = 1e-12, key: PRNGKeyArray
) -> Float[Array, " B"]:
    """``(‖∇ₓ D(x̂)‖ - 1)²`` at ``x̂ = real + a (fake - real)``, ``a ~ U(0, 1)`` per example; the paper's weight is 10.

    Args:
      critic: ``D``, as for `r1`.
      real: held constant, as is ``fake``.
      fake: generated samples of the same shape.
      epsilon: inside the root, ``√(Σ∇² + ε)``, which keeps its gradient finite where the slope is zero.
      key: draws ``a``.

    Source: Gulrajani et al., *Improved Training of Wasserstein GANs*, 2017, Eq. 3.
    """
    chex.assert_equal_shape([real, fake])
    a = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1), real.dtype)
    between = real + jnp.broadcast_to(a, real.shape) * (fake - real)
    return jnp.square(jnp.sqrt(_squared_slope(critic, between) + epsilon) - 1)


def drift(real: Float[Array, "B *P"]) -> Float[Array, " B"]:
    """``r²``, which with a small weight (0.001) keeps a Wasserstein critic's free offset near zero.

    Source: Karras et al., *Progressive Growing of GANs*, 2018, appendix A.1.
    """
    return _per_example(jnp.square(real.astype(jnp.float32)))


def check_independent(critic: Critic, samples: Float[Array, "B *S"]) -> None:
    """Raise InputError if one example's logits change with the others: then `r1`, `r2` and `wgan_gp` mean nothing.

    Call it once before training, outside of ``jax.jit``, with four random samples or more: the critic runs twice,
    with all examples but the first exchanged. Normalisation by batch statistics is what it is there to find; minibatch
    standard deviation, which progressive GANs couple with `wgan_gp` knowingly, it finds too.
    """
    others = jnp.concatenate([samples[:1], 1 - 2 * samples[1:]])
    before, after = (critic(x)[0].astype(jnp.float32) for x in (samples, others))
    change = float(jnp.max(jnp.abs(after - before)))
    if change > 1e-3 * float(jnp.max(jnp.abs(before))) + 1e-6:
        raise InputError(
            f"critic: the logits of the first example changed by {change:.2g} when the others were exchanged, and a "
            "penalty on the slope of each example needs examples that do not act on one another; batch normalisation "
            "is the usual reason: use instance or layer normalisation in the discriminator or none, or no penalty."
        )


def health(
    real: Float[Array, "B *P"], fake: Float[Array, "B *P"], *, threshold: float = 0.0
) -> dict[str, Float[Array, ""]]:
    """What tells whether one player wins: metrics of a batch, to be logged with the discriminator's loss.

    ``real_accuracy`` and ``fake_accuracy`` are the shares of logits above and below the threshold, both near 1 where
    the discriminator has won and the generator learns little; ``real_logit`` and ``fake_logit`` the means;
    ``margin = real_logit - fake_logit``, the one that says something of critics whose zero is arbitrary
    (``wasserstein``, the relativistic ones).

    Args:
      real: logits of real samples.
      fake: logits of generated ones.
      threshold: 0, but 0.5 for ``least_squares``, whose targets are 0 and 1.
    """
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    real_logit, fake_logit = jnp.mean(real), jnp.mean(fake)
    return {
        "real_accuracy": jnp.mean((real > threshold).astype(jnp.float32)),
        "fake_accuracy": jnp.mean((fake < threshold).astype(jnp.float32)),
        "real_logit": real_logit,
        "fake_logit": fake_logit,
        "margin": real_logit - fake_logit,
    }


class Turns(NamedTuple):
    """Who plays next, a truth value each; at least one does."""

    discriminator: Bool[Array, ""]
    generator: Bool[Array, ""]


def turns(real: Float[Array, ""], fake: Float[Array, ""], *, margin: float = 0.3) -> Turns:
    """Who plays next, so that neither player runs away: from the discriminator's losses on real and generated samples.

    The discriminator pauses where either loss is below the margin, the generator where either is above
    ``1 - margin``; where both would, both play. As `train.step.Player.when` may read them: from what a network keeps.

    Args:
      real: mean of ``s(-D(real))``; log 2 where nothing is known.
      fake: mean of ``s(D(fake))``.
      margin: of the rule, in [0, 1/2).

    Source: the released code of Villegas et al., *Decomposing Motion and Content*, 2017, where a player that pauses
    does so until the other would too; of Larsen et al., *Autoencoding beyond pixels*, 2016, before.
    """
    if not 0 <= margin < 0.5:
        raise InputError(f"turns: margin={margin}; expected a number in [0, 1/2), such as 0.3: choose another.")
    pauses = (real < margin) | (fake < margin)
    other = (real > 1 - margin) | (fake > 1 - margin)
    both = pauses & other
    return Turns(~pauses | both, ~other | both)


def reverse_gradient(x: Float[Array, "*S"], *, scale: float | Float[Array, ""] = 1.0) -> Float[Array, "*S"]:
    """``x`` itself on the way forward; the gradient times ``-scale`` on the way back.

    One loss then has both players: what follows is trained to lower it, what comes before to raise it.

    Args:
      x: features.
      scale: ``λ``, a number or a traced scalar, such as a schedule's; it gets no gradient.

    Source: Ganin and Lempitsky, *Unsupervised Domain Adaptation by Backpropagation*, 2015, Eq. 7 and 8.
    """
    return _reverse(x, jnp.asarray(scale, x.dtype))


@jax.custom_vjp
def _reverse(x: Array, scale: Array) -> Array:
    return x


def _reverse_forward(x: Array, scale: Array) -> tuple[Array, Array]:
    return x, scale


def _reverse_backward(scale: Array, gradient: Array) -> tuple[Array, Array]:
    return -scale * gradient, jnp.zeros_like(scale)


_reverse.defvjp(_reverse_forward, _reverse_backward)
