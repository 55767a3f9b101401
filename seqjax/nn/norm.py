"""Normalisation chosen by name, as published networks of images choose it."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax.ops.norm import group_norm, instance_norm

Kind = Literal["none", "batch", "instance", "affine_instance", "group"]
"""``instance`` has no parameters, as in CycleGAN's code; ``affine_instance`` has, as in DualGAN's. ``group`` has
them too; its groups are of 16 channels, or of as many as divide both 16 and C."""


def has_bias(kind: Kind) -> bool:
    """Whether the normalisation adds a bias of its own, so that the convolution before it needs none."""
    return kind in ("batch", "affine_instance", "group")


class Norm(nnx.Module):
    """Normalisation of feature maps.

    Scales start from N(1, 0.02²) and biases from 0, as DCGAN's do.

    Args:
      kind: which.
      features: C.
      rngs: for the scales.
    """

    def __init__(self, kind: Kind, features: int, *, rngs: nnx.Rngs):
        self.kind = kind
        if kind == "batch":
            # The fast variance, of squares less the squared mean, is percents off where the mean is large.
            self.batch = nnx.BatchNorm(
                features, momentum=0.9, epsilon=1e-5, use_fast_variance=False, scale_init=_scale, rngs=rngs
            )
        elif kind in ("affine_instance", "group"):
            self.scale = nnx.Param(_scale(rngs.params(), (features,)))
            self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, x: Float[Array, "B H W C"], *, running: bool = False) -> Float[Array, "B H W C"]:
        """The maps normalised.

        Args:
          x: feature maps.
          running: for ``batch``, whether to normalise by the running averages of the batches seen; otherwise by the
            statistics of this batch, which the averages then follow.
        """
        match self.kind:
            case "batch":
                return self.batch(x, use_running_average=running)
            case "instance":
                return instance_norm(x)
            case "affine_instance":
                return instance_norm(x, self.scale[...], self.bias[...])
            case "group":
                groups = x.shape[-1] // math.gcd(x.shape[-1], 16)
                return group_norm(x, self.scale[...], self.bias[...], groups=groups)
            case _:
                return x


def _scale(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32, **_: object) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
