"""Looking at a part of an image: the retina of recurrent attention, and DRAW's grid of Gaussian windows.

A `retina` is cut out at whole pixels and has no gradient to its place: where to look is learned from rewards
(`seqjax.ops.policy`). The grid of `gaussian_window` has one: `read` takes a patch through it, `write` puts one back.
Places are ``(x, y)``, x along the width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.softmax import wide


def retina(
    images: Float[Array, "*B H W C"], places: Float[Array, "*B 2"], *, size: int, scales: int = 1, ratio: int = 2
) -> Float[Array, "*B {scales} {size} {size} C"]:
    """Square patches around a place, each scale ``ratio`` times as wide as the last, all brought to one size.

    Patch j has the side ``size · ratio^j`` and becomes ``[size, size]`` by the mean over blocks. Its corner is at pixel
    ``⌊c - side/2 + 1/2⌋`` of each axis, where ``c = (l + 1)/2 · n`` is the place among n pixels: at l = 0 a patch as
    large as the image is the image. What lies outside the image is zero.

    Args:
      images: any leading dimensions.
      places: l = (x, y) in [-1, 1]: (-1, -1) is the upper left corner, (0, 0) the middle; clipped to that range. No
        gradient goes to them.
      size: g, the side of every patch that comes out.
      scales: k, how many patches.
      ratio: of their sides, one to the next.

    Raises:
      InputError: if size, scales or ratio is less than 1.

    Source: Mnih et al., *Recurrent Models of Visual Attention*, 2014, section 3.1 (glimpse sensor).
    """
    if min(size, scales, ratio) < 1:
        raise InputError(
            f"retina: size is {size}, scales {scales} and ratio {ratio}; expected whole numbers of at least 1."
        )
    *batch, height, width, channels = images.shape
    centres = (jnp.clip(jax.lax.stop_gradient(places.astype(jnp.float32)), -1, 1) + 1) / 2
    flat, centres = images.reshape(-1, height, width, channels), centres.reshape(-1, 2)
    patches = [_patch(flat, centres, size, ratio**j) for j in range(scales)]
    return jnp.stack(patches, axis=1).reshape(*batch, scales, size, size, channels)


class Window(NamedTuple):
    """A grid of N x N Gaussian filters over an image, in pixels."""

    centre: Float[Array, "*B 2"]
    """``(g_X, g_Y)``."""
    stride: Float[Array, "*B"]
    """``δ``, between neighbouring filters."""
    variance: Float[Array, "*B"]
    """``σ²``, of each."""
    intensity: Float[Array, "*B"]
    """``γ``, what is read is multiplied by and what is written divided by."""


def gaussian_window(numbers: Float[Array, "*B 5"], *, height: int, width: int, taps: int) -> Window:
    """The window that a network asks for by five numbers ``(g̃_X, g̃_Y, log σ², log δ̃, log γ)``.

        g_X = (W + 1)/2 · (g̃_X + 1) - 1,    δ = (max(H, W) - 1)/(N - 1) · δ̃

    in pixels counted from 0, where the paper counts from 1. All zeros cover the image with filters of variance 1. The
    logarithms are clipped to [-6, 6].

    Args:
      numbers: of each image.
      height: H.
      width: W.
      taps: N, at least 2.

    Raises:
      InputError: if taps is less than 2, or there are not five numbers.

    Source: Gregor et al., *DRAW: A Recurrent Neural Network for Image Generation*, 2015, Eq. 21 to 24.
    """
    if taps < 2:
        raise InputError(f"gaussian_window: taps is {taps}; expected at least 2, since the stride is a share of N - 1.")
    if numbers.shape[-1] != 5:
        raise InputError(f"gaussian_window: numbers have shape {numbers.shape}; expected five at the end, [*B, 5].")
    # A place among hundreds of pixels has more digits than half precision.
    x, y, *logarithms = jnp.moveaxis(numbers.astype(wide(numbers)), -1, 0)
    variance, stride, intensity = (jnp.exp(jnp.clip(z, -6, 6)) for z in logarithms)
    centre = jnp.stack([(width + 1) / 2 * (x + 1) - 1, (height + 1) / 2 * (y + 1) - 1], axis=-1)
    return Window(centre, (max(height, width) - 1) / (taps - 1) * stride, variance, intensity)


def window_edges(window: Window, *, taps: int) -> Float[Array, "*B 4"]:
    """Left, top, right and bottom of a window in pixels from the upper left corner of the image.

    ``g + 1/2 ± ((N - 1)/2 · δ + 1/2)``: the middles of the outer filters, and half a pixel more, since pixel a is
    between a and a + 1.

    Args:
      window: its grid.
      taps: N.
    """
    middle = window.centre + 0.5
    reach = jnp.broadcast_to(((taps - 1) / 2 * window.stride + 0.5)[..., None], middle.shape)
    return jnp.concatenate([middle - reach, middle + reach], axis=-1)


def gaussian_filters(
    centre: Float[Array, "*B"], stride: Float[Array, "*B"], variance: Float[Array, "*B"], *, taps: int, size: int
) -> Float[Array, "*B {taps} {size}"]:
    """``F[i, a] ∝ exp(-(a - μ_i)² / 2σ²)``, ``μ_i = g + (i - (N - 1)/2) δ``: N filters over the pixels of one axis.

    Every row sums to 1, wherever its middle is: far outside the image it becomes the nearest pixel. The released codes
    add a small number to the sum instead, and have rows of zeros there.

    Args:
      centre: ``g`` in pixels.
      stride: ``δ``.
      variance: ``σ²``.
      taps: N.
      size: how many pixels.

    Source: Gregor et al., 2015, Eq. 19, 20, 25 and 26.
    """
    offsets = jnp.arange(taps, dtype=centre.dtype) - (taps - 1) / 2
    means = centre[..., None] + stride[..., None] * jnp.broadcast_to(offsets, (*stride.shape, taps))
    pixels = jnp.broadcast_to(jnp.arange(size, dtype=centre.dtype), (*means.shape, size))
    squares = jnp.square(pixels - jnp.broadcast_to(means[..., None], pixels.shape))
    return jax.nn.softmax(-squares / (2 * jnp.broadcast_to(variance[..., None, None], pixels.shape)), axis=-1)


def read(images: Float[Array, "*B H W C"], window: Window, *, taps: int) -> Float[Array, "*B {taps} {taps} C"]:
    """``γ F_Y x F_Xᵀ``, every channel by itself.

    Source: Gregor et al., 2015, Eq. 27.
    """
    if images.ndim != window.centre.ndim + 2:
        raise InputError(
            f"read: images have shape {images.shape}, windows {window.stride.shape}; expected [*B, H, W, C] and [*B]."
        )
    height, width = images.shape[-3:-1]
    filters_x, filters_y = _filters(window, taps, height, width)
    patch = jnp.einsum("...ih,...hwc,...jw->...ijc", filters_y, images, filters_x)
    return patch * jnp.broadcast_to(window.intensity[..., None, None, None], patch.shape)


def write(
    patch: Float[Array, "*B N N C"], window: Window, *, height: int, width: int
) -> Float[Array, "*B {height} {width} C"]:
    """``F_Yᵀ w F_X / γ``: the adjoint of `read`, but for its intensity, whose inverse it has.

    Source: Gregor et al., 2015, Eq. 28 and 29.
    """
    filters_x, filters_y = _filters(window, patch.shape[-2], height, width)
    image = jnp.einsum("...ih,...ijc,...jw->...hwc", filters_y, patch, filters_x)
    return image / jnp.broadcast_to(window.intensity[..., None, None, None], image.shape)


def _filters(window: Window, taps: int, height: int, width: int) -> tuple[Array, Array]:
    filters_x, filters_y = (
        gaussian_filters(window.centre[..., axis], window.stride, window.variance, taps=taps, size=size)
        for axis, size in enumerate((width, height))
    )
    return filters_x, filters_y


def _patch(images: Array, centres: Array, size: int, block: int) -> Array:
    """``[B, size, size, C]``, each the mean over block x block pixels."""
    _, height, width, channels = images.shape
    side = size * block
    # Places in [0, n] put the corner between -side/2 and n - side/2: so much is outside at most.
    padded = jnp.pad(images, ((0, 0), (side, side), (side, side), (0, 0)))
    extent = jnp.broadcast_to(jnp.asarray([width, height], jnp.float32), centres.shape)
    corners = jnp.floor(centres * extent - side / 2 + 0.5).astype(jnp.int32) + side

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (corner[1], corner[0], 0), (side, side, channels))

    patches = jax.vmap(cut)(padded, corners).reshape(-1, size, block, size, block, channels)
    return jnp.mean(patches, axis=(2, 4))
