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
``⟨y, W * x⟩``, so that the derivatives of each, forward or reverse and at any order, are the other two. JAX's own are
the same in value, and slow on CPU in loops over time, in branches, and for the kernel of a transposed convolution;
`convolution_cpu` has the three for that backend.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops import convolution_cpu
from seqjax.ops.convolution_cpu import Geometry, adjoint, plain
from seqjax.ops.softmax import wide


def conv(
    bias: Float[Array, " D"] | None,
    kernel: Float[Array, "... C D"],
    inputs: Float[Array, "... C"],
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[tuple[int, int], ...] = 0,
) -> Float[Array, "... D"]:
    """``b + W * x``: the cross-correlation that PyTorch's ``Conv1d``, ``Conv2d`` and ``Conv3d`` compute.

    A spatial dimension of n becomes ``⌊(n + 2 padding - k) / stride⌋ + 1``.

    Args:
      bias: ``b``; None where a normalisation follows.
      kernel: ``W [*K, C, D]``.
      inputs: ``x [*B, *space, C]``; any leading dimensions.
      stride: in every direction, or for each spatial dimension.
      padding: rows of zeros on all sides, or (before, after) for each spatial dimension.

    Raises:
      InputError: when kernel and inputs disagree on ``C`` or on the number of dimensions.
    """
    space = _space("conv", kernel, inputs)
    pads = ((padding, padding),) * space if isinstance(padding, int) else padding
    images, leading = _fold(inputs.astype(kernel.dtype), space)
    strides = (stride,) * space if isinstance(stride, int) else stride
    geometry = Geometry(images.shape, kernel.shape, strides, pads)
    outputs = _CONV.bind(kernel, images, geometry=geometry)
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
    outputs = _TRANSPOSE.bind(kernel, images, geometry=Geometry(shape, kernel.shape, (stride,) * space, pads))
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
    if bias is None:
        return outputs
    # The gradient of a bias is a sum over all pixels, which half precision would cut short.
    dtype = wide(outputs)
    return (outputs.astype(dtype) + jnp.broadcast_to(bias.astype(dtype), outputs.shape)).astype(outputs.dtype)


def _strided(kernel: Array, inputs: Array, *, geometry: Geometry) -> Array:
    """y of W and x."""
    if jax.default_backend() == "cpu":
        return convolution_cpu.strided(kernel, inputs, geometry=geometry)
    return plain(inputs, kernel, geometry.pads, stride=geometry.stride)


def _transposed(kernel: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """x of W and y."""
    if jax.default_backend() == "cpu":
        return convolution_cpu.transposed(kernel, outputs, geometry=geometry)
    return adjoint(lambda x: _strided(kernel, x, geometry=geometry), geometry.inputs, outputs)


def _correlated(inputs: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """W of x and y."""
    if jax.default_backend() == "cpu":
        return convolution_cpu.correlated(inputs, outputs, geometry=geometry)
    return adjoint(lambda kernel: _strided(kernel, inputs, geometry=geometry), geometry.kernel, outputs)


def _primitive(compute: Callable[..., Array]) -> Primitive:
    """What jax differentiates, batches and compiles as one operation."""
    primitive = Primitive(f"convolution{compute.__name__}")

    def shape(*arrays: Any, geometry: Geometry) -> jax.core.ShapedArray:
        found = jax.eval_shape(functools.partial(compute, geometry=geometry), *arrays)
        return jax.core.ShapedArray(found.shape, found.dtype)

    def batch(arrays: tuple[Array, ...], axes: tuple[int | None, ...], *, geometry: Geometry) -> tuple[Array, int]:
        return jax.vmap(functools.partial(compute, geometry=geometry), in_axes=axes)(*arrays), 0

    primitive.def_impl(jax.jit(compute, static_argnames="geometry"))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive


_CONV, _TRANSPOSE, _KERNEL = map(_primitive, (_strided, _transposed, _correlated))
ad.defbilinear(
    _CONV,
    lambda d_y, _, x, geometry: _KERNEL.bind(x, d_y, geometry=geometry),
    lambda d_y, kernel, _, geometry: _TRANSPOSE.bind(kernel, d_y, geometry=geometry),
)
ad.defbilinear(
    _TRANSPOSE,
    lambda d_x, _, y, geometry: _KERNEL.bind(d_x, y, geometry=geometry),
    lambda d_x, kernel, _, geometry: _CONV.bind(kernel, d_x, geometry=geometry),
)
ad.defbilinear(
    _KERNEL,
    lambda d_w, _, y, geometry: _TRANSPOSE.bind(d_w, y, geometry=geometry),
    lambda d_w, x, _, geometry: _CONV.bind(d_w, x, geometry=geometry),
)
