"""Normalisation as functions of arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def layer_norm(x: Float[Array, "... D"], scale: Float[Array, " D"], *, epsilon: float = 1e-5) -> Float[Array, "... D"]:
    """``α ⊙ (x - μ) / √(σ² + ε)``, with the mean ``μ`` and variance ``σ²`` over the last axis.

    The statistics are taken in float32 at least. A bias is the caller's to add. Where an array has spatial dimensions
    each position is normalised on its own.

    Args:
      x: ``[..., D]``.
      scale: ``α [D]``.
      epsilon: ``ε``, what keeps a constant row finite.

    Source: Ba, Kiros and Hinton, *Layer Normalization*, 2016, Eq. 3 and 4.
    """
    wide = x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normalised = (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)
    return normalised * jnp.broadcast_to(scale, x.shape)
