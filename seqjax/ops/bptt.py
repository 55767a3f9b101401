"""Truncated backpropagation through time."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from seqjax.errors import InputError
from seqjax.ops.recurrence import Cell, Tree
from seqjax.ops.scan import unroll


def truncated(
    cell: Cell,
    params: Tree,
    carry: Tree,
    xs: Tree,
    *,
    stride: int,
    window: int | None = None,
    lengths: Int[Array, " B"] | None = None,
    mask: Bool[Array, "B T"] | None = None,
    resets: Bool[Array, "B T"] | None = None,
    reset_carry: Tree | None = None,
    **options: Any,
) -> tuple[Tree, Tree]:
    """``unroll`` whose gradient reaches a bounded number of steps back; the values are those of ``unroll``.

    BPTT(h; h'): after every ``stride`` steps (``k_1``) the gradient of that stride's outputs goes back through the
    ``window`` (``k_2``) last steps and stops there, at the carry with which the window starts. With
    ``window == stride``, the default, the sequence falls into pieces with no gradient between them. A larger window
    costs one more run of its earlier steps for each stride.

    Args:
      cell: as in ``unroll``.
      params: as in ``unroll``.
      carry: the initial state, leaves ``[B, ...]``; the first window's gradient reaches it.
      xs: inputs, leaves ``[B, T, ...]``.
      stride: ``k_1``, at least 1.
      window: ``k_2``, a multiple of ``stride``.
      lengths: ``[B]``: step t of a row is valid when t < its length. Excludes ``mask``.
      mask: ``[B, T]``: True where a step is valid.
      resets: ``[B, T]``: where True and valid, the row starts this step from ``reset_carry``.
      reset_carry: leaves ``[B, ...]``; the initial carry unless given.
      options: further ones of ``unroll`` (``unroll``, ``weight_gradient``).

    Returns:
      As ``unroll``: the last carry and all outputs.

    Raises:
      InputError: for a stride or a window that make no sense.

    Source: Williams and Peng, *An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
    Trajectories*, 1990.
    """
    window = stride if window is None else window
    if stride < 1 or window < stride or window % stride:
        raise InputError(
            f"truncated: stride is {stride} and window is {window}; expected a stride of at least 1 and a window that "
            "is a multiple of it."
        )
    if lengths is not None and mask is not None:
        raise InputError("truncated: both lengths and mask are given; give one (a mask can say all that lengths say).")
    batch, length = jax.tree.leaves(xs)[0].shape[:2]
    count, pieces = math.ceil(length / stride), window // stride
    valid = jnp.ones((batch, length), bool) if mask is None else mask
    if lengths is not None:
        valid = jnp.arange(length, dtype=lengths.dtype)[None] < lengths[:, None]
    flags = resets if resets is not None else jnp.zeros((batch, length), bool)
    before = window - stride  # Invalid steps in front: the first windows are whole too.

    def pad(x: Array) -> Array:
        return jnp.pad(x, [(0, 0), (before, count * stride - length)] + [(0, 0)] * (x.ndim - 2))

    padded = jax.tree.map(pad, (xs, valid, flags))
    reset_carry = carry if reset_carry is None else reset_carry

    def body(starts: list[Tree], index: Array) -> tuple[list[Tree], Tree]:
        read = lambda x: jax.lax.dynamic_slice_in_dim(x, index * stride, window, axis=1)  # noqa: E731
        xs, valid, flags = jax.tree.map(read, padded)
        reached = jax.tree.map(lambda s, c: jnp.where(index < pieces, c, jax.lax.stop_gradient(s)), starts[0], carry)
        last, ys = unroll(cell, params, reached, xs, mask=valid, resets=flags, reset_carry=reset_carry, **options)
        return [*starts[1:], last], jax.tree.map(lambda y: y[:, before:], ys)

    starts, ys = jax.lax.scan(body, [carry] * pieces, jnp.arange(count))
    return starts[-1], jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1).reshape(batch, -1, *y.shape[3:])[:, :length], ys)
