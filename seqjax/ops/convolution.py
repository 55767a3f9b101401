"""Convolutions padded as the published networks pad: by number, where "SAME" would put its zeros elsewhere.

PyTorch's layers name a padding ``p`` that goes on both sides; JAX's and TensorFlow's "SAME" pads the less before and
the more after. They are one in a 4x4 convolution of stride 2 over even images, and in few others:

    layer                                      zeros here           "SAME"
    3x3, stride 2, p 1, even image             (1, 1)               (0, 1): one pixel aside
    4x4, stride 1, p 1 (end of PatchGAN)       (1, 1), output n-1   (1, 2), output n
    3x3 transposed, stride 2, p 1, output 1    (1, 2)               (2, 1)

Kernels are ``[*K, C, D]``, images ``[*B, *space, C]``, of one to three spatial dimensions, as in `linear.affine`, which
is the map for stride 1 and "SAME". A PyTorch weight ``[D, C, *K]`` of a convolution is such a kernel with its axes
moved; one ``[C, D, *K]`` of a transposed convolution must be flipped along ``*K`` too.
"""

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
    return _convolve(bias, kernel, inputs, strides=(stride,) * space, pads=pads, dilation=(1,) * space)


def conv_transpose(
    bias: Float[Array, " D"] | None,
    kernel: Float[Array, "... C D"],
    inputs: Float[Array, "... C"],
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> Float[Array, "... D"]:
    """The transposed convolution of PyTorch's ``ConvTranspose1d``, ``2d`` and ``3d``, with the kernel as it is applied.

    ``stride - 1`` zeros go between the pixels, ``k - 1 - padding`` before them and ``k - 1 - padding +
    output_padding`` after; over that the kernel slides with stride 1. A spatial dimension of n becomes
    ``(n - 1) stride - 2 padding + k + output_padding``.

    Args:
      bias: ``b``; None where a normalisation follows.
      kernel: ``[*K, C, D]``, from the inputs' C to the outputs' D.
      inputs: ``[*B, *space, C]``; any leading dimensions.
      stride: how far neighbouring inputs are apart in the output, in every direction.
      padding: how many rows of the full output are left away on all sides.
      output_padding: how many of those at the end come back.

    Raises:
      InputError: when kernel and inputs disagree on ``C`` or on the number of dimensions; when output_padding is
        not smaller than the stride.
    """
    space = _space("conv_transpose", kernel, inputs)
    if not 0 <= output_padding < stride:
        raise InputError(
            f"conv_transpose: output_padding={output_padding} with stride={stride}; expected 0 up to stride - 1, the "
            "rows that a convolution of this stride can leave over: choose another."
        )
    pads = tuple((k - 1 - padding, k - 1 - padding + output_padding) for k in kernel.shape[:space])
    return _convolve(bias, kernel, inputs, strides=(1,) * space, pads=pads, dilation=(stride,) * space)


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


def _convolve(
    bias: Array | None,
    kernel: Array,
    inputs: Array,
    *,
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Array:
    space = len(strides)
    axes = "XYZ"[:space]
    outputs = jax.lax.conv_general_dilated(
        inputs.reshape(-1, *inputs.shape[-space - 1 :]),
        kernel,
        window_strides=strides,
        padding=pads,
        lhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )
    outputs = outputs.reshape(*inputs.shape[: -space - 1], *outputs.shape[1:])
    return outputs if bias is None else outputs + jnp.broadcast_to(bias, outputs.shape)
