"""Oracles: scikit-image's conversion in float64; of luma, Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from seqjax.ops.colour import rgb_to_grey, rgb_to_lab


def test_equals_scikit_image():
    levels = np.linspace(0, 1, 18)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, 18, -1, 3)
    found = jax.jit(rgb_to_lab)(jnp.asarray(colours, jnp.float32))
    np.testing.assert_allclose(found, rgb2lab(colours), atol=2e-3)


def test_gradient_is_finite_everywhere_and_bfloat16_is_computed_in_float32():
    dark = jnp.asarray(np.linspace(0, 1, 24).reshape(1, 2, 4, 3), jnp.float32)
    dark = dark.at[0, 0].set(0.0)  # black, where a root has no slope
    gradient = jax.grad(lambda x: rgb_to_lab(x).sum())(dark)
    assert np.isfinite(gradient).all()
    low = dark.astype(jnp.bfloat16)
    np.testing.assert_array_equal(rgb_to_lab(low), rgb_to_lab(low.astype(jnp.float32)))


def test_white_black_and_grey():
    grey = jnp.asarray([0.0, 0.5, 1.0], jnp.float32)[:, None, None, None] * jnp.ones((1, 1, 1, 3))
    np.testing.assert_allclose(rgb_to_lab(grey)[:, 0, 0], [[0, 0, 0], [53.389, 0, 0], [100, 0, 0]], atol=0.02)


def test_grey_is_pillows_luma():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    luma = np.asarray(Image.fromarray(image).convert("L"))
    found = jax.jit(rgb_to_grey)(jnp.asarray(image, jnp.float32))
    assert found.shape == (7, 9, 1)
    assert np.abs(np.asarray(found)[..., 0] - luma).max() <= 0.51
    np.testing.assert_allclose(rgb_to_grey(jnp.ones((1, 1, 3))), 1, rtol=1e-6)
