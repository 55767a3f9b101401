"""What a tracker or forecaster of storms has to beat: maps that need no training.

Of a tracker: `low_pressure` and `vorticity`. Of a forecaster: persistence, which is `baselines.copy_last`, and
`constant_velocity`. Fields are pressure, eastward and northward wind, in that order, whatever follows; rows go north.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.ops.heatmap import match, peaks, render


def low_pressure(fields: Float[Array, "B T H W C"]) -> Float[Array, "B T H W 1"]:
    """How far the pressure is below the mean of its frame, 0 where it is above; in units of the field."""
    pressure = fields[..., :1]
    return jax.nn.relu(jnp.mean(pressure, axis=(2, 3), keepdims=True) - pressure)


def vorticity(fields: Float[Array, "B T H W C"]) -> Float[Array, "B T H W 1"]:
    """``ζ = ∂v/∂x - ∂u/∂y`` by central differences, 0 where it is negative; per pixel.

    At the border the outermost rows and columns are repeated.
    """
    u, v = fields[..., 1], fields[..., 2]
    return jax.nn.relu(_slope(v, axis=3) - _slope(u, axis=2))[..., None]


def _slope(field: Float[Array, "B T H W"], *, axis: int) -> Float[Array, "B T H W"]:
    padded = jnp.pad(field, [(int(k == axis),) * 2 for k in range(4)], mode="edge")
    length = field.shape[axis]
    after, before = (jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in (2, 0))
    return (after - before) / 2


def constant_velocity(
    context: Float[Array, "B P H W 1"], *, steps: int, number: int = 8, suppression: float = 3.0, reach: float = 4.0
) -> Float[Array, "B S H W 1"]:
    """Every storm of the last map goes on as it went over the last step.

    Centres are the peaks above a half. One has the velocity from the nearest of the step before, within `reach`; one
    without stands still. The deviation of all Gaussians of a map is what its sum and number of peaks say: a Gaussian of
    height 1 has the sum ``2πσ²``. At least two maps.
    """
    height, width = context.shape[2:4]
    found = peaks(context[:, -2:, ..., 0], number=number, radius=suppression)
    shown = found.values > 0.5
    (before, last), (was, present) = (jnp.moveaxis(x, 1, 0) for x in (found.centres, shown))
    came_from = match(last, present, before, was, radius=reach)
    origin = jnp.take_along_axis(before, jnp.maximum(came_from, 0)[..., None], axis=1)
    velocity = jnp.where((came_from >= 0)[..., None], last - origin, 0.0)
    count = jnp.maximum(jnp.sum(present, axis=1, dtype=jnp.float32), 1.0)
    sigma = jnp.sqrt(jnp.sum(context[:, -1], axis=(1, 2, 3)) / (2 * jnp.pi * count))
    sigma = jnp.broadcast_to(jnp.maximum(sigma, 0.5)[:, None, None], (len(context), steps, number))
    ahead = jnp.arange(1, steps + 1, dtype=velocity.dtype).reshape(1, steps, 1, 1)
    centres = last[:, None] + ahead * velocity[:, None]
    end = jnp.asarray([height - 1, width - 1], centres.dtype).reshape(1, 1, 1, 2)
    inside = jnp.all((centres >= 0) & (centres <= end), axis=-1)
    return render(centres, sigma, present[:, None] & inside, size=(height, width))[..., None]
