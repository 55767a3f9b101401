"""Distances between images, one value per frame; the caller reduces.

Every function takes two arrays [*B, H, W, C] of one shape (a video is [B, T, H, W, C]) and returns [*B].
Shapes that differ are an error, never broadcast. All is computed and returned in float32, whatever came.
"""

import math
from typing import Literal, NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError

SSIMVariant = Literal["gauss11", "uniform7", "uint8", "openstl"]


def squared_error(predictions: Float[Array, "*B H W C"], targets: Float[Array, "*B H W C"]) -> Float[Array, "*B"]:
    """Squared error summed over pixels and channels: Σ_{h,w,c} (predictions - targets)².

    Its mean over frames and sequences, with pixels in [0, 1], is the "MSE" of the Moving MNIST tables.
    """
    return jnp.sum(jnp.square(_difference(predictions, targets)), axis=(-3, -2, -1))


def absolute_error(predictions: Float[Array, "*B H W C"], targets: Float[Array, "*B H W C"]) -> Float[Array, "*B"]:
    """Absolute error summed over pixels and channels: Σ_{h,w,c} |predictions - targets|."""
    return jnp.sum(jnp.abs(_difference(predictions, targets)), axis=(-3, -2, -1))


def gradient_difference(
    predictions: Float[Array, "*B H W C"],
    targets: Float[Array, "*B H W C"],
    *,
    exponent: float = 1.0,
    border: Literal["valid", "same"] = "valid",
) -> Float[Array, "*B"]:
    """How far the steepness of edges is off, whatever their sign and the level of grey, of each frame:

        mean | |∂x x̂| - |∂x x| |^a  +  mean | |∂y x̂| - |∂y x| |^a

    with differences of neighbouring pixels and means over the frame and its channels. Least squares alone blur, since
    a blurred edge costs little; here it costs as much as it is flatter. Against a black frame (a = 1) it is the frame's
    mean steepness.

    Args:
      predictions: ``x̂``, best in [0, 1].
      targets: ``x``, in the same range.
      exponent: ``a``, at least 1.
      border: "valid" takes the differences that there are; "same", as the released code of MCNet does, one more in
        every row and column, from the last pixel to a zero, so that the level of the last pixels counts too.

    Source: Mathieu, Couprie, LeCun, *Deep Multi-Scale Video Prediction Beyond Mean Square Error*, 2016, Eq. 6, where it
    is a sum; means are those of the code of Villegas et al., 2017.
    """
    chex.assert_equal_shape([predictions, targets])

    def along(axis: int) -> Array:
        steep = []
        for images in (predictions, targets):
            images = images.astype(jnp.float32)
            if border == "same":
                images = jnp.pad(images, [(0, int(i == images.ndim + axis)) for i in range(images.ndim)])
            steep.append(jnp.abs(jnp.diff(images, axis=axis)))
        difference = jnp.abs(steep[0] - steep[1])
        return jnp.mean(difference if exponent == 1 else difference**exponent, axis=(-3, -2, -1))

    return along(-2) + along(-3)


def psnr(
    predictions: Float[Array, "*B H W C"],
    targets: Float[Array, "*B H W C"],
    *,
    data_range: float = 1.0,
) -> Float[Array, "*B"]:
    """Peak signal-to-noise ratio of each frame in decibels: -10 log₁₀(MSE / data_range²).

    MSE is the mean over the frame's pixels and channels, data_range the span of the pixel values (1 for
    [0, 1], 2 for [-1, 1]). Equal frames give +infinity, and there no gradient exists. Average the
    decibels of frames; the PSNR of an averaged MSE is a different, lower number (Jensen).
    """
    pixels = math.prod(predictions.shape[-3:])
    mse = squared_error(predictions, targets) / pixels
    return -10 * jnp.log10(mse / data_range**2)


