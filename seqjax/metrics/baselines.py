"""What a video predictor has to beat: futures that need no training, or only the average of it."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError


def copy_last(context: Float[Array, "B T H W C"], *, steps: int) -> Float[Array, "B S H W C"]:
    """The last frame seen, again and again: ``x̂_{T+s} = x_T`` (persistence)."""
    return jnp.repeat(context[:, -1:], steps, axis=1)


def constant(
    context: Float[Array, "B T H W C"], frame: Float[Array, "H W C"], *, steps: int
) -> Float[Array, "B S H W C"]:
    """One frame for every step of every clip: zeros for an empty background, or the mean of the training set."""
    return jnp.broadcast_to(frame[None, None], (len(context), steps, *context.shape[2:]))


def mean_frame(records: Iterable[Mapping[str, np.ndarray]]) -> Float[np.ndarray, "H W C"]:
    """The per-pixel mean over all frames of all clips, in [0, 1], the constant of least squared error.

    Args:
      records: with ``video`` uint8 ``[T, H, W, C]``, all of one frame size.
    """
    total, frames = 0.0, 0
    for record in records:
        total = total + record["video"].sum(axis=0, dtype=np.float64)
        frames += len(record["video"])
    if not frames:
        raise InputError("mean_frame: no record came; expected at least one clip to take the mean of.")
    return np.asarray(total / (255 * frames), np.float32)
