"""Attention in boxes, counted pixel by pixel."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.metrics.pointing import anti_diagonal, box_attention, look_distances

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width", "size"), [(4, 4, 32), (3, 2, 12), (14, 14, 28)])
def test_mass_and_peak_against_a_loop_over_pixels(height, width, size):
    """Each pixel has the weight of its place over the place's pixels; a box has that of its pixels."""
    weights = RNG.dirichlet(np.ones(height * width), size=(2, 3)).reshape(2, 3, height, width)
    corners = np.sort(RNG.integers(0, size + 1, size=(2, 3, 2, 2)), axis=2)
    boxes = corners.reshape(2, 3, 4)
    mass, peak = box_attention(jnp.asarray(weights, jnp.float32), jnp.asarray(boxes), size=size)
    rows, columns = size // height, size // width
    for index in itertools.product(range(2), range(3)):
        pixels = np.kron(weights[index], np.ones((rows, columns)) / (rows * columns))
        top, left, bottom, right = boxes[index]
        np.testing.assert_allclose(mass[index], pixels[top:bottom, left:right].sum(), rtol=1e-5, atol=1e-7)
        row, column = np.unravel_index(weights[index].argmax(), (height, width))
        inside = np.zeros((size, size))
        inside[top:bottom, left:right] = 1
        place = inside[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        assert bool(peak[index]) == (place.mean() >= 0.5)


def test_a_place_that_fills_its_box():
    weights = jnp.zeros((4, 4)).at[1, 2].set(0.7).at[0, 0].set(0.3)
    mass, peak = box_attention(weights, jnp.array([8, 16, 16, 24]), size=32)
    np.testing.assert_allclose(mass, 0.7, rtol=1e-6)
    assert peak == 1
    assert box_attention(weights, jnp.array([0, 0, 8, 8]), size=32)[1] == 0


def test_distances_of_looks_against_loops():
    looked, corners = RNG.uniform(0, 30, size=(5, 3, 2)), RNG.integers(0, 20, size=(5, 2))
    expected = [
        [np.hypot(x - (column + 3.5), y - (row + 3.5)) for x, y in path]
        for path, (row, column) in zip(looked, corners, strict=True)
    ]
    found = look_distances(jnp.asarray(looked, jnp.float32), jnp.asarray(corners), side=7)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_attention_on_the_next_word_of_what_is_written_backwards_against_loops():
    """Sources of 3 and 1 words; what later steps, which write EOS and padding, look at does not count."""
    weights, lengths = RNG.dirichlet(np.ones(6), size=(2, 5)), np.array([5, 3])
    expected = [
        np.mean([weights[i, step, word] for step, word in enumerate(words)]) for i, words in enumerate([[3, 2, 1], [1]])
    ]
    found = anti_diagonal(jnp.asarray(weights, jnp.float32), jnp.asarray(lengths))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
