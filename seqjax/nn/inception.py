"""Inception-v3 as FID knows it: the TensorFlow network of 2015-12-05, whose weights pytorch-fid carries over.

C. Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2016; M. Heusel et al., *GANs Trained by
a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, 2017.

It is not torchvision's: average pools leave the padding out of their mean, the last mixed block takes a maximum where
the one before it takes an average, and there are 1,008 outputs. Frozen: BatchNorm uses its stored statistics. Names of
layers are those of the published weights in lower case. Every padding is a number.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.image import signed_to_unit, unit_to_uint8

Protocol = Literal["pytorch-fid", "clean-fid"]
SIZE = 299
"""Height and width of the network's input."""


class Conv(NamedTuple):
    """One convolution with BatchNorm and ReLU; padded so as to keep the size where the stride is 1, else not at all."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class Fork(NamedTuple):
    """Two convolutions of the same input, joined along the channels."""

    left: Conv
    right: Conv


Step = Conv | Fork | Literal["average", "maximum", "halve"]
Block = tuple[tuple[Step, ...], ...]
"""Branches side by side, joined along the channels."""


def _chain(prefix: str, *steps: tuple[int, tuple[int, int]], stride: int = 1) -> tuple[Conv, ...]:
    """Convolutions in a row, numbered from 1; the stride is the last one's."""
    last = len(steps)
    return tuple(Conv(f"{prefix}_{i}", *step, stride if i == last else 1) for i, step in enumerate(steps, 1))


def _block_35(pooled: int) -> Block:
    return (
        (Conv("branch1x1", 64),),
        _chain("branch5x5", (48, (1, 1)), (64, (5, 5))),
        _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        ("average", Conv("branch_pool", pooled)),
    )


def _block_17(c: int) -> Block:
    wide, tall = (1, 7), (7, 1)
    return (
        (Conv("branch1x1", 192),),
        _chain("branch7x7", (c, (1, 1)), (c, wide), (192, tall)),
        _chain("branch7x7dbl", (c, (1, 1)), (c, tall), (c, wide), (c, tall), (192, wide)),
        ("average", Conv("branch_pool", 192)),
    )


def _block_8(pool: Literal["average", "maximum"]) -> Block:
    def fork(prefix: str) -> Fork:
        return Fork(Conv(f"{prefix}a", 384, (1, 3)), Conv(f"{prefix}b", 384, (3, 1)))

    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), fork("branch3x3_2")),
        (*_chain("branch3x3dbl", (448, (1, 1)), (384, (3, 3))), fork("branch3x3dbl_3")),
        (pool, Conv("branch_pool", 192)),
    )


_TO_17: Block = (
    (Conv("branch3x3", 384, (3, 3), 2),),
    _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3)), stride=2),
    ("halve",),
)
_TO_8: Block = (
    _chain("branch3x3", (192, (1, 1)), (320, (3, 3)), stride=2),
    _chain("branch7x7x3", (192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3)), stride=2),
    ("halve",),
)
_STEM: tuple[tuple[str, int, int, int, int] | str, ...] = (
    ("conv2d_1a_3x3", 32, 3, 2, 0),
    ("conv2d_2a_3x3", 32, 3, 1, 0),
    ("conv2d_2b_3x3", 64, 3, 1, 1),
    "halve",
    ("conv2d_3b_1x1", 80, 1, 1, 0),
    ("conv2d_4a_3x3", 192, 3, 1, 0),
    "halve",
)
_MIXED: dict[str, Block] = {
    "mixed_5b": _block_35(32),
    "mixed_5c": _block_35(64),
    "mixed_5d": _block_35(64),
    "mixed_6a": _TO_17,
    "mixed_6b": _block_17(128),
    "mixed_6c": _block_17(160),
    "mixed_6d": _block_17(160),
    "mixed_6e": _block_17(192),
    "mixed_7a": _TO_8,
    "mixed_7b": _block_8("average"),
    "mixed_7c": _block_8("maximum"),
}


