"""Frames of a video to vectors and back: the convolutional encoders and decoders of video prediction, with skips.

Two backbones, for square frames of 4·2ⁿ pixels: "dcgan" halves by convolutions of stride 2 (4x4, features base · 1, 2,
4, 8, 8, ...), "vgg" by maxima over 2x2 after groups of 3x3 convolutions (2, 2, 3, 3, 3, ... of them). A 4x4 convolution
then turns the smallest map into one vector, bounded by tanh; the decoder is the mirror, and beside each map of its own
sees the encoder's of the same size. What does not move can pass there, so that the vector may be left to what does.

Source: Denton and Fergus, *Stochastic Video Generation with a Learned Prior*, 2018, section 4.1, and the released code;
at 64x64 with base=64 these are its networks.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.norm import Kind, Norm, has_bias

Backbone = Literal["dcgan", "vgg"]
Skips = tuple[Float[Array, "B _h _w _d"], ...]
"""The encoder's maps of each level, the largest first."""

STEM = 4
"""Side of the smallest map."""


class FrameEncoder(nnx.Module):
    """Frames to vectors in (-1, 1), and the skips.

    Args:
      size: side of the frames.
      channels: of the frames.
      features: numbers in a vector.
      backbone: which.
      base: features of the largest map.
      norm: after every convolution.
      rngs: for the parameters.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        features: int,
        *,
        backbone: Backbone = "dcgan",
        base: int = 64,
        norm: Kind = "batch",
        rngs: nnx.Rngs,
    ):
        widths, depths = _levels(size, base, backbone)
        self.backbone, levels = backbone, []
        for before, width, depth in zip((channels, *widths), widths, depths, strict=False):
            ins = [before, *[width] * (depth - 1)]
            levels.append(compat.List([_layer(c, width, backbone, norm, rngs) for c in ins]))
        self.levels = compat.List(levels)
        self.top = Conv(widths[-1], features, STEM, padding=0, bias=not has_bias(norm), rngs=rngs)
        self.top_norm = Norm(norm, features, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "B H W C"], *, running: bool = False
    ) -> tuple[Float[Array, "B D"], tuple[Float[Array, "B _h _w _d"], ...]]:
        """The vectors and the skips.

        Args:
          frames: in [0, 1].
          running: whether batch normalisation takes its running averages, so that no frame sees another.
        """
        x, skips = frames, []
        for level in self.levels:
            for layer in level:
                x = layer(x, running=running)
            skips.append(x)
            x = nnx.max_pool(x, (2, 2), (2, 2)) if self.backbone == "vgg" else x
        return jnp.tanh(self.top_norm(self.top(x), running=running))[:, 0, 0], tuple(skips)


class FrameDecoder(nnx.Module):
    """Vectors and skips to frames in [0, 1]; arguments as of `FrameEncoder`."""

    def __init__(
        self,
        size: int,
        channels: int,
        features: int,
        *,
        backbone: Backbone = "dcgan",
        base: int = 64,
        norm: Kind = "batch",
        rngs: nnx.Rngs,
    ):
        widths, depths = _levels(size, base, backbone)
        self.backbone, levels = backbone, []
        self.stem = Layer(
            ConvTranspose(features, widths[-1], STEM, stride=1, padding=0, bias=not has_bias(norm), rngs=rngs),
            Norm(norm, widths[-1], rngs=rngs),
        )
        for width, depth, after in zip(widths[::-1], depths[::-1], [*widths[-2::-1], 0], strict=True):
            outs = [*[width] * (depth - 1), *([after] if after else [])]
            ins = [2 * width, *outs]
            levels.append(
                compat.List([_layer(c, d, backbone, norm, rngs, up=True) for c, d in zip(ins, outs, strict=False)])
            )
        self.levels = compat.List(levels)
        last = widths[0] * (2 if depths[0] == 1 else 1)
        if backbone == "dcgan":
            self.frame: nnx.Module = ConvTranspose(last, channels, 4, bias=False, rngs=rngs)
        else:
            self.frame = Conv(last, channels, 3, bias=False, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(
        self, h: Float[Array, "B D"], skips: tuple[Float[Array, "B _h _w _d"], ...], *, running: bool = False
    ) -> Float[Array, "B H W C"]:
        """The frames, in float32.

        Args:
          h: vectors.
          skips: of the encoder, for frames of the same scene.
          running: as for the encoder.
        """
        x = self.stem(h[:, None, None], running=running)
        for level, skip in zip(self.levels, skips[::-1], strict=True):
            x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) if self.backbone == "vgg" else x
            x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            for layer in level:
                x = layer(x, running=running)
        # In float32: the gradient of this bias is a sum over all pixels.
        logits = self.frame(x).astype(jnp.float32)
        return jax.nn.sigmoid(logits + jnp.broadcast_to(self.bias[...].astype(jnp.float32), logits.shape))


class Layer(nnx.Module):
    """A convolution, normalisation, and leaky ReLU (0.2)."""

    def __init__(self, conv: Conv | ConvTranspose, norm: Norm):
        self.conv, self.norm = conv, norm

    def __call__(self, x: Float[Array, "B H W C"], *, running: bool = False) -> Float[Array, "B h w D"]:
        """The activations."""
        return jax.nn.leaky_relu(self.norm(self.conv(x), running=running), 0.2)


def _layer(channels: int, width: int, backbone: Backbone, norm: Kind, rngs: nnx.Rngs, *, up: bool = False) -> Layer:
    bias = not has_bias(norm)
    if backbone == "vgg":
        conv: Conv | ConvTranspose = Conv(channels, width, 3, bias=bias, rngs=rngs)
    elif up:
        conv = ConvTranspose(channels, width, 4, bias=bias, rngs=rngs)
    else:
        conv = Conv(channels, width, 4, stride=2, bias=bias, rngs=rngs)
    return Layer(conv, Norm(norm, width, rngs=rngs))


def _levels(size: int, base: int, backbone: Backbone) -> tuple[list[int], list[int]]:
    """Features and layers of each level, the largest first."""
    number = (size // STEM).bit_length() - 1
    if number < 1 or STEM * 2**number != size:
        raise InputError(
            f"size: got {size}; a {backbone} encoder takes square frames of {STEM}·2ⁿ pixels, such as 32, 64 or 128: "
            "choose a data set of that size, or resize its frames."
        )
    widths = [base * min(2**i, 8) for i in range(number)]
    return widths, [1 if backbone == "dcgan" else 2 if i < 2 else 3 for i in range(number)]
