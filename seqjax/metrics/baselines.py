"""What a model has to beat: predictions and samples that need no training, or only simple statistics of it.

Of a video predictor: `forecasts`, which are `copy_last` and `constant`, of an empty frame and of the `mean_frame`.
Of a predictor of features: `feature_forecasts`.
Of a generator of images: `gaussian_pixels`, which is the honest one, and `mean_of_two` and `pixel_marginals`, which are
easier. Of image translation with pairs: `nearest_pair`. Of a captioner: `captions`, which are the one `told_alike` and
that of the `nearest` picture, and the same network trained `blind`. Of a translator: the source `copied`. Of what
looks at a part of an image: `feed_forward` networks that see all of it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from seqjax.errors import InputError
from seqjax.metrics.classifier import mlp_logits, train_mlp
from seqjax.ops.image import uint8_to_unit, unit_to_signed

Forecast = Callable[[Float[Array, "B T H W C"]], Float[Array, "B S H W C"]]
"""From the frames seen to those that follow."""
FEED_FORWARD: Mapping[str, Sequence[int]] = {
    "linear map": (),
    "2 layers of 64": (64, 64),
    "2 layers of 256": (256, 256),
}
"""Hidden layers of the networks that Mnih et al. (2014) set beside glimpses, and none."""


def copy_last(context: Float[Array, "B T H W C"], *, steps: int) -> Float[Array, "B S H W C"]:
    """The last frame seen, again and again: ``x̂_{T+s} = x_T`` (persistence)."""
    return jnp.repeat(context[:, -1:], steps, axis=1)


def constant(
    context: Float[Array, "B T H W C"], frame: Float[Array, "H W C"], *, steps: int
) -> Float[Array, "B S H W C"]:
    """One frame for every step of every clip: zeros for an empty background, or the mean of the training set."""
    return jnp.broadcast_to(frame[None, None], (len(context), steps, *context.shape[2:]))


def mean_frame(records: Iterable[Mapping[str, np.ndarray]]) -> Float[np.ndarray, "H W C"]:
    """The per-pixel mean over all frames of all clips, in [0, 1], the constant of least squared error.

    Args:
      records: with ``video`` uint8 ``[T, H, W, C]``, all of one frame size.
    """
    total, frames = 0.0, 0
    for record in records:
        total = total + record["video"].sum(axis=0, dtype=np.float64)
        frames += len(record["video"])
    if not frames:
        raise InputError("mean_frame: no record came; expected at least one clip to take the mean of.")
    return np.asarray(total / (255 * frames), np.float32)


def forecasts(records: Iterable[Mapping[str, np.ndarray]], *, steps: int) -> dict[str, Forecast]:
    """By name, what a predictor of so many frames has to beat: `copy_last`, an empty background, `mean_frame`."""
    mean = jnp.asarray(mean_frame(records))
    return {
        "copy of the last frame": functools.partial(copy_last, steps=steps),
        "empty background": lambda context: constant(context, jnp.zeros_like(mean), steps=steps),
        "mean frame of the training set": lambda context: constant(context, mean, steps=steps),
    }


def feature_forecasts(
    records: Iterable[Mapping[str, np.ndarray]], *, steps: int
) -> dict[str, Callable[[Float[Array, "B T D"]], Float[Array, "B S D"]]]:
    """By name, what a predictor of so many steps of features has to beat: the last ones, their mean over the steps
    seen, and their mean over all steps of the training set.

    Args:
      records: of the training set, with ``percepts`` ``[T, D]``.
      steps: how many.
    """
    mean = np.mean([record["percepts"].mean(axis=0, dtype=np.float64) for record in records], axis=0)
    everywhere = jnp.asarray(mean, jnp.float32)
    return {
        "copy of the last features": lambda context: jnp.repeat(context[:, -1:], steps, axis=1),
        "mean features of the clip": lambda context: jnp.repeat(context.mean(axis=1, keepdims=True), steps, axis=1),
        "mean features of the training set": lambda context: jnp.broadcast_to(
            everywhere[None, None], (len(context), steps, len(everywhere))
        ),
    }


def gaussian_pixels(
    images: Float[np.ndarray, "N H W C"], number: int, *, seed: int = 0, low: float = -1.0, high: float = 1.0
) -> Float[np.ndarray, "{number} H W C"]:
    """Samples of one Gaussian with the mean and the full covariance of the training pixels, cut off at low and high."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(axis=0, keepdims=True)
    # Mixing the centred images with normal weights gives their covariance without forming it.
    weights = np.random.default_rng(seed).normal(size=(number, len(flat))) / np.sqrt(max(1, len(flat) - 1))
    samples = mean + weights @ (flat - mean)
    return samples.clip(low, high).astype(np.float32).reshape(number, *images.shape[1:])


