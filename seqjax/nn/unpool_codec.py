"""Encoders by pooling and decoders by unpooling, and a discriminator of whole clips (Villegas et al., 2017).

`Encoder` has groups of convolutions, each followed by a pool over 2x2; `Decoder` is its mirror, whose groups follow an
unpooling that leaves zeros between the values, with or without residual maps from encoders. Nothing is normalised in
either; kernels start Glorot-uniform, biases at zero.

Source: Villegas, Yang, Hong, Lin, Lee, *Decomposing Motion and Content for Natural Video Sequence Prediction*, 2017,
section 3, and the released code; the decoder without residual maps, and the discriminator of a single frame on its
condition, are those of Villegas et al., *Learning to Generate Long-term Future via Hierarchical Prediction*, 2017.
"""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv
from seqjax.nn.global_discriminator import GlobalDiscriminator
from seqjax.nn.norm import Kind
from seqjax.ops.image import unpool

GLOROT = jax.nn.initializers.glorot_uniform()


class Encoder(nnx.Module):
    """Images to the maps above the last pool, and those before each pool.

    Args:
      channels: of the images.
      widths: features of each scale, the largest map first.
      convolutions: how many each scale has.
      kernels: sides of their kernels, by scale.
      rngs: for the parameters.
    """

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int] = (64, 128, 256),
        convolutions: Sequence[int] = (2, 2, 3),
        kernels: Sequence[int] = (3, 3, 3),
        rngs: nnx.Rngs,
    ):
        scales, before = [], channels
        for width, number, kernel in zip(widths, convolutions, kernels, strict=True):
            ins = [before, *[width] * (number - 1)]
            scales.append(compat.List([Conv(c, width, kernel, start=GLOROT, rngs=rngs) for c in ins]))
            before = width
        self.scales = compat.List(scales)

    def __call__(
        self, images: Float[Array, "B H W C"]
    ) -> tuple[Float[Array, "B _h _w _D"], tuple[Float[Array, "B _h _w _D"], ...]]:
        """The top and the skips, the largest first.

        Raises:
          InputError: images that do not halve as often as there are scales.
        """
        whole = 2 ** len(self.scales)
        if images.shape[1] % whole or images.shape[2] % whole:
            raise InputError(
                f"images: {images.shape[1]}x{images.shape[2]} came, and {len(self.scales)} poolings over 2x2 want "
                f"multiples of {whole}: choose a data set of such a size, or resize its frames."
            )
        x, skips = images, []
        for scale in self.scales:
            for conv in scale:
                x = jax.nn.relu(conv(x))
            skips.append(x)
            x = nnx.max_pool(x, (2, 2), (2, 2))
        return x, tuple(skips)


class Decoder(nnx.Module):
    """Maps of ``widths[-1]`` features to images.

    Args:
      channels: of the images.
      output: what they end in: tanh, within (-1, 1), or nothing.
      widths: features of each scale, the largest map first, as the encoder's.
      convolutions: how many each scale has, 3x3; the last of a scale makes the features of the next.
      rngs: for the parameters.
    """

    def __init__(
        self,
        channels: int,
        *,
        output: Literal["tanh", "linear"] = "tanh",
        widths: Sequence[int] = (64, 128, 256),
        convolutions: Sequence[int] = (2, 2, 3),
        rngs: nnx.Rngs,
    ):
        self.output, scales = output, []
        for below, width, number in zip((channels, *widths), widths, convolutions, strict=False):
            outs = [*[width] * (number - 1), below]
            scales.append(compat.List([Conv(width, d, 3, start=GLOROT, rngs=rngs) for d in outs]))
        self.scales = compat.List(scales)

    def __call__(
        self, top: Float[Array, "B _h _w _D"], residuals: Sequence[Float[Array, "B _h _w _D"]] | None = None
    ) -> Float[Array, "B H W C"]:
        """The images, in float32.

        Args:
          top: features, at the size of the encoder's top.
          residuals: maps to be added after each unpooling, at the sizes and widths of the encoder's skips and in
            their order; None for a decoder that sees nothing but the top.
        """
        x = top
        for i in reversed(range(len(self.scales))):
            x = unpool(x) if residuals is None else jax.nn.relu(unpool(x) + residuals[i])
            for conv in self.scales[i][:-1]:
                x = jax.nn.relu(conv(x))
            x = self.scales[i][-1](x)
            x = jax.nn.relu(x) if i else x
        x = x.astype(jnp.float32)
        return jnp.tanh(x) if self.output == "tanh" else x


class SequenceDiscriminator(nnx.Module):
    """A logit for a clip, whose frames are stacked in the channels: 5x5 convolutions of stride 2, and a dense layer.

    It keeps the mean losses on real and on generated clips that it last had (`errors`), from which `ops.gan.turns`
    tells who plays next.

    Args:
      channels: of all frames of a clip together, and of what they are stacked on.
      size: height and width of the frames.
      widths: features of the convolutions.
      norm: after each but the first.
      rngs: for the parameters, which start as DCGAN's.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        norm: Kind = "batch",
        rngs: nnx.Rngs,
    ):
        height, width = (math.ceil(side / 2 ** len(widths)) for side in size)
        kernels = (5,) * len(widths)
        self.stacked = GlobalDiscriminator(
            channels, widths=widths, kernels=kernels, stem=(height, width), norm=norm, rngs=rngs
        )
        # Where nobody has learnt anything yet both play.
        self.errors = nnx.Variable(jnp.full(2, math.log(2)))

    def __call__(self, clips: Float[Array, "B T H W C"]) -> Float[Array, " B"]:
        """The logits; batch normalisation is of this batch, so give real and generated clips apart."""
        frames = jnp.moveaxis(clips, 1, 3)
        return self.stacked(frames.reshape(*frames.shape[:3], -1))

    def remember(self, real: Float[Array, " B"], fake: Float[Array, " N"]) -> None:
        """Keep the means of the losses of `ops.gan.non_saturating`'s discriminator on both, from their logits."""
        losses = jnp.stack([jnp.mean(jax.nn.softplus(-real)), jnp.mean(jax.nn.softplus(fake))])
        self.errors[...] = jax.lax.stop_gradient(losses.astype(jnp.float32))
