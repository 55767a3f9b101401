"""The convolutions of VGG-16 and VGG-19, whose activations perceptual and style losses compare.

K. Simonyan and A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, 2015, configurations
D and E. The classifier on top is left out. Layers are named as the field does: "conv3_2" is the second convolution of
the third group before its ReLU, "relu3_2" after it, "pool3" the maximum over 2x2 that ends the group.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.image import signed_to_unit

_GROUPS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
# Of ImageNet's pixels in [0, 1], by channel.
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG(nnx.Module):
    """The network without its classifier.

    Args:
      depth: 16 or 19.
      shrink: what every width is divided by: 1 as published, up to 64 for tests.
      rngs: of the parameters, which published weights replace.
    """

    def __init__(self, depth: Literal[16, 19] = 16, *, shrink: int = 1, rngs: nnx.Rngs):
        if depth not in _GROUPS:
            raise InputError(f"VGG: depth={depth}; expected one of {', '.join(map(str, _GROUPS))}.")
        self.depth, channels = depth, 3
        for name in self.names():
            if name.startswith("conv"):
                width = _WIDTHS[int(name[4]) - 1] // shrink
                setattr(self, name, nnx.Conv(channels, width, (3, 3), padding=((1, 1), (1, 1)), rngs=rngs))
                channels = width

    def names(self) -> Iterator[str]:
        """All layers, in order."""
        for group, number in enumerate(_GROUPS[self.depth], 1):
            for k in range(1, number + 1):
                yield f"conv{group}_{k}"
                yield f"relu{group}_{k}"
            yield f"pool{group}"

    def __call__(self, images: Float[Array, "B H W 3"], layers: Sequence[str]) -> dict[str, Float[Array, "B H2 W2 D"]]:
        """Activations of the named layers; nothing above the last of them is computed.

        Args:
          images: in [-1, 1]; they are normalised here by ImageNet's mean and deviation, as torchvision's weights want.
          layers: names such as "relu3_1".

        Raises:
          InputError: a name that the network does not have.
        """
        names, wanted = list(self.names()), set(layers)
        if unknown := wanted - set(names):
            raise InputError(f"layers: VGG-{self.depth} has no {sorted(unknown)}; expected among {', '.join(names)}.")
        found: dict[str, Array] = {}
        h = normalise(images)
        for name in names:
            if len(found) == len(wanted):
                break
            if name.startswith("conv"):
                h = getattr(self, name)(h)
            else:
                h = jax.nn.relu(h) if name.startswith("relu") else nnx.max_pool(h, (2, 2), (2, 2))
            if name in wanted:
                found[name] = h
        return found


def normalise(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """[-1, 1] to what networks trained on ImageNet by torchvision take: ``(x - mean) / sd`` of [0, 1], by channel."""
    mean, sd = (jnp.asarray(row, images.dtype).reshape(1, 1, 1, 3) for row in (_MEAN, _SD))
    return (signed_to_unit(images) - mean) / sd
