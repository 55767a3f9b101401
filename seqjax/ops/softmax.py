"""Softmax over those that count: where nothing does there are zeros and no gradient, not NaN or a uniform guess."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seqjax.errors import InputError

LOWEST = -0.7 * float(jnp.finfo(jnp.float32).max)
"""A logit without weight. Finite, since the difference of two infinities is NaN, and so are its gradients."""


def wide(x: Array) -> jnp.dtype:
    """The dtype to sum in: that of ``x``, but float32 for a half-precision one."""
    return x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def masked_softmax(
    logits: Float[Array, "..."], mask: Bool[Array, "..."] | None = None, *, axis: int = -1
) -> Float[Array, "..."]:
    """``exp z_k / Σ_j exp z_j`` over the j that count; 0 for the others, and for all where none counts.

    Args:
      logits: any shape. Those that do not count may hold any finite number or -∞.
      mask: True for those that count; of as many dimensions, which have size 1 where they are shared. None counts all.
      axis: that of the sum.

    Raises:
      InputError: for a mask that is not boolean or of another rank or size.
    """
    if mask is None:
        return jax.nn.softmax(logits, axis=axis)
    weights = jax.nn.softmax(_filled(logits, mask), axis=axis)
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def masked_log_softmax(
    logits: Float[Array, "..."], mask: Bool[Array, "..."] | None = None, *, axis: int = -1
) -> Float[Array, "..."]:
    """Logarithm of `masked_softmax` for those that count, taken without underflow; `LOWEST` for the others."""
    if mask is None:
        return jax.nn.log_softmax(logits, axis=axis)
    log_weights = jax.nn.log_softmax(_filled(logits, mask), axis=axis)
    return _filled(log_weights, mask)


def _filled(logits: Array, mask: Array) -> Array:
    fits = mask.ndim == logits.ndim and all(n in (1, m) for n, m in zip(mask.shape, logits.shape, strict=True))
    if not fits or mask.dtype != bool:
        raise InputError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected booleans, True for what counts, of shape "
            f"{logits.shape} with size 1 where it is shared: give mask[:, None] for a mask [B, S] of scores [B, T, S]."
        )
    return jnp.where(mask, logits, jnp.full_like(logits, max(LOWEST, 0.7 * float(jnp.finfo(logits.dtype).min))))
