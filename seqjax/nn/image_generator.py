"""A generator of images by transposed convolutions (Radford et al., 2016): a vector to a small map, doubled up."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv, ConvTranspose
from seqjax.nn.global_discriminator import with_label
from seqjax.nn.norm import Norm

Upsample = Literal["transposed", "nearest"]
"""How maps are doubled: by transposed convolutions, or by nearest neighbours and 3x3 convolutions."""


class ImageGenerator(nnx.Module):
    """Vectors to images in [-1, 1]; batch normalisation and ReLU after every layer but the last.

    Args:
      size: side of the images: a power of two times ``stem``.
      channels: of the images.
      latent: numbers in a vector.
      stem: side of the smallest map.
      base: features of the largest map; each halving doubles them.
      kernel: side of the kernels.
      upsample: how maps are doubled.
      classes: classes whose one-hot label every layer is given as constant maps; 0 for none.
      rngs: for the parameters.

    Source: Radford, Metz, Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks*, 2016, section 3.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        latent: int,
        *,
        stem: int = 4,
        base: int = 64,
        kernel: int = 4,
        upsample: Upsample = "transposed",
        classes: int = 0,
        rngs: nnx.Rngs,
    ):
        widths = [base * 2**i for i in reversed(range(doublings(size, stem)))]
        before = [width + classes for width in widths]
        self.kernel, self.upsample = kernel, upsample
        options: dict[str, Any] = {"bias": False, "rngs": rngs}
        self.stem = ConvTranspose(latent + classes, widths[0], stem, stride=1, padding=0, **options)
        self.norms = compat.List([Norm("batch", width, rngs=rngs) for width in widths])
        after = [*widths[1:], channels]
        self.ups = compat.List([self._double(c, d, options) for c, d in zip(before, after, strict=True)])

    def _double(self, channels: int, features: int, options: dict[str, Any]) -> nnx.Module:
        if self.upsample == "nearest":
            return Conv(channels, features, 3, **options)
        padding, odd = (self.kernel - 1) // 2, self.kernel % 2
        return ConvTranspose(channels, features, self.kernel, padding=padding, output_padding=odd, **options)

    def __call__(
        self, z: Float[Array, "B Z"], labels: Float[Array, "B K"] | None = None, *, running: bool = False
    ) -> Float[Array, "B S S C"]:
        """The images.

        Args:
          z: latent vectors.
          labels: one-hot, for the conditional network.
          running: whether to normalise by running averages: so every image is its latent vector's alone.
        """
        x = self.stem(with_label(z[:, None, None], labels))
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = with_label(jax.nn.relu(norm(x, running=running)), labels)
            x = up(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) if self.upsample == "nearest" else x)
        return jnp.tanh(x)


def doublings(size: int, stem: int) -> int:
    """How often the stem is doubled up to the size.

    Raises:
      InputError: it is no such power of two.
    """
    number = (size // stem).bit_length() - 1
    if number < 1 or stem * 2**number != size:
        raise InputError(
            f"size: got {size} and a stem of {stem}; expected the stem doubled once or more, such as {stem * 8}: set "
            "model.size or model.stem."
        )
    return number
