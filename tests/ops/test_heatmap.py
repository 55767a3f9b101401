"""Oracles: loops over pixels and points in NumPy float64, and scikit-image's local maxima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage.feature import peak_local_max

from seqjax.errors import InputError
from seqjax.ops import heatmap
from seqjax.ops.heatmap import match, render

peaks = jax.jit(heatmap.peaks, static_argnames=("number", "radius"))
CENTRES = np.float32([[[3.0, 4.0], [8.6, 10.3]], [[0.2, 11.0], [5.5, 5.5]], [[-3.0, 2.0], [9.0, 30.0]]])
SIGMA = np.float32([[1.5, 0.8], [2.0, 1.0], [1.0, 1.2]])
PRESENT = np.array([[True, True], [True, False], [True, True]])
SIZE = (10, 13)


def drawn(normalise, present=PRESENT):
    return render(*map(jnp.asarray, (CENTRES, SIGMA, present)), size=SIZE, normalise=normalise)


@pytest.mark.parametrize("normalise", ["peak", "mass"])
def test_maps_against_a_loop_over_pixels(normalise):
    maps = np.zeros((3, *SIZE))
    for b, n in itertools.product(range(3), range(2)):
        component = np.zeros(SIZE)
        for i, j in np.ndindex(SIZE):
            square = (i - np.float64(CENTRES[b, n, 0])) ** 2 + (j - np.float64(CENTRES[b, n, 1])) ** 2
            component[i, j] = np.exp(-square / (2 * np.float64(SIGMA[b, n]) ** 2))
        if not PRESENT[b, n]:
            continue
        if normalise == "peak":
            maps[b] = np.maximum(maps[b], component / component.max())
        else:
            maps[b] += component / component.sum()
    np.testing.assert_allclose(drawn(normalise), maps, rtol=1e-4, atol=1e-6)


def test_mass_is_the_number_of_points_and_peaks_are_one():
    np.testing.assert_allclose(drawn("mass").sum(axis=(1, 2)), [2, 1, 2], rtol=1e-5)
    np.testing.assert_array_equal(drawn("peak").max(axis=(1, 2)), 1)
    np.testing.assert_array_equal(drawn("peak", np.zeros_like(PRESENT)), 0)


def test_slope_of_a_map_by_its_points():
    def total(centres, sigma):
        maps = render(*map(jnp.asarray, (centres, sigma, PRESENT[:2])), size=SIZE, normalise="mass")
        return jnp.sum(jnp.sin(7 * maps))

    check_grads(total, (jnp.asarray(CENTRES[:2]), jnp.asarray(SIGMA[:2])), order=1, modes=["rev"], eps=1e-2, rtol=1e-2)


def test_points_that_are_apart_are_found_again():
    """Between pixels too; two within the radius are one, the higher."""
    truth = np.float32([[4.3, 5.8], [15.0, 7.5], [9.9, 18.2]])
    maps = render(jnp.asarray(truth), jnp.full(3, 1.4), jnp.ones(3, bool), size=(20, 24))
    found = peaks(maps, number=3, radius=3)
    order = np.lexsort(np.asarray(found.centres).T[::-1])
    np.testing.assert_allclose(np.asarray(found.centres)[order], truth[np.lexsort(truth.T[::-1])], atol=1e-3)
    np.testing.assert_array_equal(found.values, 1)
    two = jnp.zeros((9, 9)).at[4, 4].set(1.0).at[4, 6].set(0.9)
    np.testing.assert_array_equal(peaks(two, number=2, radius=2).centres[0], [4, 4])
    assert peaks(two, number=2, radius=2).values[1] < 0.9
    np.testing.assert_allclose(peaks(two, number=2, radius=1.9).values, [1, 0.9])


def greedy(image, number, radius):
    """Highest first, by sorting scikit-image's local maxima."""
    left = sorted(map(tuple, peak_local_max(image, min_distance=1, exclude_border=False)), key=lambda p: -image[p])
    kept = []
    for place in left:
        if all(np.hypot(place[0] - k[0], place[1] - k[1]) > radius for k in kept):
            kept.append(place)
    return kept[:number]


