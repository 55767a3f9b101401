"""Winds whose vorticity is known, NumPy's differences, and storms that go straight on."""

import jax.numpy as jnp
import numpy as np

from seqjax.metrics.storm_baselines import constant_velocity, low_pressure, vorticity
from seqjax.ops.heatmap import render


def fields(u, v, pressure=None):
    pressure = np.zeros_like(u) if pressure is None else pressure
    return jnp.asarray(np.stack([pressure, u, v], axis=-1)[None, None], jnp.float32)


def test_vorticity_of_turning_and_of_spreading_winds():
    """A rotation of angular velocity w counterclockwise, with the rows going north, has 2 w; a divergent wind has 0."""
    north, east = np.mgrid[0:7, 0:9].astype(float)
    inner = (0, 0, slice(1, -1), slice(1, -1), 0)
    np.testing.assert_allclose(vorticity(fields(-0.1 * north, 0.1 * east))[inner], 0.2, rtol=1e-5)
    np.testing.assert_array_equal(vorticity(fields(0.1 * north, -0.1 * east)), 0)
    np.testing.assert_allclose(vorticity(fields(0.1 * east, 0.1 * north)), 0, atol=1e-6)


def test_vorticity_inside_is_that_of_numpy():
    u, v = np.random.default_rng(0).random((2, 8, 10))
    expected = np.gradient(v, axis=1) - np.gradient(u, axis=0)
    found = vorticity(fields(u, v))[0, 0, ..., 0]
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1].clip(0), atol=1e-6)


def test_low_pressure_is_measured_from_the_mean():
    pressure = np.array([[0.5, 0.5], [0.1, 0.9]])
    found = low_pressure(fields(0 * pressure, 0 * pressure, pressure))[0, 0, ..., 0]
    np.testing.assert_allclose(found, [[0, 0], [0.4, 0]], atol=1e-6)


def test_storms_that_go_straight_are_foretold_and_those_that_leave_are_gone():
    start, velocity = np.float32([[6, 4], [14, 15.3]]), np.float32([[0.7, 0.5], [0.2, 1.6]])
    steps = np.arange(7, dtype=np.float32)[:, None, None]
    centres = start + steps * velocity
    present = ((centres >= 0) & (centres <= [19, 21])).all(axis=-1)
    assert not present[-1, 1]
    truth = render(jnp.asarray(centres), jnp.full((7, 2), 1.6), jnp.asarray(present), size=(20, 22))[None, ..., None]
    found = constant_velocity(truth[:, :3], steps=4)
    np.testing.assert_allclose(found, truth[:, 3:], atol=0.06)


def test_a_storm_that_has_just_come_stands_still_and_an_empty_map_stays_empty():
    truth = render(jnp.full((1, 1, 2), 5.0), jnp.ones((1, 1)), jnp.ones((1, 1), bool), size=(11, 11))[None, ..., None]
    both = jnp.concatenate([0 * truth, truth], axis=1)
    np.testing.assert_allclose(constant_velocity(both, steps=2), jnp.repeat(truth, 2, axis=1), atol=0.02)
    np.testing.assert_array_equal(constant_velocity(0 * both, steps=2), 0)
