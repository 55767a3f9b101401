"""A history of generated images for the discriminator to learn from, as state that a step takes and returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax.errors import InputError


class ImagePool(NamedTuple):
    """Up to N images that a generator made earlier; what must survive a restart, beside the key."""

    images: Float[Array, "N *S"]
    """Places; those from ``filled`` on hold zeros."""
    filled: Int[Array, ""]
    """How many places hold an image."""


def init(size: int, shape: tuple[int, ...], *, dtype: jax.typing.DTypeLike = jnp.float32) -> ImagePool:
    """An empty pool.

    Args:
      size: N places; CycleGAN has 50 for each domain. 0 makes `exchange` give back what it gets.
      shape: of one image, ``(H, W, C)``.
      dtype: of the images.

    Raises:
      InputError: if size is negative.
    """
    if size < 0:
        raise InputError(
            f"size: got a pool of {size} images, expected 0 (no pool) or more: CycleGAN's 50, for example."
        )
    return ImagePool(jnp.zeros((size, *shape), dtype), jnp.zeros((), jnp.int32))


def exchange(
    pool: ImagePool, images: Float[Array, "B *S"], *, key: PRNGKeyArray
) -> tuple[ImagePool, Float[Array, "B *S"]]:
    """Store new images and return what the discriminator shall see in their stead.

    One image after the other, as if they came in batches of one: while the pool has room, the image is stored and
    returned; after that, with probability 1/2 it takes the place of a stored one, drawn uniformly, which is returned,
    and otherwise it is returned without being stored. Nothing that comes out carries a gradient.

    Args:
      pool: from `init` or the last call.
      images: of the pool's shape and dtype.
      key: the same key, pool and images give the same exchange.

    Returns:
      The next pool, and as many images.

    Raises:
      InputError: if shape or dtype are not the pool's.

    Sources: Shrivastava et al., *Learning from Simulated and Unsupervised Images through Adversarial Training*, 2017,
    section 2.3, with half of each batch; in this form, Zhu et al., *Unpaired Image-to-Image Translation using
    Cycle-Consistent Adversarial Networks*, 2017, section 4, and its code.
    """
    if images.shape[1:] != pool.images.shape[1:] or images.dtype != pool.images.dtype:
        raise InputError(
            f"images: got {images.dtype}{list(images.shape[1:])}, and the pool was made for images of "
            f"{pool.images.dtype}{list(pool.images.shape[1:])}; expected the same: call init with the shape and dtype "
            "of the generator's images."
        )
    images = jax.lax.stop_gradient(images)
    size, number = len(pool.images), len(images)
    if size == 0:
        return pool, images
    key_swap, key_place = jax.random.split(key)
    swaps = jax.random.bernoulli(key_swap, shape=(number,))
    places = jax.random.randint(key_place, (number,), 0, size)

    def one(pool: ImagePool, drawn: tuple[Array, Array, Array]) -> tuple[ImagePool, Array]:
        image, swap, place = drawn
        has_room = pool.filled < size
        place = jnp.where(has_room, pool.filled, place)
        stored = pool.images[place]
        kept = jnp.where(has_room | swap, image, stored)
        shown = jnp.where(~has_room & swap, stored, image)
        return ImagePool(pool.images.at[place].set(kept), pool.filled + has_room.astype(jnp.int32)), shown

    return jax.lax.scan(one, pool, (images, swaps, places))
