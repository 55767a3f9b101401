"""Differentiable augmentation: what a discriminator sees of real and generated images alike, with gradients through it.

Augmentation on the host, such as the resize, crop and flip of pix2pix, changes the real images alone, and a generator
learns to make what they became. Here generated images go the same way, and the generator's gradient comes back through.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError

Policy = Literal["color", "translation", "cutout"]


def augment(
    images: Float[Array, "B H W C"],
    *,
    policy: tuple[Policy, ...] = ("color", "translation", "cutout"),
    key: PRNGKeyArray,
) -> Float[Array, "B H W C"]:
    """Change every image by draws of its own, in the order of the policy.

        color         brightness + U(-1/2, 1/2); then saturation · U(0, 2), about the mean over channels of each
                      pixel; then contrast · U(1/2, 3/2), about the mean of the image
        translation   shifted by whole pixels, up to 1/8 of each side either way; zeros come in
        cutout        a rectangle of half the height and width becomes zero; up to half of it may lie outside

    Apply it before every call of the discriminator, to real and generated images, in its own loss and in the
    generator's. The same key gives the same draws to any batch of the same shape: one key for images that belong
    together (a condition and its answer), another for each batch that does not.

    Args:
      images: in [-1, 1], so that zero is mid-grey; colours may leave the range, and nothing is clipped.
      policy: which kinds, in order; none gives the images back.
      key: draws everything.

    Raises:
      InputError: a kind that does not exist.

    Source: Zhao et al., *Differentiable Augmentation for Data-Efficient GAN Training*, 2020, section 3.2, with the
    ranges of the authors' code.
    """
    if unknown := [kind for kind in policy if kind not in _KINDS]:
        raise InputError(
            f"policy: got {', '.join(map(repr, unknown))}, expected names among {', '.join(_KINDS)}: write "
            'for example policy=("translation", "cutout").'
        )
    # A kind's draws do not depend on which others there are.
    for kind in policy:
        images = _KINDS[kind](images, jax.random.fold_in(key, list(_KINDS).index(kind)))
    return images


def _color(images: Array, key: PRNGKeyArray) -> Array:
    brightness, saturation, contrast = (
        jnp.broadcast_to(drawn, images.shape)
        for drawn in jax.random.uniform(key, (3, len(images), 1, 1, 1), images.dtype)
    )
    images = images + (brightness - 0.5)
    images = _about(jnp.mean(images, axis=-1, keepdims=True), images, 2 * saturation)
    return _about(jnp.mean(images, axis=(1, 2, 3), keepdims=True), images, contrast + 0.5)


def _about(centre: Array, images: Array, factor: Array) -> Array:
    centre = jnp.broadcast_to(centre, images.shape)
    return (images - centre) * factor + centre


def _translation(images: Array, key: PRNGKeyArray) -> Array:
    height, width = images.shape[1:3]
    reach = [_rounded(height / 8), _rounded(width / 8)]
    starts = [
        jax.random.randint(k, (len(images),), 0, 2 * r + 1) for k, r in zip(jax.random.split(key), reach, strict=True)
    ]
    padded = jnp.pad(images, [(0, 0), *((r, r) for r in reach), (0, 0)])

    def window(image: Array, top: Array, left: Array) -> Array:
        return jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(window)(padded, *starts)


def _cutout(images: Array, key: PRNGKeyArray) -> Array:
    inside = [
        _interval(k, len(images), size, _rounded(size / 2))
        for k, size in zip(jax.random.split(key), images.shape[1:3], strict=True)
    ]
    hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hole, jnp.zeros((), images.dtype), images)


def _interval(key: PRNGKeyArray, number: int, size: int, length: int) -> Array:
    """``[number, size]``: which of the places lie in an interval of that length, whose middle is drawn among them."""
    # An even length has its middle between two places, and one such more.
    middle = jax.random.randint(key, (number, 1), 0, size + 1 - length % 2)
    start = jnp.broadcast_to(middle - length // 2, (number, size))
    place = jnp.broadcast_to(jnp.arange(size), (number, size))
    return (place >= start) & (place < start + length)


def _rounded(value: float) -> int:
    return int(value + 0.5)


_KINDS = {"color": _color, "translation": _translation, "cutout": _cutout}
