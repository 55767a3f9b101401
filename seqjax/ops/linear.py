"""The affine map of a recurrent step: dense or convolutional, decided by the rank of its kernel."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.convolution import conv


def affine(
    bias: Float[Array, "..."],
    kernel: Float[Array, "... C D"],
    inputs: Float[Array, "..."],
) -> Float[Array, "... D"]:
    """``b + W·x`` for a kernel ``[C, D]``, ``b + W * x`` (zero-padded convolution, stride 1) for ``[*K, C, D]``.

    A kernel with spatial dimensions ``*K`` (one to three, odd or even) maps ``inputs [*B, *space, C]`` of as many
    spatial dimensions to ``[*B, *space, D]``; values outside the image are zero. The convolution is a
    cross-correlation, as everywhere in deep learning. Computed in the kernel's dtype.

    Args:
      bias: any shape that broadcasts to the result: a bias ``[D]``, or pre-activations that the map is added to.
      kernel: ``[*K, C, D]``.
      inputs: ``[*B, *space, C]``; any leading dimensions, folded into one batch for the convolution.

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
    else:
        outputs = conv(None, kernel, inputs, padding=_same(kernel.shape[:-2]))
    return jnp.broadcast_to(bias, outputs.shape) + outputs


def _multiply(kernel: Array, inputs: Array) -> Array:
    # As matrices: contracting two axes for the kernel's gradient makes XLA's CPU backend transpose copies of both.
    rows = inputs.reshape(-1, inputs.shape[-1])
    return (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(*inputs.shape[:-1], kernel.shape[-1])


def _same(window: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(((k - 1) // 2, k // 2) for k in window)
