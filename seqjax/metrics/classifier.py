"""Classifiers trained on the spot: the loop, and the feed-forward networks that recognition has to beat."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from seqjax.ops.image import fold_time, uint8_to_unit, unfold_time
from seqjax.ops.linear import affine


class Layer(NamedTuple):
    """One affine map."""

    kernel: Float[Array, "... C D"]
    bias: Float[Array, " D"]


def train_mlp(
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    hidden: Sequence[int] = (),
    steps: int,
    batch: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> list[Layer]:
    """Layers with ReLU between them on the pixels; a linear map, which is logistic regression, without hidden ones.

    He-normal kernels; Adam at a rate that rises for a twentieth of the steps and falls to zero with a cosine, gradients
    clipped to a norm of 1. All classes have to be among the labels.

    Args:
      images: grey levels.
      labels: from 0.
      hidden: widths of the layers between.
      steps: of the optimiser.
      batch: images in each.
      learning_rate: the highest.
      seed: of parameters and batches.
    """
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    widths = [images[0].size, *hidden, int(labels.max()) + 1]
    draw = jax.nn.initializers.he_normal()
    shapes = list(itertools.pairwise(widths))
    keys = jax.random.split(init_key, len(shapes))
    params = [Layer(draw(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)]
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 20, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    data = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    return fit(mlp_logits, params, *data, optimizer=optimizer, steps=steps, batch=batch, key=batch_key)


def mlp_logits(params: list[Layer], images: UInt8[Array, "B H W C"]) -> Float[Array, "B K"]:
    """What `train_mlp` has learned to say of images."""
    h = uint8_to_unit(images).reshape(len(images), -1)
    *before, last = params
    for layer in before:
        h = jax.nn.relu(affine(layer.bias, layer.kernel, h))
    return affine(last.bias, last.kernel, h)


def train_frame_cnn(
    videos: UInt8[np.ndarray, "N T H W C"],
    labels: Int[np.ndarray, " N"],
    *,
    widths: Sequence[int] = (16, 32),
    steps: int,
    batch: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> list[Layer]:
    """3x3 convolutions with ReLU, each followed by maxima over 2x2, and a linear map of all that is left, of frames one
    by one, whose probabilities are averaged: what can be told of a video from frames without their order.

    He-normal kernels; Adam. All classes have to be among the labels.

    Args:
      videos: grey levels; sides that can be halved as often as there are widths.
      labels: from 0.
      widths: features of the convolutions.
      steps: of the optimiser.
      batch: videos in each.
      learning_rate: the same throughout.
      seed: of parameters and batches.
    """
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    height, width, channels = (videos.shape[2] >> len(widths), videos.shape[3] >> len(widths), videos.shape[4])
    shapes: list[tuple[int, ...]] = [(3, 3, c, d) for c, d in itertools.pairwise((channels, *widths))]
    shapes.append((height * width * widths[-1], int(labels.max()) + 1))
    draw = jax.nn.initializers.he_normal()
    keys = jax.random.split(init_key, len(shapes))
    params = [Layer(draw(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)]
    data = jnp.asarray(videos), jnp.asarray(labels, jnp.int32)
    optimizer = optax.adam(learning_rate)
    return fit(frame_cnn_logits, params, *data, optimizer=optimizer, steps=steps, batch=batch, key=batch_key)


def frame_cnn_logits(params: list[Layer], videos: UInt8[Array, "B T H W C"]) -> Float[Array, "B K"]:
    """What `train_frame_cnn` has learned to say of videos: logarithms of probabilities."""
    *convolutions, last = params
    h = uint8_to_unit(fold_time(videos))
    for layer in convolutions:
        h = jax.nn.relu(affine(layer.bias, layer.kernel, h))
        count, height, width, depth = h.shape
        h = h.reshape(count, height // 2, 2, width // 2, 2, depth).max(axis=(2, 4))
    log_p = jax.nn.log_softmax(affine(last.bias, last.kernel, h.reshape(len(h), -1)))
    frames = videos.shape[1]
    return jax.nn.logsumexp(unfold_time(log_p, frames=frames), axis=1) - jnp.log(float(frames))


@functools.partial(jax.jit, static_argnames=("logits", "optimizer", "steps", "batch"))
def fit(
    logits: Callable[[Any, Array], Array],
    params: Any,
    images: Array,
    labels: Int[Array, " N"],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    key: PRNGKeyArray,
) -> Any:
    """Parameters after so many steps of cross-entropy, on batches drawn with replacement.

    Args:
      logits: ``logits(params, images) -> [B, K]``.
      params: to begin with.
      images: all, ``[N, ...]``.
      labels: theirs.
      optimizer: how each step is made.
      steps: how many.
      batch: images in each.
      key: draws the batches.
    """

    def loss(params: Any, rows: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, images[rows]), labels[rows]).mean()

    def step(state: tuple[Any, Any], key: PRNGKeyArray) -> tuple[tuple[Any, Any], None]:
        params, moments = state
        gradients = jax.grad(loss)(params, jax.random.randint(key, (batch,), 0, len(images)))
        # optax takes powers of its integer step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
    return params