def ssim(
    predictions: Float[Array, "*B H W C"],
    targets: Float[Array, "*B H W C"],
    *,
    variant: SSIMVariant = "gauss11",
    data_range: float = 1.0,
) -> Float[Array, "*B"]:
    """Structural similarity of each frame: 1 for equal frames, about 0 for unrelated ones.

        SSIM = mean of  (2 μx μy + C₁)(2 σxy + C₂) / ((μx² + μy² + C₁)(σx² + σy² + C₂))

    over channels and over the positions where the whole window lies inside the image; μ, σ², σxy are the
    means, variances and covariance under the window around a position, C₁ = (0.01 L)², C₂ = (0.03 L)².
    Pixels lie in [0, data_range]; nothing is clipped except by "uint8". The published variants differ so
    much that a number without its variant means nothing:

        variant     window                  (co)variance  L               used by
        gauss11     Gaussian 11x11, σ 1.5   population    data_range      Wang et al.; SVG; SRVP
        uniform7    uniform 7x7             sample        data_range      scikit-image's defaults
        uint8       uniform 7x7             sample        255             PredRNN
        openstl     uniform 7x7             sample        2·data_range    OpenSTL

    "uint8" first cuts pixels down to whole levels, as PredRNN's `np.uint8(255 * x)` does, and so has zero
    gradient: it is no loss. "openstl" takes [0, 1] images for images in [-1, 1], as older versions of
    scikit-image took every float image, and flatters. All but "uint8" are differentiable everywhere.

    InputError if the image is smaller than the window or the variant unknown.

    Source: Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment: From Error Visibility to Structural
    Similarity, 2004, Eq. 13.
    """
    chex.assert_equal_shape([predictions, targets])
    if variant not in _SSIM:
        raise InputError(f"ssim: variant={variant!r} is unknown; expected one of {', '.join(_SSIM)}.")
    size = len(_SSIM[variant].window)
    if min(predictions.shape[-3:-1]) < size:
        raise InputError(
            f"ssim: images of height and width {predictions.shape[-3:-1]} are smaller than the window of "
            f"variant={variant!r}; expected at least {size} pixels each way: use larger images or a variant "
            f"with a smaller window."
        )
    x, y = (jnp.moveaxis(v.astype(jnp.float32) / data_range, -1, -3) for v in (predictions, targets))
    return jnp.mean(_similarity(x, y, _SSIM[variant]), axis=(-3, -2, -1))


class _Variant(NamedTuple):
    window: tuple[float, ...]
    bessel: float
    level_range: float
    levels: int


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    weights = [math.exp(-0.5 * ((k - size // 2) / sigma) ** 2) for k in range(size)]
    return tuple(weight / math.fsum(weights) for weight in weights)


# Pixels are in [0, 1] here; SSIM does not change when pixels and L are scaled together.
_UNIFORM = (1 / 7,) * 7
_SAMPLE = 49 / 48
_SSIM = {
    "gauss11": _Variant(_gaussian(11, 1.5), bessel=1.0, level_range=1.0, levels=0),
    "uniform7": _Variant(_UNIFORM, _SAMPLE, level_range=1.0, levels=0),
    "uint8": _Variant(_UNIFORM, _SAMPLE, level_range=1.0, levels=255),
    "openstl": _Variant(_UNIFORM, _SAMPLE, level_range=2.0, levels=0),
}


def _difference(predictions: Array, targets: Array) -> Array:
    chex.assert_equal_shape([predictions, targets])
    return predictions.astype(jnp.float32) - targets.astype(jnp.float32)


def _similarity(x: Array, y: Array, variant: _Variant) -> Array:
    """The map of SSIM by position, for single-channel images [.., H, W] in [0, 1]."""
    window, bessel, level_range, levels = variant
    if levels:
        x, y = (jnp.floor(jnp.clip(image, 0, 1) * levels) / levels for image in (x, y))

    # Means of the whole image are taken out before squaring: in float32 the variance of a flat bright
    # region, E[x²] - E[x]², would otherwise be rounding noise that C₂ is too small to drown.
    centre_x, centre_y = (jnp.mean(image, axis=(-2, -1), keepdims=True) for image in (x, y))
    x, y = x - centre_x, y - centre_y
    mean_x, mean_y = _windowed_mean(x, window), _windowed_mean(y, window)
    variances = bessel * (_windowed_mean(x**2 + y**2, window) - mean_x**2 - mean_y**2)
    covariance = bessel * (_windowed_mean(x * y, window) - mean_x * mean_y)
    mean_x, mean_y = mean_x + centre_x, mean_y + centre_y

    c1, c2 = (0.01 * level_range) ** 2, (0.03 * level_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _windowed_mean(images: Array, window: tuple[float, ...]) -> Array:
    """Weighted mean under a separable window at every position where it fits: [.., H, W] to [.., H', W'].

    One product with a banded matrix per axis: on a CPU many times faster than shifted sums or a
    convolution, above all backwards.
    """
    for _ in range(2):
        band = _band(images.shape[-2], window)
        images = jnp.einsum("...hw,ih->...wi", images, band, precision="highest")
    return images


def _band(size: int, window: tuple[float, ...]) -> Array:
    taps = len(window)
    lags = jnp.arange(size)[None, :] - jnp.arange(size - taps + 1)[:, None]
    # Indices below 0 would count from the end: they go past it, where the fill value is.
    inside = jnp.where(lags < 0, taps, lags)
    return jnp.asarray(window, jnp.float32).at[inside].get(mode="fill", fill_value=0)
