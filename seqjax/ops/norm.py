"""Normalisation as functions of arrays: who shares a mean and a variance is all that tells one from another.

    layer_norm       the channels of each position
    instance_norm    the positions of each image and channel
    group_norm       positions and channels of each image, by groups; one group is layer normalisation over C, H, W
    batch_norm       all positions of all images, by channel

Variances are biased, over n and not n - 1. Statistics, and what `scale` and `bias` do, are computed in float32 at
least; the input's dtype comes back. `spectral_norm` is of kernels instead.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError


def layer_norm(x: Float[Array, "... D"], scale: Float[Array, " D"], *, epsilon: float = 1e-5) -> Float[Array, "... D"]:
    """``α ⊙ (x - μ) / √(σ² + ε)``, with the mean ``μ`` and variance ``σ²`` over the last axis.

    Computed in float32 at least, returned in the dtype of ``x``. A bias is the caller's to add. Where an array has
    spatial dimensions each position is normalised on its own.

    Args:
      x: ``[..., D]``.
      scale: ``α [D]``.
      epsilon: ``ε``, what keeps a constant row finite.

    Source: Ba, Kiros and Hinton, *Layer Normalization*, 2016, Eq. 3 and 4.
    """
    return _affine(_standardise(_widen(x), -1, epsilon), scale, None, x)


def instance_norm(
    x: Float[Array, "*B H W C"],
    scale: Float[Array, " C"] | None = None,
    bias: Float[Array, " C"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "*B H W C"]:
    """``α (x - μ) / √(σ² + ε) + β``, with ``μ`` and ``σ²`` of each image and channel over its positions.

    A map of one position becomes ``β``, whatever it held: put none at the bottom of a U-Net.

    Args:
      x: images, or features of images.
      scale: ``α``, or None for 1, as CycleGAN's code has it.
      bias: ``β``, or None for 0.
      epsilon: ``ε``.

    Source: Ulyanov, Vedaldi, Lempitsky, *Instance Normalization: The Missing Ingredient for Fast Stylization*, 2016.
    """
    return _affine(_standardise(_widen(x), (-3, -2), epsilon), scale, bias, x)


def group_norm(
    x: Float[Array, "*B H W C"],
    scale: Float[Array, " C"] | None = None,
    bias: Float[Array, " C"] | None = None,
    *,
    groups: int = 1,
    epsilon: float = 1e-5,
) -> Float[Array, "*B H W C"]:
    """``α (x - μ) / √(σ² + ε) + β``, with ``μ`` and ``σ²`` of each image and group of neighbouring channels.

    One group is the layer normalisation over C, H and W of decoders in image translation; as many groups as channels
    make it `instance_norm`.

    Args:
      x: images, or features of images.
      scale: ``α``, by channel, or None for 1.
      bias: ``β``, by channel, or None for 0.
      groups: how many, a divisor of C.
      epsilon: ``ε``.

    Raises:
      InputError: if C is not a multiple of ``groups``.

    Source: Wu and He, *Group Normalization*, 2018, Eq. 1, 2 and 7.
    """
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise InputError(
            f"group_norm: {channels} channels cannot be put into groups={groups} of one size; expected a divisor of "
            f"{channels}: choose another number."
        )
    grouped = _widen(x).reshape(*x.shape[:-1], groups, channels // groups)
    return _affine(_standardise(grouped, (-4, -3, -1), epsilon).reshape(x.shape), scale, bias, x)


def batch_norm(
    x: Float[Array, "... C"],
    scale: Float[Array, " C"] | None = None,
    bias: Float[Array, " C"] | None = None,
    *,
    epsilon: float = 1e-5,
) -> Float[Array, "... C"]:
    """``α (x - μ) / √(σ² + ε) + β``, with ``μ`` and ``σ²`` of each channel over everything else in ``x``.

    There are no running averages: it is what batch normalisation does in training, and what pix2pix does in testing
    too. On one image it is `instance_norm`. The examples of a batch act on one another.

    Args:
      x: ``[*B, C]`` or ``[*B, *space, C]``.
      scale: ``α``, or None for 1.
      bias: ``β``, or None for 0.
      epsilon: ``ε``.

    Source: Ioffe and Szegedy, *Batch Normalization*, 2015, Algorithm 1; Isola et al., *Image-to-Image Translation with
    Conditional Adversarial Networks*, 2017, section 3.3 (at test time).
    """
    return _affine(_standardise(_widen(x), tuple(range(x.ndim - 1)), epsilon), scale, bias, x)


def spectral_norm(
    kernel: Float[Array, "... D"], u: Float[Array, " D"], *, iterations: int = 1, epsilon: float = 1e-12
) -> tuple[Float[Array, "... D"], Float[Array, " D"]]:
    """``W / σ(W)``, by an estimate of the largest singular value ``σ`` that gets better from call to call.

    Each iteration is ``v ← Wu / ‖Wu‖``, ``u ← Wᵀv / ‖Wᵀv‖``; then ``σ = vᵀWu``, from below. ``W`` is the kernel as a
    matrix ``[∏, D]``. Gradients flow through ``W`` and not through ``u`` and ``v``.

    Args:
      kernel: ``[*K, C, D]`` or ``[C, D]``.
      u: state, from the last call; in the beginning any vector but zero, such as ``jax.random.normal(key, (D,))``.
      iterations: of the power method, at least 1; one is enough where the kernel changes slowly.
      epsilon: the least that anything is divided by.

    Returns:
      The kernel for this call, and ``u`` for the next one; at test time keep the old.

    Source: Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, 2018, Algorithm 1.
    """
    matrix = _widen(kernel).reshape(-1, kernel.shape[-1])
    fixed, direction = jax.lax.stop_gradient((matrix, u.astype(matrix.dtype)))
    for _ in range(iterations):
        v = _unit(jnp.matmul(fixed, direction, precision="highest"), epsilon)
        direction = _unit(jnp.matmul(v, fixed, precision="highest"), epsilon)
    sigma = jnp.einsum("n,nd,d->", v, matrix, direction, precision="highest")
    normalised = _widen(kernel) / jnp.maximum(sigma, epsilon)
    return normalised.astype(kernel.dtype), direction.astype(u.dtype)


def _unit(vector: Array, epsilon: float) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), epsilon)


def _widen(x: Array) -> Array:
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _standardise(x: Array, axes: int | tuple[int, ...], epsilon: float) -> Array:
    centred = x - jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


def _affine(normalised: Array, scale: Array | None, bias: Array | None, x: Array) -> Array:
    """``α · + β`` by channel, in the dtype of x."""
    if scale is not None:
        normalised = normalised * jnp.broadcast_to(scale.astype(normalised.dtype), x.shape)
    if bias is not None:
        normalised = normalised + jnp.broadcast_to(bias.astype(normalised.dtype), x.shape)
    return normalised.astype(x.dtype)
