"""Maps of places: points drawn as Gaussians, peaks found again, points matched with points.

A point is (row, column) in pixels, (0, 0) the middle of the first pixel. Maps are ``[*B, H, W]``, without a channel.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.errors import InputError


def render(
    centres: Float[Array, "*B N 2"],
    sigma: Float[Array, "*B N"],
    present: Bool[Array, "*B N"],
    *,
    size: tuple[int, int],
    normalise: Literal["peak", "mass"] = "peak",
) -> Float[Array, "*B {size[0]} {size[1]}"]:
    """One map of N points, each ``g_n(i, j) ∝ exp(-((i - r_n)² + (j - c_n)²) / 2σ_n²)``.

    With "peak" every component is scaled so that its largest pixel is exactly 1 and the map is their maximum, so that
    near points stay two peaks; with "mass" every component sums to exactly 1 over the pixels and the map is their sum,
    which integrates to the number of points (a density). Both hold for centres between pixels, near the border and
    outside, where the component is what of the Gaussian lies inside, scaled up. Computed in the centres' dtype.

    Args:
      centres: (r_n, c_n) in pixels.
      sigma: ``σ_n`` in pixels, above 0.
      present: False leaves the point out.
      size: H, W.
      normalise: which of the two.

    Raises:
      InputError: for another ``normalise``.
    """
    if normalise not in ("peak", "mass"):
        raise InputError(f"render: normalise is {normalise!r}; expected 'peak' or 'mass'.")
    rows, columns = (
        _bump(centres[..., axis], sigma, length, peak=normalise == "peak") for axis, length in enumerate(size)
    )
    rows = jnp.where(present[..., None], rows, 0)
    if normalise == "mass":
        return jnp.einsum("...nh,...nw->...hw", rows, columns, precision="highest")
    return jnp.max(rows[..., :, None] * columns[..., None, :], axis=-3, initial=0)


def _bump(place: Array, sigma: Array, length: int, *, peak: bool) -> Array:
    """Along one axis, ``[*B, N, length]``. From exponents that are 0 at their largest, so that nothing is 0 / 0."""
    pixels = jnp.arange(length, dtype=place.dtype).reshape(*[1] * place.ndim, length)
    exponents = -jnp.square((pixels - place[..., None]) / sigma[..., None]) / 2
    if not peak:
        return jax.nn.softmax(exponents, axis=-1)
    return jnp.exp(exponents - jnp.max(exponents, axis=-1, keepdims=True))


class Peaks(NamedTuple):
    """Of each map, K places, the highest first."""

    centres: Float[Array, "*B K 2"]
    """Row and column in pixels, between pixels too."""
    values: Float[Array, "*B K"]
    """Of the map at the pixel; -inf where a map has fewer than K peaks."""


def peaks(maps: Float[Array, "*B H W"], *, number: int, radius: float | int) -> Peaks:
    """Local maxima, the highest first, none within ``radius`` of a higher one (greedy non-maximum suppression).

    A peak is a pixel that none of its eight neighbours exceeds. Because a lower peak never suppresses a higher one,
    those above a threshold are the same whether it is applied before or after. The place is moved off the pixel by the
    top of the parabola through the logarithms of it and its two neighbours, half a pixel at most, which is exact for a
    Gaussian; on the border and where a value is not above 0 it stays. Computed in float32.

    Args:
      maps: finite.
      number: ``K``, the most that are looked for.
      radius: in pixels, inclusive.

    Raises:
      InputError: for a number below 1.
    """
    if number < 1:
        raise InputError(f"peaks: number is {number}; expected how many peaks to look for, 1 or more.")
    *leading, height, width = maps.shape
    images = maps.astype(jnp.float32).reshape(-1, height, width)
    around = jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
    place_of = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)

    def highest(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        index = jnp.argmax(left, axis=1)
        value = jnp.take_along_axis(left, index[:, None], axis=1)[:, 0]
        apart = (place_of[None] - place_of[index][:, None]).astype(jnp.float32)
        near = jnp.sum(jnp.square(apart), axis=-1) <= radius**2
        return jnp.where(near, -jnp.inf, left), (place_of[index], value)

    candidates = jnp.where(images >= around, images, -jnp.inf).reshape(-1, height * width)
    _, (places, values) = jax.lax.scan(highest, candidates, None, length=number)
    places, values = jnp.swapaxes(places, 0, 1), jnp.swapaxes(values, 0, 1)
    centres = places.astype(jnp.float32) + _summit(images, places)
    return Peaks(centres.reshape(*leading, number, 2), values.reshape(*leading, number))


def _summit(images: Float[Array, "M H W"], places: Int[Array, "M K 2"]) -> Float[Array, "M K 2"]:
    """From each pixel to the top of the parabola through the logarithms, along either axis."""
    size = jnp.asarray(images.shape[1:])
    shifts = []
    for axis in (0, 1):
        step = jnp.zeros(2, places.dtype).at[axis].set(1)
        rows = jnp.arange(len(images))[:, None]
        values = []
        for offset in (-step, 0 * step, step):
            there = jnp.clip(places + offset[None, None], 0, (size - 1)[None, None])
            values.append(images[rows, there[..., 0], there[..., 1]])
        inside = (places[..., axis] > 0) & (places[..., axis] < size[axis] - 1)
        usable = inside & (jnp.minimum(values[0], values[2]) > 0)
        before, here, after = (jnp.log(jnp.where(usable, value, 1.0)) for value in values)
        bend = 2 * here - before - after
        shift = (after - before) / (2 * jnp.where(bend > 0, bend, 1.0))
        shifts.append(jnp.where(usable & (bend > 0), jnp.clip(shift, -0.5, 0.5), 0.0))
    return jnp.stack(shifts, axis=-1)


def match(
    found: Float[Array, "*B K 2"],
    valid: Bool[Array, "*B K"],
    truth: Float[Array, "*B N 2"],
    present: Bool[Array, "*B N"],
    *,
    radius: float | int = math.inf,
) -> Int[Array, "*B K"]:
    """Greedy matching one to one: each found point in turn takes the nearest true one within ``radius`` that is free.

    As detections are matched with objects, in order of confidence: what a point gets does not depend on those after
    it, so that one matching serves every threshold.

    Args:
      found: in order.
      valid: False leaves a found point out.
      truth: what may be taken.
      present: False leaves a true point out.
      radius: largest distance, inclusive.

    Returns:
      The index of the true point that each found one has, or -1.
    """
    apart = jnp.linalg.norm(found[..., :, None, :] - truth[..., None, :, :], axis=-1)
    open_ = (apart <= radius) & valid[..., :, None] & present[..., None, :]
    apart = jnp.where(open_, apart, jnp.inf)

    def take(taken: Array, distances: Array) -> tuple[Array, Array]:
        distances = jnp.where(taken, jnp.inf, distances)
        nearest = jnp.argmin(distances, axis=-1)
        hit = jnp.min(distances, axis=-1) < jnp.inf
        mine = jax.nn.one_hot(nearest, truth.shape[-2], dtype=bool)
        return taken | (mine & hit[..., None]), jnp.where(hit, nearest, -1)

    _, taken_by = jax.lax.scan(take, jnp.zeros(present.shape, bool), jnp.moveaxis(apart, -2, 0))
    return jnp.moveaxis(taken_by, 0, -1)
