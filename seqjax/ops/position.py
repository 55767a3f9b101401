"""Where a token stands: sinusoids to add, rotations of queries and keys, slopes of a penalty on distance.

Attention sees a set, and order only through these: `sinusoidal` and `sinusoidal_2d` are added to the inputs, `rotary`
turns queries and keys so that their product knows the distance, `alibi_slopes` go to `dot_product_attention` as
``alibi``.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqjax.errors import InputError
from seqjax.ops.softmax import wide

Layout = Literal["interleaved", "split"]


def sinusoidal(
    positions: Int[Array, "*B T"], features: int, *, layout: Layout = "interleaved", base: float = 10_000.0
) -> Float[Array, "*B T {features}"]:
    """``PE(p, 2i) = sin(p / base^(2i/D))``, ``PE(p, 2i+1) = cos(the same)``.

    The product of two codes depends on the distance alone: ``PE(p) · PE(q) = Σ_i cos(ω_i (p - q))``.

    Args:
      positions: ``p``, such as ``jnp.arange(T)``; one step of a decoder has its index.
      features: D, even.
      layout: "interleaved" is the paper's. "split" has all sines before all cosines and frequencies ``ω_i =
        base^(-i/(D/2 - 1))`` down to 1/base itself: Tensor2Tensor's and Flax's, for their weights.
      base: the longest wavelength is about 2π times it.

    Raises:
      InputError: if features is odd, or an unknown layout.

    Source: Vaswani et al., *Attention Is All You Need*, 2017, section 3.5.
    """
    pairs = _pairs("sinusoidal", features, 2, layout)
    last = pairs if layout == "interleaved" else max(pairs - 1, 1)
    angles = _angles(positions, base ** -(jnp.arange(pairs, dtype=jnp.float32) / last))
    sines, cosines = jnp.sin(angles), jnp.cos(angles)
    if layout == "split":
        return jnp.concatenate([sines, cosines], axis=-1)
    return jnp.stack([sines, cosines], axis=-1).reshape(*positions.shape, features)


def sinusoidal_2d(height: int, width: int, features: int, *, base: float = 10_000.0) -> Float[Array, "H W {features}"]:
    """Codes of the places of an image, ``[sin x | cos x | sin y | cos y]``, each a quarter of the features.

    Frequencies are those of the "split" layout of `sinusoidal`.

    Args:
      height: of the grid.
      width: of the grid.
      features: D, a multiple of 4.
      base: as of `sinusoidal`.

    Raises:
      InputError: if features is not a multiple of 4.

    Source: Beyer, Zhai, Kolesnikov, *Better plain ViT baselines for ImageNet-1k*, 2022, and its code.
    """
    half = _pairs("sinusoidal_2d", features, 4, "split")
    x, y = (sinusoidal(jnp.arange(size), half, layout="split", base=base) for size in (width, height))
    shape = (height, width, half)
    return jnp.concatenate([jnp.broadcast_to(x[None], shape), jnp.broadcast_to(y[:, None], shape)], axis=-1)


def resize_positions(codes: Float[Array, "H W D"], height: int, width: int) -> Float[Array, "h w D"]:
    """Learned codes of a grid, bilinearly resized to another: for images of another size than trained on.

    Put a class token's code aside before.

    Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2021, section 3.2.
    """
    return jax.image.resize(codes, (height, width, codes.shape[-1]), "bilinear", antialias=False)


def rotary(
    heads: Float[Array, "*B T N H"],
    positions: Int[Array, "*#B T"],
    *,
    layout: Layout = "interleaved",
    base: float = 10_000.0,
) -> Float[Array, "*B T N H"]:
    """Turn each pair of features i by the angle ``p ω_i``, ``ω_i = base^(-2i/H)``.

    The product of a query at p and a key at q then depends on ``p - q`` alone, and no length changes. Apply it to
    queries and keys, not to values; a cache holds turned keys.

    Args:
      heads: queries or keys.
      positions: ``p`` of each.
      layout: which features are a pair: "interleaved" 2i and 2i + 1, as in the paper; "split" i and i + H/2, as in
        GPT-NeoX and LLaMA's published weights.
      base: as of `sinusoidal`.

    Raises:
      InputError: if H is odd, or an unknown layout.

    Source: Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021, Eq. 34.
    """
    pairs = _pairs("rotary", heads.shape[-1], 2, layout)
    angles = _angles(positions, base ** -(jnp.arange(pairs, dtype=wide(heads)) / pairs))
    shape = (*heads.shape[:-1], pairs)
    sin, cos = (jnp.broadcast_to(f(angles)[..., None, :], shape) for f in (jnp.sin, jnp.cos))
    axis = -1 if layout == "interleaved" else -2
    split = (*shape, 2) if layout == "interleaved" else (*shape[:-1], 2, pairs)
    a, b = (jnp.take(heads.astype(wide(heads)).reshape(split), i, axis=axis) for i in (0, 1))
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=axis)
    return turned.reshape(heads.shape).astype(heads.dtype)


def alibi_slopes(heads: int) -> Float[Array, " {heads}"]:
    """``m_n = 2^(-8n/N)``, n = 1..N, where N is a power of two.

    For another number: the slopes of the next smaller power, then every second one of the next larger, as the authors'
    code has it.

    Raises:
      InputError: for no head.

    Source: Press, Smith, Lewis, *Train Short, Test Long: Attention with Linear Biases*, 2022, section 3.
    """
    if heads < 1:
        raise InputError(f"alibi_slopes: heads is {heads}; expected how many there are, 1 or more.")
    power = 2 ** math.floor(math.log2(heads))
    exponents = [8 * n / power for n in range(1, power + 1)]
    exponents += [4 * n / power for n in range(1, 2 * power + 1, 2)][: heads - power]
    return 2.0 ** -jnp.asarray(exponents, jnp.float32)


def _pairs(name: str, features: int, multiple: int, layout: str) -> int:
    if features % multiple or layout not in ("interleaved", "split"):
        raise InputError(
            f"{name}: {features} features in the layout {layout!r}; expected a multiple of {multiple}, interleaved or "
            "split: choose another."
        )
    return features // 2


def _angles(positions: Array, frequencies: Array) -> Array:
    shape = (*positions.shape, *frequencies.shape)
    return jnp.broadcast_to(positions.astype(frequencies.dtype)[..., None], shape) * jnp.broadcast_to(
        frequencies, shape
    )
