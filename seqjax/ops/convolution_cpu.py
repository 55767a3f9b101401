"""The three sums of a convolution on CPU, by the fastest of three roads; what `convolution` computes there.

XLA's CPU backend has one fast convolution: batch, space, channels by a kernel of space, inputs, outputs, with images
larger than the kernel and not few channels or features. Elsewhere a product of matrices is faster, twice to twenty
times:

    windows   What each output sees is gathered and multiplied by the kernel as one matrix. Where the image is smaller
              than the kernel (XLA slides the image over the kernel), where there are fewer positions than features (it
              reads a large kernel badly), and for few channels.
    taps      Pixels are multiplied by all taps of the kernel, and the products that belong to one place added up:
              for few features, as at the end of a generator.
    xla       All else.

Three dimensions are two: the frames that a kernel meets become channels, so that none of XLA's three-dimensional
convolutions is left, whose gradients are slow.

All roads are the same sums in another order, added up in float32 at least. Whom the choice serves is measured by
``experiments.bench.gan``.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

FEW = 4
"""Channels or features that are few for XLA's CPU backend."""


CACHE = 2**21
"""Bytes of images that are read again and again at the speed of the cache."""


class Geometry(NamedTuple):
    """Of a convolution: x to y by W.

    Attributes:
      inputs: shape of ``x``, ``[B, *space, C]``.
      kernel: shape of ``W``, ``[*K, C, D]``.
      stride: by spatial dimension.
      pads: rows of zeros before and after, by spatial dimension; negative ones are cut away.
    """

    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    def windows(self) -> list[tuple[int, int, int, int]]:
        """By spatial dimension: its size, that of the kernel, the zeros before, and the reach of the outputs, from the
        first row that a kernel begins at to the last."""
        rows = zip(self.inputs[1:-1], self.kernel, self.stride, self.pads, strict=False)
        return [(n, k, before, (n + before + after - k) // s * s) for n, k, s, (before, after) in rows]


def road(geometry: Geometry) -> Literal["windows", "taps", "xla"]:
    """Which way to the same sums is the fastest."""
    geometry = _flattened(geometry) or geometry
    *window, channels, features = geometry.kernel
    positions = math.prod(reach // s + 1 for (*_, reach), s in zip(geometry.windows(), geometry.stride, strict=True))
    one_by_one = set(geometry.stride) == {1}
    image_is_small = min(positions, math.prod(geometry.inputs[1:-1])) < math.prod(window)
    if image_is_small or geometry.inputs[0] * positions <= features:
        return "windows"
    if one_by_one and channels <= FEW:
        return "windows"
    if one_by_one and features <= FEW:
        return "taps"
    return "xla"


def strided(kernel: Array, inputs: Array, *, geometry: Geometry) -> Array:
    """The convolution: ``y`` of ``W`` and ``x``."""
    if flat := _flattened(geometry):
        outputs = strided(_in_frames(kernel), _frames(inputs, geometry=geometry), geometry=flat)
        return outputs.reshape(len(inputs), -1, *outputs.shape[1:])
    match road(geometry):
        case "windows":
            return _multiply(_rows(kernel), _windows(inputs, geometry=geometry))
        case "taps":
            return _by_taps(kernel, inputs, geometry=geometry)
        case _:
            return plain(inputs, kernel, geometry.pads, stride=geometry.stride)


def transposed(kernel: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """The transposed convolution: ``x`` of ``W`` and ``y``."""
    if flat := _flattened(geometry):
        exact = [x.astype(_exact(x.dtype) or x.dtype) for x in (_in_frames(kernel), _joined(outputs))]
        frames = transposed(*exact, geometry=flat)
        return adjoint(functools.partial(_frames, geometry=geometry), geometry.inputs, frames).astype(outputs.dtype)
    if road(geometry) == "windows":
        windows = _multiply(_rows(kernel).T, outputs, exact=True)
        added = adjoint(functools.partial(_windows, geometry=geometry), geometry.inputs, windows)
        return added.astype(outputs.dtype)
    *window, channels, _ = geometry.kernel
    if channels > FEW and max(geometry.stride) > 1 and all(map(int.__ge__, window, geometry.stride)):
        return _by_phases(kernel, outputs, geometry=geometry)
    pads = [(k - 1 - before, n + before - 1 - reach) for n, k, before, reach in geometry.windows()]
    return plain(outputs, _mirrored(kernel), pads, images_dilation=geometry.stride)


def correlated(inputs: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """The kernel's gradient: ``W`` of ``x`` and ``y``, of more images than the cache holds some at a time."""
    if flat := _flattened(geometry):
        found = correlated(_frames(inputs, geometry=geometry), _joined(outputs), geometry=flat)
        time, *window, channels, features = geometry.kernel
        return jnp.moveaxis(found.reshape(*window, time, channels, features), 2, 0)
    images, size = len(inputs), (inputs.nbytes + outputs.nbytes) // max(1, len(inputs))
    most = CACHE // max(1, size)
    piece = next((n for n in range(most, most // 4, -1) if images % n == 0), images)
    if piece == images:
        return _correlated(inputs, outputs, geometry=geometry).astype(inputs.dtype)
    some = geometry._replace(inputs=(piece, *geometry.inputs[1:]))

    def add(total: Array, pair: tuple[Array, ...]) -> tuple[Array, None]:
        x, y = pair
        return total + _correlated(x, y, geometry=some), None

    pieces = tuple(x.reshape(-1, piece, *x.shape[1:]) for x in (inputs, outputs))
    zeros = jnp.zeros(geometry.kernel, _exact(inputs.dtype) or inputs.dtype)
    return jax.lax.scan(add, zeros, pieces)[0].astype(inputs.dtype)


def _correlated(inputs: Array, outputs: Array, *, geometry: Geometry) -> Array:
    match road(geometry):
        case "windows":
            rows = _rows(_windows(inputs, geometry=geometry)).T
            product = jnp.matmul(rows, _rows(outputs), preferred_element_type=_exact(inputs.dtype))
            return product.reshape(geometry.kernel)
        case "taps":
            return _exchanged(inputs, outputs, geometry=geometry)
    pads = [(before, k + reach - n - before) for n, k, before, reach in geometry.windows()]
    images, kernel = jnp.moveaxis(inputs, (0, -1), (-1, 0)), jnp.moveaxis(outputs, 0, -2)
    return jnp.moveaxis(plain(images, kernel, pads, kernel_dilation=geometry.stride, exact=True), 0, -2)


def plain(
    images: Array,
    kernel: Array,
    pads: Sequence[tuple[int, int]],
    *,
    stride: Sequence[int] | None = None,
    images_dilation: Sequence[int] | None = None,
    kernel_dilation: Sequence[int] | None = None,
    exact: bool = False,
) -> Array:
    """XLA's, in the layout for which its CPU backend has a fast path everywhere. Where derivatives have theirs changed
    instead, as JAX's own do, it puts them right in the main program alone, and those in a loop or a branch stay slow.
    ``exact`` gives at least float32."""
    axes = "XYZ"[: len(pads)]
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        window_strides=stride or (1,) * len(axes),
        padding=pads,
        lhs_dilation=images_dilation,
        rhs_dilation=kernel_dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        preferred_element_type=_exact(images.dtype) if exact else None,
    )


def adjoint(linear: Callable[[Array], Array], shape: tuple[int, ...], cotangent: Array) -> Array:
    """``Lᵀ y`` of a linear function of an array of that shape."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


def _flattened(geometry: Geometry) -> Geometry | None:
    """Of a convolution of videos the one of images that it is, where frames that meet are channels; else None."""
    if len(geometry.pads) != 3:
        return None
    ((*_, reach), *_), (stride, *strides) = geometry.windows(), geometry.stride
    batch, _, *space, channels = geometry.inputs
    time, *window, _, features = geometry.kernel
    images = (batch * (reach // stride + 1), *space, time * channels)
    return Geometry(images, (*window, time * channels, features), tuple(strides), geometry.pads[1:])


def _frames(inputs: Array, *, geometry: Geometry) -> Array:
    """For each output the frames that it sees, ``[B·T, H, W, k·C]``."""
    pads = [(0, 0, 0), (*geometry.pads[0], 0), *[(0, 0, 0)] * 3]
    x = jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), pads)
    return _joined(jnp.concatenate([_met(x, 0, i, geometry) for i in range(geometry.kernel[0])], axis=-1))


def _in_frames(kernel: Array) -> Array:
    """The kernel for them, ``[*K, k·C, D]``."""
    moved = jnp.moveaxis(kernel, 0, 2)
    return moved.reshape(*moved.shape[:2], -1, moved.shape[-1])


def _joined(videos: Array) -> Array:
    """Time joined to the batch."""
    return videos.reshape(-1, *videos.shape[2:])


def _windows(inputs: Array, *, geometry: Geometry) -> Array:
    """What each output sees, ``[B, *space, ∏K·C]``."""
    space, x = len(geometry.pads), _pad(inputs, geometry)
    for axis in reversed(range(space)):
        x = jnp.stack([_met(x, axis, i, geometry) for i in range(geometry.kernel[axis])], axis=space + 1)
    return x.reshape(*x.shape[: space + 1], -1)


def _by_taps(kernel: Array, inputs: Array, *, geometry: Geometry) -> Array:
    """A product for each row of the kernel, whose taps are then shifted along the last axis."""
    *rows, last = range(len(geometry.pads))
    x, products = _pad(inputs, geometry), []
    for offsets in itertools.product(*(range(geometry.kernel[axis]) for axis in rows)):
        row = x
        for axis, i in zip(rows, offsets, strict=True):
            row = _met(row, axis, i, geometry)
        taps = jnp.swapaxes(kernel[offsets], 0, 1)  # [C, k, D]
        products.append(_multiply(taps.reshape(len(taps), -1), row, exact=True))
    total = sum(products[1:], products[0])
    by_tap = total.reshape(*total.shape[:-1], geometry.kernel[last], -1)
    shifted = [_met(by_tap[..., i, :], last, i, geometry) for i in range(geometry.kernel[last])]
    return sum(shifted[1:], shifted[0]).astype(inputs.dtype)


def _by_phases(kernel: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """Every stride-th row and column of x by itself, of the taps that reach it: no zeros are multiplied, of which many
    images make more than the cache holds."""
    space, phases = len(geometry.stride), []
    for first in itertools.product(*map(range, geometry.stride)):
        taps, pads = [], []
        for (n, k, before, reach), s, row in zip(geometry.windows(), geometry.stride, first, strict=True):
            shift, tap = divmod(row + before, s)
            taps.append(slice(tap, None, s))
            pads.append((len(range(tap, k, s)) - 1 - shift, -(-n // s) - 1 + shift - reach // s))
        phases.append(plain(outputs, _mirrored(kernel[tuple(taps)]), pads))
    *batch_and_sizes, channels = phases[0].shape
    x = jnp.stack(phases, axis=space + 1).reshape(*batch_and_sizes, *geometry.stride, channels)
    for axis in range(1, space + 1):  # the phases of a direction follow its rows
        x = jnp.moveaxis(x, space + axis, 2 * axis)
    sizes = [m * s for m, s in zip(batch_and_sizes[1:], geometry.stride, strict=True)]
    return x.reshape(len(outputs), *sizes, channels)[:, *(slice(n) for n in geometry.inputs[1:-1])]


def _mirrored(kernel: Array) -> Array:
    """The taps from last to first, features and channels exchanged."""
    return jnp.flip(kernel, axis=range(kernel.ndim - 2)).swapaxes(-1, -2)


def _exchanged(inputs: Array, outputs: Array, *, geometry: Geometry) -> Array:
    """W of x and y as that of y and x, mirrored: y, of few features, is the one to be cut into windows."""
    *window, channels, features = geometry.kernel
    pads = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(window, geometry.pads, strict=True))
    exchanged = Geometry(outputs.shape, (*window, features, channels), geometry.stride, pads)
    mirrored = _correlated(outputs, inputs, geometry=exchanged)
    return jnp.flip(mirrored, axis=range(len(window))).swapaxes(-1, -2)


def _pad(inputs: Array, geometry: Geometry) -> Array:
    config = [(0, 0, 0), *((*pad, 0) for pad in geometry.pads), (0, 0, 0)]
    return jax.lax.pad(inputs, jnp.zeros((), inputs.dtype), config)


def _met(x: Array, axis: int, first: int, geometry: Geometry) -> Array:
    """Of the padded x, along a spatial axis, what the tap ``first`` of the kernel meets."""
    reach = geometry.windows()[axis][-1]
    return jax.lax.slice_in_dim(x, first, first + reach + 1, geometry.stride[axis], axis=axis + 1)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _multiply(matrix: Array, x: Array, exact: bool = False) -> Array:
    """The product along the last axis; ``exact`` where more is added to it, so that it is not rounded to bfloat16."""
    dtype = _exact(x.dtype) if exact else None
    # As matrices: contracting several axes makes XLA's CPU backend transpose copies.
    return jnp.matmul(_rows(x), matrix, preferred_element_type=dtype).reshape(*x.shape[:-1], matrix.shape[-1])


def _exact(dtype: Any) -> Any:
    """What sums of numbers of half precision are kept in; None for others, which keep their own."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else None
