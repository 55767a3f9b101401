"""The affine map of a recurrent step: dense or convolutional, decided by the rank of its kernel."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.convolution import conv

Implementation = Literal["xla", "patches"]


def affine(
    bias: Float[Array, "..."],
    kernel: Float[Array, "... C D"],
    inputs: Float[Array, "..."],
    *,
    implementation: Implementation = "xla",
) -> Float[Array, "... D"]:
    """``b + W·x`` for a kernel ``[C, D]``, ``b + W * x`` (zero-padded convolution, stride 1) for ``[*K, C, D]``.

    A kernel with spatial dimensions ``*K`` (one to three, odd or even) maps ``inputs [*B, *space, C]`` of as many
    spatial dimensions to ``[*B, *space, D]``; values outside the image are zero. The convolution is a
    cross-correlation, as everywhere in deep learning. Computed in the kernel's dtype.

    Args:
      bias: any shape that broadcasts to the result: a bias ``[D]``, or pre-activations that the map is added to.
      kernel: ``[*K, C, D]``.
      inputs: ``[*B, *space, C]``; any leading dimensions, folded into one batch for the convolution.
      implementation: "xla" is XLA's own convolution. "patches" gathers the ``∏K`` shifted copies of the inputs and
        multiplies once by the flattened kernel: the same sums, faster inside a loop on CPU, where XLA's
        convolutions take a slow path; it holds ``∏K`` times the inputs in memory. Dense kernels ignore it.

    Raises:
      InputError: when the kernel and the inputs disagree on ``C`` or on the number of dimensions.
    """
    space = kernel.ndim - 2
    if inputs.ndim < space + 1 or kernel.shape[-2] != inputs.shape[-1]:
        raise InputError(
            f"affine: a kernel of shape {kernel.shape} maps inputs whose last {space + 1} dimensions are "
            f"{space} spatial ones and {kernel.shape[-2]} channels; the inputs have shape {inputs.shape}. "
            "Give inputs [*B, *space, C] and a kernel [*K, C, D] with the same C."
        )
    inputs = inputs.astype(kernel.dtype)
    if math.prod(kernel.shape[:-2]) == 1:
        outputs = _multiply(kernel, inputs)
    elif implementation == "patches":
        outputs = _multiply(kernel, _patches(inputs, kernel.shape[:-2]))
    else:
        outputs = conv(None, kernel, inputs, padding=_same(kernel.shape[:-2]))
    return jnp.broadcast_to(bias, outputs.shape) + outputs


def _multiply(kernel: Array, inputs: Array) -> Array:
    # As matrices: contracting two axes for the kernel's gradient makes XLA's CPU backend transpose copies of both.
    rows = inputs.reshape(-1, inputs.shape[-1])
    return (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(*inputs.shape[:-1], kernel.shape[-1])


def _same(window: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(((k - 1) // 2, k // 2) for k in window)


def _patches(inputs: Array, window: tuple[int, ...]) -> Array:
    """The window around every position, ``[*B, *space, ∏K·C]``, in the order of a flattened ``[*K, C]`` kernel."""
    space = len(window)
    lead = inputs.ndim - space - 1
    padding = [(0, 0)] * lead + [*_same(window), (0, 0)]
    padded = jnp.pad(inputs, padding)
    columns = []
    for index in range(math.prod(window)):
        offsets: list[int] = []
        for k in reversed(window):
            index, offset = divmod(index, k)
            offsets.insert(0, offset)
        start = (0,) * lead + (*offsets, 0)
        stop = [s + n for s, n in zip(start, inputs.shape, strict=True)]
        columns.append(jax.lax.slice(padded, start, stop))
    return jnp.concatenate(columns, axis=-1)