@pytest.mark.parametrize(("number", "radius"), [(4, 1.0), (6, 3.0), (12, 5.0)])
def test_suppression_against_sorted_maxima(number, radius):
    images = np.random.default_rng(0).random((2, 2, 11, 14)).astype(np.float32)
    found = peaks(images, number=number, radius=radius)
    for index in np.ndindex(2, 2):
        expected = greedy(images[index], number, radius)
        values = np.asarray(found.values[index])
        np.testing.assert_array_equal(np.isfinite(values), np.arange(number) < len(expected))
        np.testing.assert_array_equal(values[: len(expected)], [images[index][place] for place in expected])
        assert np.abs(np.asarray(found.centres[index])[: len(expected)] - expected).max() <= 0.5


def test_thresholds_before_and_after_are_the_same():
    image = np.random.default_rng(1).random((9, 9)).astype(np.float32)
    after = peaks(jnp.asarray(image), number=20, radius=2)
    before = peaks(jnp.asarray(np.where(image > 0.8, image, 0)), number=20, radius=2)
    high = np.asarray(after.values) > 0.8
    np.testing.assert_array_equal(np.asarray(before.values)[: high.sum()], np.asarray(after.values)[high])


def test_place_stays_at_the_border_and_beside_zeros():
    edge = jnp.zeros((5, 5)).at[0, 2].set(1.0).at[0, 3].set(0.8).at[0, 1].set(0.5)
    np.testing.assert_array_equal(peaks(edge, number=1, radius=1).centres[0, 0], 0)
    assert 0 < peaks(edge, number=1, radius=1).centres[0, 1] - 2 < 0.5
    alone = jnp.zeros((5, 5)).at[2, 2].set(1.0)
    np.testing.assert_array_equal(peaks(alone, number=1, radius=1).centres, [[2, 2]])


def matched(found, valid, truth, present, radius):
    free, out = set(np.flatnonzero(present)), []
    for point, counts in zip(found, valid, strict=True):
        near = [(np.hypot(*(point - truth[n])), n) for n in sorted(free)]
        near = [pair for pair in near if pair[0] <= radius]
        out.append(min(near)[1] if counts and near else -1)
        free -= {out[-1]}
    return out


@pytest.mark.parametrize("radius", [1.0, 2.5, 100.0])
def test_matching_against_a_loop(radius):
    rng = np.random.default_rng(2)
    found, truth = (rng.uniform(0, 6, (3, 4, n, 2)).astype(np.float32) for n in (5, 3))
    valid, present = rng.random((3, 4, 5)) < 0.8, rng.random((3, 4, 3)) < 0.7
    result = match(*map(jnp.asarray, (found, valid, truth, present)), radius=radius)
    for index in np.ndindex(3, 4):
        assert result[index].tolist() == matched(*(x[index] for x in (found, valid, truth, present)), radius)


def test_without_leading_dimensions_and_over_them():
    image = jnp.asarray(np.random.default_rng(3).random((4, 6, 7)), jnp.float32)
    all_at_once = peaks(image, number=3, radius=2)
    for single, centres, values in zip(image, *all_at_once, strict=True):
        alone = peaks(single, number=3, radius=2)
        np.testing.assert_array_equal(alone.centres, centres)
        np.testing.assert_array_equal(alone.values, values)


def test_half_precision_is_read():
    assert peaks(jnp.ones((3, 3), jnp.bfloat16), number=1, radius=1).values.dtype == jnp.float32


def test_bad_options_are_named():
    with pytest.raises(InputError, match="number is 0"):
        peaks(jnp.ones((3, 3)), number=0, radius=1)


def test_another_normalisation_is_refused(unchecked):
    with pytest.raises(InputError, match="'sum'"):
        render(jnp.zeros((1, 2)), jnp.ones(1), jnp.ones(1, bool), size=(3, 3), normalise="sum")
