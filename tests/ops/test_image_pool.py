"""``ops.image_pool`` against a Python list that is given the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import image_pool

SHAPE = (2, 2, 1)
exchange = jax.jit(image_pool.exchange)


def numbered(first, batch):
    """Images that tell when they were made."""
    return jnp.broadcast_to(jnp.arange(first, first + batch, dtype=jnp.float32)[:, None, None, None], (batch, *SHAPE))


def list_exchange(stored, size, images, swaps, places):
    shown = []
    for image, swap, place in zip(images, swaps, places, strict=True):
        if len(stored) < size:
            stored.append(image)
            shown.append(image)
        elif swap:
            shown.append(stored[place])
            stored[place] = image
        else:
            shown.append(image)
    return shown


@pytest.mark.parametrize(("size", "batch"), [(5, 1), (5, 4), (3, 7), (1, 2)])
def test_same_draws_same_exchange_as_a_list(size, batch):
    pool, stored = image_pool.init(size, SHAPE), []
    for turn in range(8):
        key, images = jax.random.key(turn), numbered(1 + turn * batch, batch)
        key_swap, key_place = jax.random.split(key)
        swaps = np.asarray(jax.random.bernoulli(key_swap, shape=(batch,)))
        places = np.asarray(jax.random.randint(key_place, (batch,), 0, size))
        expected = list_exchange(stored, size, list(np.asarray(images)), swaps, places)
        eager = image_pool.exchange(pool, images, key=key) if turn == 3 else None
        pool, shown = exchange(pool, images, key=key)
        np.testing.assert_array_equal(shown, expected)
        assert pool.filled == len(stored)
        np.testing.assert_array_equal(pool.images[: len(stored)], stored)
        np.testing.assert_array_equal(pool.images[len(stored) :], 0)
        if eager is not None:
            jax.tree.map(np.testing.assert_array_equal, eager, (pool, shown))


def test_half_of_the_images_are_swapped_and_every_place_serves():
    pool, _ = exchange(image_pool.init(4, SHAPE), numbered(1, 4), key=jax.random.key(0))
    images = numbered(5, 2000)
    pool, shown = exchange(pool, images, key=jax.random.key(1))
    swapped = np.mean(np.asarray(shown)[:, 0, 0, 0] != np.asarray(images)[:, 0, 0, 0])
    assert abs(swapped - 0.5) < 3 * 0.5 / 2000**0.5
    assert (np.asarray(pool.images) > 4).all()
    # Nothing is lost: all that went in came out or is still there.
    everything = np.concatenate([shown[:, 0, 0, 0], pool.images[:, 0, 0, 0]])
    assert set(everything.astype(int)) == set(range(1, 2005))


def test_pool_without_places_passes_images_through():
    pool, images = image_pool.init(0, SHAPE), numbered(1, 3)
    after, shown = exchange(pool, images, key=jax.random.key(0))
    np.testing.assert_array_equal(shown, images)
    assert after.images.shape == (0, *SHAPE)
    assert after.filled == 0


@pytest.mark.parametrize("size", [0, 2])
def test_no_gradient_leaves_the_pool(size):
    def total(images):
        pool, shown = image_pool.exchange(image_pool.init(size, SHAPE), images, key=jax.random.key(0))
        return jnp.sum(shown) + jnp.sum(pool.images)

    np.testing.assert_array_equal(jax.grad(total)(numbered(1, 4)), 0)


def test_dtype_of_the_pool_is_kept():
    pool, shown = exchange(
        image_pool.init(2, SHAPE, dtype=jnp.bfloat16), numbered(1, 3).astype(jnp.bfloat16), key=jax.random.key(0)
    )
    assert pool.images.dtype == shown.dtype == jnp.bfloat16


@pytest.mark.parametrize("images", [jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, *SHAPE), jnp.bfloat16)])
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(InputError, match=r"the pool was made for images of float32\[2, 2, 1\]"):
        image_pool.exchange(image_pool.init(2, SHAPE), images, key=jax.random.key(0))


def test_negative_size_is_refused():
    with pytest.raises(InputError, match="pool of -1 images"):
        image_pool.init(-1, SHAPE)
