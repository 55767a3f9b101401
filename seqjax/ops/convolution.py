"""Convolutions padded as the published networks pad: by number, where "SAME" would put its zeros elsewhere.

PyTorch's layers name a padding ``p`` that goes on both sides; JAX's and TensorFlow's "SAME" pads the less before and
the more after. They are one in a 4x4 convolution of stride 2 over even images, and in few others:

    layer                                      zeros here           "SAME"
    3x3, stride 2, p 1, even image             (1, 1)               (0, 1): one pixel aside
    4x4, stride 1, p 1 (end of PatchGAN)       (1, 1), output n-1   (1, 2), output n
    3x3 transposed, stride 2, p 1, output 1    (1, 2)               (2, 1)

Kernels are ``[*K, C, D]``, images ``[*B, *space, C]``, of one to three spatial dimensions, as in `linear.affine`, which
is the map for stride 1 and "SAME". PyTorch's weights, ``[D, C, *K]`` of a convolution and ``[C, D, *K]`` of a
transposed one, are such kernels after ``transpose(2, 3, 1, 0)``. All is computed in the kernel's dtype.

Convolution, transposed convolution and the gradient of the kernel are the three derivatives of one trilinear form
``⟨y, W * x⟩``, so that the gradients of each are the other two, at any order. XLA derives the same, but takes the
kernel's gradient of a transposed convolution, which is in every second derivative too, as a convolution with
zeros between its pixels, for which its CPU backend has no fast path.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError


def conv(
    bias: Float[Array, " D"] | None,
    kernel: Float[Array, "... C D"],
    inputs: Float[Array, "... C"],
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], ...] = 0,
) -> Float[Array, "... D"]:
    """``b + W * x``: the cross-correlation that PyTorch's ``Conv1d``, ``Conv2d`` and ``Conv3d`` compute.

    A spatial dimension of n becomes ``⌊(n + 2 padding - k) / stride⌋ + 1``.

    Args:
      bias: ``b``; None where a normalisation follows.
      kernel: ``W [*K, C, D]``.
      inputs: ``x [*B, *space, C]``; any leading dimensions.
      stride: in every direction.
      padding: rows of zeros on all sides, or (before, after) for each spatial dimension.

    Raises:
      InputError: when kernel and inputs disagree on ``C`` or on the number of dimensions.
    """
    space = _space("conv", kernel, inputs)
    pads = ((padding, padding),) * space if isinstance(padding, int) else padding
    images, leading = _fold(inputs.astype(kernel.dtype), space)
    geometry = _Geometry(images.shape, kernel.shape, stride, pads)
    outputs = _convolve(geometry, kernel, images)
    return _add(bias, outputs.reshape(*leading, *outputs.shape[1:]))


def conv_transpose(
    bias: Float[Array, " D"] | None,
    kernel: Float[Array, "... D C"],
    inputs: Float[Array, "... C"],
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], ...] = 0,
    output_padding: int = 0,
) -> Float[Array, "... D"]:
    """``b + Wᵀ * x``: PyTorch's ``ConvTranspose1d``, ``2d`` and ``3d``, the adjoint of `conv` in its inputs.

    A spatial dimension of n becomes ``(n - 1) stride - 2 padding + k + output_padding``.

    Args:
      bias: ``b``; None where a normalisation follows.
      kernel: ``W [*K, D, C]``, that of the convolution, from D to C, which is transposed.
      inputs: ``x [*B, *space, C]``; any leading dimensions.
      stride: how far neighbouring inputs are apart in the output, in every direction.
      padding: how many rows of the full output are left away on all sides, or (before, after) for each dimension.
      output_padding: how many of those at the end come back.

    Raises:
      InputError: when kernel and inputs disagree on ``C`` or on the number of dimensions; when output_padding is
        not smaller than the stride.
    """
    space = _space("conv_transpose", jnp.swapaxes(kernel, -1, -2), inputs)
    if not 0 <= output_padding < stride:
        raise InputError(
            f"conv_transpose: output_padding={output_padding} with stride={stride}; expected 0 up to stride - 1, the "
            "rows that a convolution of this stride can leave over: choose another."
        )
    images, leading = _fold(inputs.astype(kernel.dtype), space)
    pads = ((padding, padding),) * space if isinstance(padding, int) else padding
    window = zip(images.shape[1:-1], kernel.shape[:space], pads, strict=True)
    size = [(n - 1) * stride - sum(pad) + k + output_padding for n, k, pad in window]
    shape = (len(images), *size, kernel.shape[-2])
    outputs = _transpose(_Geometry(shape, kernel.shape, stride, pads), kernel, images)
    return _add(bias, outputs.reshape(*leading, *outputs.shape[1:]))


def reflect_pad(images: Float[Array, "*B H W C"], padding: int) -> Float[Array, "*B H+2*{padding} W+2*{padding} C"]:
    """Continue images past their borders by their mirror image; the border itself is not repeated: ``cb|abc|ba``.

    Args:
      images: any leading dimensions.
      padding: rows on all sides; a k x k convolution without padding of its own keeps the size with (k - 1)/2.

    Raises:
      InputError: when the padding is not smaller than height and width.
    """
    if padding >= min(images.shape[-3:-1]):
        raise InputError(
            f"reflect_pad: padding={padding} for images of height and width {images.shape[-3:-1]}; a mirror image "
            "without its border has one row less: expected a padding smaller than both: use larger images."
        )
    lead = [(0, 0)] * (images.ndim - 3)
    return jnp.pad(images, [*lead, (padding, padding), (padding, padding), (0, 0)], mode="reflect")


def _space(name: str, kernel: Array, inputs: Array) -> int:
    space = kernel.ndim - 2
    if space < 1 or inputs.ndim < space + 1 or kernel.shape[-2] != inputs.shape[-1]:
        raise InputError(
            f"{name}: a kernel of shape {kernel.shape} and inputs of shape {inputs.shape} do not fit; expected a "
            "kernel [*K, C, D] and inputs [*B, *space, C] with the same C and as many spatial dimensions: transpose "
            "one of them."
        )
    return space


def _fold(inputs: Array, space: int) -> tuple[Array, tuple[int, ...]]:
    """Leading dimensions as one batch, and what they were."""
    return inputs.reshape(-1, *inputs.shape[-space - 1 :]), inputs.shape[: -space - 1]


def _add(bias: Array | None, outputs: Array) -> Array:
    return outputs if bias is None else outputs + jnp.broadcast_to(bias, outputs.shape)


class _Geometry(NamedTuple):
    """Of the convolution: x to y by W."""

    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    pads: tuple[tuple[int, int], ...]


def _apply(geometry: _Geometry, kernel: Array, inputs: Array) -> Array:
    axes = "XYZ"[: len(geometry.pads)]
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(geometry.stride,) * len(axes),
        padding=geometry.pads,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def _adjoint(linear: Callable[[Array], Array], shape: tuple[int, ...], cotangent: Array) -> Array:
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _strided(geometry: _Geometry, kernel: Array, inputs: Array) -> Array:
    """y of W and x."""
    return _apply(geometry, kernel, inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _transpose(geometry: _Geometry, kernel: Array, outputs: Array) -> Array:
    """x of W and y."""
    return _adjoint(lambda x: _apply(geometry, kernel, x), geometry.inputs, outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _correlate(geometry: _Geometry, inputs: Array, outputs: Array) -> Array:
    """W of x and y."""
    return _adjoint(lambda kernel: _apply(geometry, kernel, inputs), geometry.kernel, outputs)


_strided.defvjp(
    lambda geometry, kernel, inputs: (_strided(geometry, kernel, inputs), (kernel, inputs)),
    lambda geometry, saved, d_y: (_correlate(geometry, saved[1], d_y), _transpose(geometry, saved[0], d_y)),
)
_transpose.defvjp(
    lambda geometry, kernel, outputs: (_transpose(geometry, kernel, outputs), (kernel, outputs)),
    lambda geometry, saved, d_x: (_correlate(geometry, d_x, saved[1]), _strided(geometry, saved[0], d_x)),
)
_correlate.defvjp(
    lambda geometry, inputs, outputs: (_correlate(geometry, inputs, outputs), (inputs, outputs)),
    lambda geometry, saved, d_w: (_transpose(geometry, d_w, saved[1]), _strided(geometry, d_w, saved[0])),
)


def _convolve(geometry: _Geometry, kernel: Array, inputs: Array) -> Array:
    # Without a stride there is nothing between the pixels, and forward-mode derivatives, which a rule for reverse
    # mode rules out, stay possible.
    return (_apply if geometry.stride == 1 else _strided)(geometry, kernel, inputs)
