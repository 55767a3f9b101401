"""Convolutions with their parameters, as adversarial networks start and pad them."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from seqjax.ops import convolution

NORMAL = jax.nn.initializers.normal(0.02)
"""What DCGAN starts kernels from, and after it pix2pix and CycleGAN."""


class Conv(nnx.Module):
    """``b + W * x`` (`ops.convolution.conv`) with a square kernel, and zeros or a mirror image around the input.

    Args:
      channels: C of the inputs.
      features: D of the outputs.
      kernel: side of the kernel, or its height and width.
      stride: of the kernel's steps.
      padding: rows on each side; by default as many as make an even size n, at any kernel, n / stride.
      border: what they hold.
      bias: whether there is a ``b``; none where a normalisation with a bias of its own follows.
      start: what the kernel is drawn from; N(0, 0.02²) unless said.
      rngs: for the kernel.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | None = None,
        border: Literal["zeros", "reflect"] = "zeros",
        bias: bool = True,
        start: Initializer = NORMAL,
        rngs: nnx.Rngs,
    ):
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.kernel = nnx.Param(start(rngs.params(), (*sides, channels, features)))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None
        self.stride, self.border = stride, border
        self.padding = tuple(_even(side, stride) if padding is None else (padding, padding) for side in sides)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The features."""
        padding = self.padding
        if self.border == "reflect":
            x, padding = convolution.reflect_pad(x, self.padding[0][0]), ((0, 0), (0, 0))
        return convolution.conv(_value(self.bias), self.kernel[...], x, stride=self.stride, padding=padding)


class ConvTranspose(nnx.Module):
    """The transposed convolution (`ops.convolution.conv_transpose`) that makes n rows of them n · stride.

    Args:
      channels: C of the inputs.
      features: D of the outputs.
      kernel: side of the kernel ``[kernel, kernel, D, C]``.
      stride: how far neighbouring inputs are apart in the output.
      padding: rows of the full output left away on each side; by default those of the convolution of this stride.
      output_padding: of those, how many come back at the end.
      bias: whether there is a ``b``.
      rngs: for the kernel, N(0, 0.02²).
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int,
        *,
        stride: int = 2,
        padding: int | None = None,
        output_padding: int = 0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(NORMAL(rngs.params(), (kernel, kernel, features, channels)))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None
        self.stride, self.output_padding = stride, output_padding
        self.padding = _even(kernel, stride) if padding is None else (padding, padding)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The features."""
        return convolution.conv_transpose(
            _value(self.bias),
            self.kernel[...],
            x,
            stride=self.stride,
            padding=(self.padding, self.padding),
            output_padding=self.output_padding,
        )


def _even(kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, the fewer before: TensorFlow's "SAME" for sizes that the stride divides."""
    total = max(kernel - stride, 0)
    return total // 2, total - total // 2


def _value(bias: nnx.Param | None) -> Array | None:
    return None if bias is None else bias[...]