def pixel_marginals(
    images: Float[np.ndarray, "N H W C"], number: int, *, seed: int = 0
) -> Float[np.ndarray, "{number} H W C"]:
    """Every pixel and channel taken from a training image of its own: right one by one, unrelated to each other."""
    flat = images.reshape(len(images), -1)
    rows = np.random.default_rng(seed).integers(len(flat), size=(number, flat.shape[1]))
    return np.take_along_axis(flat, rows, axis=0).astype(np.float32).reshape(number, *images.shape[1:])


def mean_of_two(
    images: Float[np.ndarray, "N H W C"], number: int, *, seed: int = 0
) -> Float[np.ndarray, "{number} H W C"]:
    """Pixelwise means of two training images each, what a generator that averages would give."""
    first, second = np.random.default_rng(seed).integers(len(images), size=(2, number))
    return ((images[first] + images[second]) / 2).astype(np.float32)


def nearest(inputs: UInt8[np.ndarray, "N H W C"], queries: UInt8[Array, "B H W C"]) -> Int[Array, " B"]:
    """Which of the inputs is nearest to each query, by squared distance of the pixels."""
    known = jnp.asarray(inputs.reshape(len(inputs), -1), jnp.float32) / 255
    asked = queries.reshape(len(queries), -1).astype(jnp.float32) / 255
    # Of ‖q - k‖² the part that is the same for all k is left out.
    return jnp.argmin(jnp.sum(known**2, axis=1)[None] - 2 * asked @ known.T, axis=1)


def nearest_pair(
    inputs: UInt8[np.ndarray, "N H W C"], targets: UInt8[np.ndarray, "N H W D"], queries: UInt8[Array, "B H W C"]
) -> Float[Array, "B H W D"]:
    """The target, in [-1, 1], of the training pair whose input is nearest to each query by squared distance."""
    return unit_to_signed(uint8_to_unit(jnp.asarray(targets)[nearest(inputs, queries)]))


def feed_forward(
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    networks: Mapping[str, Sequence[int]] = FEED_FORWARD,
    *,
    steps: int,
    batch: int,
) -> dict[str, Callable[[UInt8[Array, "B H W C"]], Float[Array, "B K"]]]:
    """By name, from images to logits of networks of all pixels, trained on the spot (`classifier.train_mlp`).

    Args:
      images: grey levels.
      labels: from 0, all classes among them.
      networks: widths of the hidden layers of each.
      steps: of the optimiser.
      batch: images in each.
    """
    return {
        name: functools.partial(mlp_logits, train_mlp(images, labels, hidden=hidden, steps=steps, batch=batch))
        for name, hidden in networks.items()
    }


def blind(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of networks and a batch that is given, with everything else, the image of the example before: what is
    learned or foretold so is what can be had without looking."""

    def of_others(nets: Any, batch: Mapping[str, Array], **options: Any) -> Any:
        return function(nets, {**batch, "image": jnp.roll(batch["image"], 1, axis=0)}, **options)

    return of_others


def captions(
    images: UInt8[np.ndarray, "N H W C"], ids: Int[np.ndarray, "N L"]
) -> dict[str, Callable[[UInt8[Array, "B H W C"]], Int[Array, "B L"]]]:
    """By name, from images to captions of the training set: the commonest, and that of the nearest image."""
    return {
        "commonest caption": lambda queries: jnp.repeat(jnp.asarray(told_alike(ids))[None], len(queries), axis=0),
        "nearest picture": lambda queries: jnp.asarray(ids)[nearest(images, queries)],
    }


def words_shared(ids: Int[Array, "B L"], captions: Int[np.ndarray, "M L"]) -> Float[Array, "B M"]:
    """At how many places each caption has the word that was told: a score by which those told rank all others."""
    return jnp.sum(ids[:, None] == jnp.asarray(captions)[None], axis=-1, dtype=jnp.float32)


def copied(same: Int[np.ndarray, " V"], longer: int) -> Callable[[Any, Mapping[str, Array]], Int[Array, "B L"]]:
    """The source as its own translation, in rows that are so much longer.

    Args:
      same: the target's id of each of the source's.
      longer: tokens that a translation may have beyond its source's.
    """

    def predict(_: Any, batch: Mapping[str, Array]) -> Int[Array, "B L"]:
        return jnp.pad(jnp.asarray(same)[batch["source"][:, 1:]], ((0, 0), (0, longer + 1)))

    return predict


def told_alike(ids: Int[np.ndarray, "N L"]) -> Int[np.ndarray, " L"]:
    """The caption that occurs most often, the first in order of ids of several."""
    captions, counts = np.unique(ids, axis=0, return_counts=True)
    return captions[counts.argmax()]
