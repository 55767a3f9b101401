"""The generator of residual blocks of image translation (Johnson et al., 2016; Zhu et al., 2017)."""

import itertools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.norm import Kind, Norm, has_bias
from seqjax.ops.compose import dropout_mask


class ResidualBlock(nnx.Module):
    """``x + norm(conv(relu(norm(conv(x)))))``, 3x3 over mirrored borders, with dropout between if there is any."""

    def __init__(self, features: int, *, norm: Kind, dropout: float = 0.0, rngs: nnx.Rngs):
        def conv() -> Conv:
            return Conv(features, features, 3, padding=1, border="reflect", bias=not has_bias(norm), rngs=rngs)

        self.convs = compat.List([conv(), conv()])
        self.norms = compat.List([Norm(norm, features, rngs=rngs), Norm(norm, features, rngs=rngs)])
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None, running: bool = False
    ) -> Float[Array, "B H W C"]:
        """The block's outputs."""
        h = jax.nn.relu(self.norms[0](self.convs[0](x), running=running))
        if key is not None and self.dropout:
            h = h * dropout_mask(key, self.dropout, h.shape, h.dtype)
        return x + self.norms[1](self.convs[1](h), running=running)


class Upsample(nnx.Module):
    """Twice the size: a transposed 3x3 convolution, or each pixel four times and a 3x3 convolution.

    The first is the published one; the second leaves no chequered pattern.
    """

    def __init__(
        self, channels: int, features: int, kind: Literal["transposed", "nearest"], bias: bool, rngs: nnx.Rngs
    ):
        conv: Conv | ConvTranspose
        if kind == "transposed":
            conv = ConvTranspose(channels, features, 3, padding=1, output_padding=1, bias=bias, rngs=rngs)
        else:
            conv = Conv(channels, features, 3, bias=bias, rngs=rngs)
        self.kind, self.conv = kind, conv

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The larger maps."""
        if self.kind == "nearest":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return self.conv(x)


class ResidualGenerator(nnx.Module):
    """7x7 convolution, halvings with twice the features, residual blocks, doublings, 7x7 convolution and tanh.

    Args:
      channels: of the input.
      outputs: channels of the output.
      blocks: residual blocks: 9 for images of 256, 6 for 128.
      base: features of the first convolution.
      downs: halvings.
      norm: after every convolution but the last.
      dropout: rate inside of the blocks.
      upsample: how to double.
      rngs: for the parameters.

    Sources: Johnson, Alahi, Fei-Fei, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, 2016; Zhu,
    Park, Isola, Efros, *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks*, 2017, section
    7.2.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        blocks: int = 9,
        base: int = 64,
        downs: int = 2,
        norm: Kind = "instance",
        dropout: float = 0.0,
        upsample: Literal["transposed", "nearest"] = "transposed",
        rngs: nnx.Rngs,
    ):
        bias = not has_bias(norm)
        widths = [base * 2**i for i in range(downs + 1)]
        pairs = list(itertools.pairwise(widths))
        self.first = Conv(channels, base, 7, padding=3, border="reflect", bias=bias, rngs=rngs)
        self.down = compat.List([Conv(c, d, 3, stride=2, padding=1, bias=bias, rngs=rngs) for c, d in pairs])
        self.blocks = compat.List(
            [ResidualBlock(widths[-1], norm=norm, dropout=dropout, rngs=rngs) for _ in range(blocks)]
        )
        self.up = compat.List([Upsample(d, c, upsample, bias=bias, rngs=rngs) for c, d in reversed(pairs)])
        self.last = Conv(base, outputs, 7, padding=3, border="reflect", rngs=rngs)
        self.norms = compat.List([Norm(norm, width, rngs=rngs) for width in widths + widths[-2::-1]])

    def __call__(
        self, images: Float[Array, "B H W C"], *, key: PRNGKeyArray | None = None, running: bool = False
    ) -> Float[Array, "B H W D"]:
        """The translation, in [-1, 1].

        Args:
          images: of a size that the halvings divide.
          key: for the dropout; None for none.
          running: whether batch normalisation takes its running averages and not the statistics of the batch.

        Raises:
          InputError: for another size.
        """
        step = 2 ** len(self.down)
        if any(size % step for size in images.shape[1:3]):
            raise InputError(
                f"images: {images.shape[1]}x{images.shape[2]} came, and a generator of {len(self.down)} halvings takes "
                f"multiples of {step}: resize or crop them."
            )
        x = images
        around = [self.first, *self.down, *self.up]
        for i, (conv, norm) in enumerate(zip(around, self.norms, strict=True)):
            x = jax.nn.relu(norm(conv(x), running=running))
            if i == len(self.down):
                for j, block in enumerate(self.blocks):
                    x = block(x, key=None if key is None else jax.random.fold_in(key, j), running=running)
        return jnp.tanh(self.last(x))
