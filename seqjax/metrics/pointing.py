"""Whether attention is where it should be: how much lies in a box or on the right token, whether its peak does, and
how far off it is."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def box_attention(
    weights: Float[Array, "*B H W"], boxes: Int[Array, "*B 4"], *, size: int
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Attention on an object, of each map.

    Args:
      weights: over the places of an image, which tile it evenly; at least 0.
      boxes: top, left, bottom, right in pixels, the last two exclusive.
      size: height and width of the image in pixels.

    Returns:
      The attention in the box, ``Σ_ij w_ij · (share of place ij in the box)``; and 1 where the place of most attention,
      the first of several, lies in the box with half of its area or more, otherwise 0.

    Source: Zhang et al., *Top-down Neural Attention by Excitation Backprop*, 2016, section 4.2 (the pointing game),
    there with a tolerance of 15 pixels.
    """
    height, width = weights.shape[-2:]
    rows = _shares(boxes[..., 0], boxes[..., 2], height, size)
    columns = _shares(boxes[..., 1], boxes[..., 3], width, size)
    inside = rows[..., :, None] * columns[..., None, :]
    flat = weights.astype(jnp.float32).reshape(*weights.shape[:-2], height * width)
    peak = jnp.argmax(flat, axis=-1, keepdims=True)
    share = jnp.take_along_axis(inside.reshape(flat.shape), peak, axis=-1)[..., 0]
    return jnp.sum(flat * inside.reshape(flat.shape), axis=-1), (share >= 0.5).astype(jnp.float32)


def anti_diagonal(weights: Float[Array, "B T S"], lengths: Int[Array, " B"]) -> Float[Array, " B"]:
    """Attention on the word to be written next, of a source that is written backwards, ``1/n Σ_t w_{t, n - t}``.

    Args:
      weights: of the steps that write the n words and EOS, and more; at least 0, over ``BOS s_1 .. s_n EOS PAD ..``.
      lengths: ``n + 2``, from 3 on.
    """
    places = (lengths - 2)[:, None] - jnp.arange(weights.shape[1])[None]
    found = jnp.take_along_axis(weights.astype(jnp.float32), jnp.maximum(places, 0)[..., None], axis=2)[..., 0]
    return jnp.sum(jnp.where(places > 0, found, 0.0), axis=1) / (lengths - 2).astype(jnp.float32)


def look_distances(looked: Float[Array, "*B T 2"], corners: Int[Array, "*B 2"], *, side: int) -> Float[Array, "*B T"]:
    """``‖l_t - m‖``: pixels from each of T glimpses to the middle ``m`` of what is to be found.

    Args:
      looked: ``(x, y)`` of the glimpses in pixels from the upper left corner of the image.
      corners: row and column of the upper left pixel of what is to be found.
      side: its height and width in pixels.
    """
    middle = corners[..., None, ::-1].astype(jnp.float32) + side / 2
    return jnp.linalg.norm(looked - jnp.broadcast_to(middle, looked.shape), axis=-1)


def _shares(first: Int[Array, "*B"], last: Int[Array, "*B"], number: int, size: int) -> Float[Array, "*B {number}"]:
    """Of each of the rows of places, the share that lies between two rows of pixels."""
    side = size / number
    starts = jnp.broadcast_to(jnp.arange(number, dtype=jnp.float32) * side, (*first.shape, number))
    low = jnp.maximum(starts, first[..., None].astype(jnp.float32))
    high = jnp.minimum(starts + side, last[..., None].astype(jnp.float32))
    return jnp.maximum(high - low, 0) / side
