"""Oracles: loops over pixels and filters in NumPy float64, written from the formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import glimpse

IMAGES = np.random.default_rng(0).random((4, 9, 12, 2)).astype(np.float32)
PLACES = np.float32([[0, 0], [-1, -1], [1, 0.5], [0.3, -0.71]])


def patch(image, place, size, block):
    """Pixel by pixel: outside is zero, then means over blocks."""
    height, width, channels = image.shape
    side, out = size * block, np.zeros((size, size, channels))
    left, top = (int(np.floor((x + 1) / 2 * n - side / 2 + 0.5)) for x, n in zip(place, (width, height), strict=True))
    for i, j in np.ndindex(side, side):
        if 0 <= top + i < height and 0 <= left + j < width:
            out[i // block, j // block] += image[top + i, left + j] / block**2
    return out


@pytest.mark.parametrize(("size", "scales", "ratio"), [(3, 2, 2), (4, 3, 3), (1, 1, 2)])
def test_retina_equals_loops_over_pixels_inside_and_over_the_border(size, scales, ratio):
    found = jax.jit(functools.partial(glimpse.retina, size=size, scales=scales, ratio=ratio))(IMAGES, PLACES)
    for image, place, patches in zip(IMAGES, PLACES, found, strict=True):
        expected = [patch(np.float64(image), np.float64(place), size, ratio**j) for j in range(scales)]
        np.testing.assert_allclose(patches, expected, rtol=1e-5, atol=1e-6)


def test_retina_as_large_as_the_image_at_the_middle_is_the_image():
    square = jnp.asarray(IMAGES[:, :, :9])
    np.testing.assert_array_equal(glimpse.retina(square, jnp.zeros((4, 2)), size=9)[:, 0], square)


def test_retina_at_the_corners_sees_a_quarter_and_zeros():
    """x is along the width: (1, -1) is the upper right corner."""
    ones = jnp.ones((2, 8, 12, 1))
    found = glimpse.retina(ones, jnp.asarray([[-1.0, -1.0], [1.0, -1.0]]), size=4)[:, 0, :, :, 0]
    upper_left, upper_right = np.zeros((2, 4, 4))
    upper_left[2:, 2:] = 1
    upper_right[2:, :2] = 1
    np.testing.assert_array_equal(found, [upper_left, upper_right])


def test_places_outside_are_clipped_and_get_no_gradient():
    far = glimpse.retina(jnp.asarray(IMAGES), jnp.asarray(5 * np.sign(PLACES)), size=3)
    near = glimpse.retina(jnp.asarray(IMAGES), jnp.asarray(np.sign(PLACES)), size=3)
    np.testing.assert_array_equal(far, near)

    def value(images, places):
        return jnp.sum(jnp.sin(glimpse.retina(images, places, size=2, scales=2)))

    to_images, to_places = jax.grad(value, argnums=(0, 1))(jnp.asarray(IMAGES), jnp.asarray(PLACES))
    np.testing.assert_array_equal(to_places, 0)
    assert np.abs(to_images).max() > 0


def test_leading_dimensions():
    images, places = jnp.asarray(IMAGES).reshape(2, 2, 9, 12, 2), jnp.asarray(PLACES).reshape(2, 2, 2)
    flat = glimpse.retina(jnp.asarray(IMAGES), jnp.asarray(PLACES), size=3, scales=2)
    np.testing.assert_array_equal(glimpse.retina(images, places, size=3, scales=2), flat.reshape(2, 2, 2, 3, 3, 2))


NUMBERS = np.float32([[0.1, -0.2, -0.5, -0.7, 0.3], [0, 0, 0, 0, 0], [2.5, -3, 1, 0.5, -1], [0, 0.4, -9, -2, 9]])
TAPS = 4


def window(numbers, height, width):
    """The paper's equations, which count pixels from 1, in its own index: i = 1..N, a = 1..A."""
    x, y, *logs = np.float64(numbers)
    variance, stride, intensity = np.exp(np.clip(logs, -6, 6))
    g_x, g_y, delta = (
        (width + 1) / 2 * (x + 1),
        (height + 1) / 2 * (y + 1),
        (max(height, width) - 1) / (TAPS - 1) * stride,
    )
    filters = []
    for g, size in ((g_x, width), (g_y, height)):
        f = np.zeros((TAPS, size))
        for i, a in np.ndindex(TAPS, size):
            mean = g + (i + 1 - TAPS / 2 - 0.5) * delta
            f[i, a] = -((a + 1 - mean) ** 2) / (2 * variance)
        f = np.exp(f - f.max(axis=1, keepdims=True))
        filters.append(f / f.sum(axis=1, keepdims=True))
    return (*filters, intensity)


@functools.cache
def both_ways():
    """Compiled: what is read from every image and what is written of every patch, with gradients in the numbers."""

    def run(numbers, images, patches):
        at = glimpse.gaussian_window(numbers, height=9, width=12, taps=TAPS)
        return glimpse.read(images, at, taps=TAPS), glimpse.write(patches, at, height=9, width=12)

    def value(numbers, images, patches):
        seen, written = run(numbers, images, patches)
        return jnp.sum(jnp.sin(seen)) + jnp.sum(jnp.sin(written)), (seen, written)

    patches = np.random.default_rng(1).normal(size=(4, TAPS, TAPS, 2)).astype(np.float32)
    return patches, jax.jit(jax.grad(value, has_aux=True))(jnp.asarray(NUMBERS), jnp.asarray(IMAGES), patches)


