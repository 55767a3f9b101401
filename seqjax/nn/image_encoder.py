"""Images to grids of feature vectors, for decoders that look at them: convolutions trained with the decoder, or VGG."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from seqjax import compat
from seqjax.nn.vgg import VGG
from seqjax.ops.image import signed_images


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which network reads the image; the defaults are those of Show, Attend and Tell: 14 x 14 vectors of 512."""

    net: Literal["conv", "vgg16", "vgg19"] = "vgg19"
    """Convolutions of stride 2, which are trained with the rest, or VGG, whose published weights a recipe fills in."""
    layer: str = "relu5_4"
    """VGG: the layer that is read; relu7 is one place of 4096 features."""
    size: int = 224
    """Height and width of the images."""
    widths: tuple[int, ...] = (32, 64, 64)
    """Convolutions: features of each 3x3 layer."""

    @classmethod
    def tiny(cls) -> "EncoderConfig":
        """For tests: one layer, 2 x 2 places in images of 4."""
        return cls(net="conv", size=4, widths=(6,))


class ImageEncoder(nnx.Module):
    """Images to ``[B, H, W, D]``.

    "conv": ``a_ij = relu(conv(.. relu(conv(x))))_ij + p_ij`` with a learned vector p for each place, by which a decoder
    can tell where it looks. VGG has none: its zero padding gives places away. ``shape`` is ``(H, W, D)``.
    """

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config, size = config, config.size
        if config.net == "conv":
            side = -(-size // 2 ** len(config.widths))
            pairs = zip((3, *config.widths), config.widths, strict=False)
            self.convs = compat.List([nnx.Conv(c, d, (3, 3), strides=2, padding="SAME", rngs=rngs) for c, d in pairs])
            self.shape = (side, side, config.widths[-1])
            self.places = nnx.Param(jax.nn.initializers.normal(0.1)(rngs.params(), self.shape))
        else:
            depth: Literal[16, 19] = 16 if config.net == "vgg16" else 19
            self.vgg = VGG(depth, top=config.layer[-1] in "67", rngs=rngs)
            self.shape = jax.eval_shape(self._read, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)).shape[1:]

    def __call__(self, images: UInt8[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The grid.

        Raises:
          InputError: images of another size.
        """
        size = self.config.size
        x = signed_images("image", images, (size, size, 3))
        if self.config.net != "conv":
            return self._read(x)
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x + jnp.broadcast_to(self.places[...], x.shape)

    def _read(self, images: Array) -> Array:
        return self.vgg(images, [self.config.layer])[self.config.layer]
