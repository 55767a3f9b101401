"""Oracles: the papers' formulas entry by entry in NumPy float64; rotations of complex numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.ops import position


def test_sinusoids_entry_by_entry():
    places = np.array([[0, 3, 17], [250, 1, 2]])
    found = position.sinusoidal(jnp.asarray(places), 6, base=500.0)
    for b, t, i in np.ndindex(2, 3, 3):
        angle = places[b, t] / 500 ** (2 * i / 6)
        np.testing.assert_allclose(found[b, t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=2e-5)


def test_split_sinusoids_reach_the_base():
    """Tensor2Tensor's table: all sines, all cosines, frequencies from 1 to 1/base in equal ratios."""
    found = position.sinusoidal(jnp.arange(5), 8, layout="split")
    frequencies = np.geomspace(1, 1e-4, 4)
    angles = np.arange(5)[:, None] * frequencies
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-6)


def test_products_of_sinusoids_depend_on_the_distance_alone():
    codes = np.float64(position.sinusoidal(jnp.arange(40), 16))
    frequencies = 10_000.0 ** (-np.arange(8) / 8)
    for p, q in ((0, 0), (3, 5), (30, 32), (39, 1)):
        np.testing.assert_allclose(codes[p] @ codes[q], np.cos(frequencies * (p - q)).sum(), rtol=1e-5)


def test_codes_of_a_grid():
    found = np.asarray(position.sinusoidal_2d(2, 3, 8))
    x, y = (np.asarray(position.sinusoidal(jnp.arange(n), 4, layout="split")) for n in (3, 2))
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(found[i, j], np.concatenate([x[j], y[i]]))


def test_resizing_to_the_same_grid_is_the_identity_and_linear_codes_stay_linear():
    codes = np.float32(np.random.default_rng(0).normal(size=(3, 4, 5)))
    np.testing.assert_allclose(position.resize_positions(jnp.asarray(codes), 3, 4), codes, atol=1e-6)
    ramp = np.broadcast_to(np.arange(4.0)[None, :, None], (4, 4, 1)).astype(np.float32)
    wide = np.asarray(position.resize_positions(jnp.asarray(ramp), 4, 8))[0, :, 0]
    np.testing.assert_allclose(wide[1:-1], (np.arange(8) + 0.5)[1:-1] / 2 - 0.5, atol=1e-6)


@pytest.mark.parametrize("layout", ["interleaved", "split"])
def test_rotation_is_that_of_complex_numbers(layout):
    x, places = np.random.default_rng(1).normal(size=(2, 5, 3, 6)), np.array([[0, 1, 2, 3, 9], [4, 4, 0, 7, 100]])
    found = position.rotary(jnp.asarray(x, jnp.float32), jnp.asarray(places), layout=layout, base=100.0)
    first, second = (x[..., ::2], x[..., 1::2]) if layout == "interleaved" else (x[..., :3], x[..., 3:])
    turned = (first + 1j * second) * np.exp(1j * places[..., None, None] * 100.0 ** (-2 * np.arange(3) / 6))
    expected = np.stack([turned.real, turned.imag], axis=-1 if layout == "interleaved" else -2)
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=2e-5)


@pytest.mark.parametrize("layout", ["interleaved", "split"])
def test_products_of_rotated_heads_depend_on_the_distance_alone(layout):
    q, k = np.float32(np.random.default_rng(2).normal(size=(2, 1, 1, 8)))

    def product(p, r):
        a, b = (position.rotary(jnp.asarray(x), jnp.asarray([at]), layout=layout) for x, at in ((q, p), (k, r)))
        return float(jnp.sum(a * b))

    assert product(3, 1) == pytest.approx(product(52, 50), abs=1e-4)
    assert product(0, 0) == pytest.approx(float((q * k).sum()), abs=1e-5)
    assert abs(product(3, 1) - product(3, 2)) > 1e-2


def test_positions_are_shared_by_rows_and_half_precision_comes_back():
    x = jnp.ones((2, 3, 1, 4), jnp.bfloat16)
    found = position.rotary(x, jnp.arange(3))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[0], found[1])


def test_slopes():
    """Of the paper for 8 and 16 heads, and of the authors' code for 12: eight, then every second of sixteen."""
    np.testing.assert_allclose(position.alibi_slopes(8), 0.5 ** np.arange(1.0, 9), rtol=1e-6)
    sixteen = 2 ** -(np.arange(1, 17) / 2)
    np.testing.assert_allclose(position.alibi_slopes(16), sixteen, rtol=1e-6)
    np.testing.assert_allclose(
        position.alibi_slopes(12), np.concatenate([0.5 ** np.arange(1.0, 9), sixteen[:8:2]]), rtol=1e-6
    )


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused_by_name():
    for call in (
        lambda: position.sinusoidal(jnp.arange(3), 5),
        lambda: position.sinusoidal_2d(2, 2, 6),
        lambda: position.rotary(jnp.ones((1, 1, 1, 3)), jnp.arange(1)),
        lambda: position.sinusoidal(jnp.arange(3), 4, layout="halves"),
    ):
        with pytest.raises(InputError, match="expected a multiple of"):
            call()
    with pytest.raises(InputError, match="heads is 0"):
        position.alibi_slopes(0)


@pytest.mark.usefixtures("float64")
def test_rotation_is_exact_in_double_precision():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 1, 8)))
    turned = position.rotary(x, jnp.arange(3) + 1000)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-14)
