"""PatchGAN: a discriminator that scores overlapping patches of an image (Isola et al., 2017)."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.nn.convolution import Conv
from seqjax.nn.norm import Kind, Norm, has_bias


class PatchDiscriminator(nnx.Module):
    """Logits of patches, ``[B, h, w, 1]``.

    4x4 convolutions, zeros on one row around: 64 features at stride 2, not normalised, then ``layers - 1`` more at
    stride 2, one at stride 1, each with twice the features of the last up to 8 times, and a last one at stride 1; leaky
    ReLU (0.2) between. Each logit sees a square of side 16, 34, 70, 142, 286 for 1 to 5 layers; an image of 256 gives
    30x30 logits at 3. ``layers=0`` is the pixel discriminator, of 1x1 convolutions.

    Args:
      channels: of the images, those of a condition before them counted.
      layers: convolutions of stride 2.
      base: features of the first.
      norm: of all but the first and the last.
      rngs: for the parameters.

    Source: Isola, Zhu, Zhou, Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, 2017, section
    6.1.2.
    """

    def __init__(self, channels: int, *, layers: int = 3, base: int = 64, norm: Kind = "batch", rngs: nnx.Rngs):
        kernel, padding = (1, 0) if layers == 0 else (4, 1)
        features = [min(2**i, 8) * base for i in range(max(layers, 1) + 1)]
        strides = [2] * layers + [1] * (len(features) - layers)
        convs, norms, before = [], [], channels
        for i, (width, stride) in enumerate(zip(features, strides, strict=True)):
            bias = i == 0 or not has_bias(norm)
            convs.append(Conv(before, width, kernel, stride=stride, padding=padding, bias=bias, rngs=rngs))
            norms.append(Norm(norm if i else "none", width, rngs=rngs))
            before = width
        last = layers > 0 or not has_bias(norm)
        self.convs, self.norms = compat.List(convs), compat.List(norms)
        self.logits = Conv(before, 1, kernel, padding=padding, bias=last, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w 1"]:
        """The logits."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), 0.2)
        return self.logits(x)
