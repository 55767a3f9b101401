"""VGG-16 and VGG-19, whose activations perceptual and style losses compare and captioners read.

K. Simonyan and A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, 2015, configurations
D and E. Layers are named as the field does: "conv3_2" is the second convolution of the third group before its ReLU,
"relu3_2" after it, "pool3" the maximum over 2x2 that ends the group; "fc6" and "fc7" are the dense layers on top, here
as convolutions of 7x7 and 1x1, which images of 224 give one place. The last layer, of ImageNet's classes, is left out.
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
_WIDTHS, _TOP = (64, 128, 256, 512, 512), 4096
# Of ImageNet's pixels in [0, 1], by channel.
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG(nnx.Module):
    """The network without its classes.

    Args:
      depth: 16 or 19.
      top: whether it has "fc6" and "fc7", nine tenths of all parameters.
      shrink: what every width is divided by: 1 as published, up to 64 for tests.
      rngs: of the parameters, which published weights replace.
    """

    def __init__(self, depth: Literal[16, 19] = 16, *, top: bool = False, shrink: int = 1, rngs: nnx.Rngs):
        if depth not in _GROUPS:
            raise InputError(f"VGG: depth={depth}; expected one of {', '.join(map(str, _GROUPS))}.")
        self.depth, self.top, channels = depth, top, 3
        for name in self.names():
            if not name.startswith(("conv", "fc")):
                continue
            width = (_WIDTHS[int(name[4]) - 1] if name.startswith("conv") else _TOP) // shrink
            kernel, padding = {"fc6": (7, 0), "fc7": (1, 0)}.get(name, (3, 1))
            around = ((padding, padding),) * 2
            setattr(self, name, nnx.Conv(channels, width, (kernel, kernel), padding=around, rngs=rngs))
            channels = width

    def names(self) -> Iterator[str]:
        """All layers, in order."""
        for group, number in enumerate(_GROUPS[self.depth], 1):
            for k in range(1, number + 1):
                yield f"conv{group}_{k}"
                yield f"relu{group}_{k}"
            yield f"pool{group}"
        if self.top:
            yield from ("fc6", "relu6", "fc7", "relu7")

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
            if name.startswith(("conv", "fc")):
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