def test_read_and_write_equal_the_papers_equations():
    patches, (_, (seen, written)) = both_ways()
    for b, numbers in enumerate(NUMBERS):
        f_x, f_y, intensity = window(numbers, 9, 12)
        for c in range(2):
            expected = intensity * f_y @ np.float64(IMAGES[b, :, :, c]) @ f_x.T
            np.testing.assert_allclose(seen[b, :, :, c], expected, rtol=1e-4, atol=1e-5 * intensity)
            expected = f_y.T @ np.float64(patches[b, :, :, c]) @ f_x / intensity
            np.testing.assert_allclose(written[b, :, :, c], expected, rtol=1e-4, atol=1e-5 / intensity)


def test_gradient_in_the_numbers_equals_finite_differences():
    patches, (gradient, _) = both_ways()

    def value(numbers):
        total = 0
        for b, row in enumerate(numbers):
            f_x, f_y, intensity = window(row, 9, 12)
            for c in range(2):
                total += np.sin(intensity * f_y @ np.float64(IMAGES[b, :, :, c]) @ f_x.T).sum()
                total += np.sin(f_y.T @ np.float64(patches[b, :, :, c]) @ f_x / intensity).sum()
        return total

    wide = np.float64(NUMBERS[:3])
    for index in np.ndindex(*wide.shape):
        step = np.zeros_like(wide)
        step[index] = 1e-5
        numeric = (value(wide + step) - value(wide - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], numeric, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("centre", [-50.0, 0.0, 3.3, 200.0])
@pytest.mark.parametrize("variance", [1e-3, 1.0, 100.0])
def test_every_row_sums_to_one_wherever_it_is(centre, variance):
    row = glimpse.gaussian_filters(jnp.asarray(centre), jnp.asarray(2.0), jnp.asarray(variance), taps=5, size=8)
    np.testing.assert_allclose(np.sum(row, axis=-1), np.ones(5), rtol=1e-5)
    assert np.isfinite(row).all()


def test_sharp_filters_at_every_pixel_read_the_image_and_write_it_back():
    """g̃ = 0, δ̃ = 1, N = A and σ = 0.05 pixels: the filters are the identity, and γ cancels."""
    numbers = jnp.asarray([[0, 0, 2 * np.log(0.05), 0, 0.7]], jnp.float32)
    image = jnp.asarray(IMAGES[:1, :, :9])
    at = glimpse.gaussian_window(numbers, height=9, width=9, taps=9)
    seen = glimpse.read(image, at, taps=9)
    np.testing.assert_allclose(seen, np.exp(0.7) * image, rtol=1e-5)
    np.testing.assert_allclose(glimpse.write(seen, at, height=9, width=9), image, rtol=1e-5)


def test_edges_of_a_window():
    """By hand: g = (6.5 · 1.2 - 1, 5 · 0.5 - 1), and four filters 11 / 3 · e^-1 apart; a pixel reaches 1/2 further."""
    at = glimpse.gaussian_window(jnp.asarray([[0.2, -0.5, 3.0, -1.0, 2.0]]), height=9, width=12, taps=TAPS)
    reach = 1.5 * 11 / 3 / np.e + 0.5
    expected = [[7.3 - reach, 2 - reach, 7.3 + reach, 2 + reach]]
    np.testing.assert_allclose(glimpse.window_edges(at, taps=TAPS), expected, rtol=1e-5)
    # At the middle of nine pixels with a filter for each it is the image.
    whole = glimpse.gaussian_window(jnp.zeros((1, 5)), height=9, width=9, taps=9)
    np.testing.assert_allclose(glimpse.window_edges(whole, taps=9), [[0, 0, 9, 9]], atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(InputError, match="size is 0"):
        glimpse.retina(jnp.asarray(IMAGES), jnp.asarray(PLACES), size=0)
    with pytest.raises(InputError, match="taps is 1"):
        glimpse.gaussian_window(jnp.zeros((1, 5)), height=9, width=9, taps=1)
    with pytest.raises(InputError, match=r"numbers have shape \(1, 4\)"):
        glimpse.gaussian_window(jnp.zeros((1, 4)), height=9, width=9, taps=3)
    with pytest.raises(InputError, match=r"images have shape \(1, 9, 9\)"):
        glimpse.read(jnp.zeros((1, 9, 9)), whole(9), taps=9)


def whole(size):
    return glimpse.gaussian_window(jnp.zeros((1, 5)), height=size, width=size, taps=size)


def test_half_precision_places_a_window_to_the_pixel():
    numbers = jnp.asarray([[0.9921875, 0.0, 0.0, 0.0, 0.0]], jnp.bfloat16)
    found = glimpse.gaussian_window(numbers, height=300, width=300, taps=5).centre
    np.testing.assert_allclose(found, [[301 / 2 * 1.9921875 - 1, 149.5]], rtol=1e-6)