class ConvNorm(nnx.Module):
    """Convolution without a bias, BatchNorm with its stored statistics, ReLU."""

    def __init__(self, channels: int, width: int, kernel: tuple[int, int], stride: int, pads: tuple, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            channels, width, kernel, strides=stride, padding=[(p, p) for p in pads], use_bias=False, rngs=rngs
        )
        self.bn = nnx.BatchNorm(width, use_running_average=True, epsilon=1e-3, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """The layer's output."""
        return jax.nn.relu(self.bn(self.conv(images)))


class Mixed(nnx.Module):
    """Branches side by side."""

    def __init__(self, block: Block, channels: int, shrink: int, rngs: nnx.Rngs):
        self.block, self.width = block, 0
        for branch in block:
            width = channels
            for step in branch:
                convolutions = step if isinstance(step, Fork) else (step,) if isinstance(step, Conv) else ()
                for conv in convolutions:
                    pads = tuple((k - 1) // 2 if conv.stride == 1 else 0 for k in conv.kernel)
                    layer = ConvNorm(width, conv.width // shrink, conv.kernel, conv.stride, pads, rngs)
                    setattr(self, conv.name, layer)
                if convolutions:
                    width = sum(conv.width // shrink for conv in convolutions)
            self.width += width

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """The branches' outputs, joined."""
        return jnp.concatenate([self._branch(branch, images) for branch in self.block], axis=-1)

    def _branch(self, branch: tuple[Step, ...], h: Array) -> Array:
        for step in branch:
            if isinstance(step, Conv):
                h = getattr(self, step.name)(h)
            elif isinstance(step, Fork):
                h = jnp.concatenate([getattr(self, conv.name)(h) for conv in step], axis=-1)
            else:
                h = _pool(step, h)
        return h


class Inception(nnx.Module):
    """The network: 2,048 features and 1,008 logits.

    Args:
      classes: of the last layer.
      shrink: what every width is divided by: 1 as published, up to 16 for tests.
      rngs: of the parameters, which published weights replace.
    """

    def __init__(self, *, classes: int = 1008, shrink: int = 1, rngs: nnx.Rngs):
        width = 3
        for layer in _STEM:
            if not isinstance(layer, str):
                name, out, kernel, stride, pad = layer
                setattr(self, name, ConvNorm(width, out // shrink, (kernel, kernel), stride, (pad, pad), rngs))
                width = out // shrink
        for name, block in _MIXED.items():
            mixed = Mixed(block, width, shrink, rngs)
            setattr(self, name, mixed)
            width = mixed.width
        self.fc = nnx.Linear(width, classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        """The mean of the last block over all positions. Images from `prepare`, at least 75 pixels a side."""
        h = images
        for layer in _STEM:
            h = _pool("halve", h) if isinstance(layer, str) else getattr(self, layer[0])(h)
        for name in _MIXED:
            h = getattr(self, name)(h)
        return h.mean(axis=(1, 2))

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Logits."""
        return self.fc(self.features(images))


def prepare(images: Float[Array, "B H W C"], protocol: Protocol) -> Float[Array, "B 299 299 3"]:
    """Images in [-1, 1] to the network's input, by one of the two ways in use, which give different figures.

        pytorch-fid    bilinear without antialiasing, pixel centres at half (align_corners=False); 2 x / 255 - 1
        clean-fid      bicubic with antialiasing as Pillow's, cut off at 0 and 255; (x - 128) / 128

    Both start from 8 bits, as if the images had been stored, and leave the result unrounded. One channel counts as
    grey.

    Source: github.com/mseitzer/pytorch-fid; Parmar, Zhang and Zhu, *On Aliased Resizing and Surprising Subtleties in
    GAN Evaluation*, 2022.

    Raises:
      InputError: an unknown protocol; images of neither one nor three channels.
    """
    channels = images.shape[-1]
    if protocol not in ("pytorch-fid", "clean-fid") or channels not in (1, 3):
        raise InputError(
            f"prepare: protocol={protocol!r}, images of {channels} channels; expected 'pytorch-fid' or 'clean-fid' and "
            "one channel or three: Inception sees colour images only."
        )
    levels = unit_to_uint8(signed_to_unit(images)).astype(jnp.float32)
    levels = jnp.repeat(levels, 3 // channels, axis=-1)
    shape = (len(images), SIZE, SIZE, 3)
    if protocol == "pytorch-fid":
        return 2 * (jax.image.resize(levels, shape, "bilinear", antialias=False) / 255) - 1
    return (jax.image.resize(levels, shape, "bicubic", antialias=True).clip(0, 255) - 128) / 128


def _pool(kind: str, images: Array) -> Array:
    """3x3: "halve" is the maximum with stride 2 and no padding; the others keep the size."""
    keep = ((1, 1), (1, 1))
    if kind == "average":
        return nnx.avg_pool(images, (3, 3), (1, 1), keep, count_include_pad=False)
    return nnx.max_pool(images, (3, 3), *(((2, 2), "VALID") if kind == "halve" else ((1, 1), keep)))
