"""A discriminator that scores an image as a whole, by convolutions of stride 2 (Radford et al., 2016)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.nn.convolution import Conv
from seqjax.nn.norm import Kind, Norm, has_bias


class GlobalDiscriminator(nnx.Module):
    """Convolutions of stride 2, leaky ReLU (0.2) after each, and one over the whole of the smallest map: a logit.

    Args:
      channels: of the images.
      widths: features of each convolution.
      kernels: sides of their kernels.
      stem: side of the smallest map, or its height and width.
      norm: after each but the first and the last.
      classes: classes whose one-hot label every layer is given as constant maps; 0 for none.
      bias: whether the first and the last have one.
      rngs: for the parameters.

    Source: Radford, Metz, Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks*, 2016, section 3.
    """

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int],
        kernels: Sequence[int],
        stem: int | tuple[int, int],
        norm: Kind = "batch",
        classes: int = 0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        kinds: list[Kind] = ["none", *[norm] * (len(widths) - 1)]
        downs: list[Conv] = []
        before = channels
        for width, kernel, kind in zip(widths, kernels, kinds, strict=True):
            biased = bias if kind == "none" and not downs else not has_bias(kind)
            # As PyTorch pads: a kernel of 5 has two zeros on each side, not one and two.
            padding = (kernel - 1) // 2
            downs.append(Conv(before + classes, width, kernel, stride=2, padding=padding, bias=biased, rngs=rngs))
            before = width
        self.downs = compat.List(downs)
        self.norms = compat.List([Norm(kind, width, rngs=rngs) for kind, width in zip(kinds, widths, strict=True)])
        self.logit = Conv(before + classes, 1, stem, padding=0, bias=bias, rngs=rngs)

    def features(
        self, images: Float[Array, "B H W C"], labels: Float[Array, "B K"] | None = None
    ) -> list[Float[Array, "B _h _w _D"]]:
        """The maps of every layer but the last."""
        maps, x = [], images
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(down(with_label(x, labels))), 0.2)
            maps.append(x)
        return maps

    def score(
        self, maps: list[Float[Array, "B _h _w _D"]], labels: Float[Array, "B K"] | None = None
    ) -> Float[Array, " B"]:
        """The logits, from the features."""
        return self.logit(with_label(maps[-1], labels))[:, 0, 0, 0]

    def __call__(
        self, images: Float[Array, "B H W C"], labels: Float[Array, "B K"] | None = None
    ) -> Float[Array, " B"]:
        """The logits; with batch normalisation they are of this batch, so give real and generated images apart."""
        return self.score(self.features(images, labels), labels)


def with_label(x: Float[Array, "B H W C"], labels: Float[Array, "B K"] | None) -> Float[Array, "B H W D"]:
    """Feature maps, and one-hot labels beside them as constant maps."""
    if labels is None:
        return x
    maps = jnp.broadcast_to(labels[:, None, None], (*x.shape[:3], labels.shape[1]))
    return jnp.concatenate([x, maps.astype(x.dtype)], axis=-1)
