"""A small classifier trained on the spot, whose features measure how close generated images are to real ones.

For sets that the field's Inception has nothing to say about, and where its weights are not at hand. Its distances
depend on the scale of its features, so they compare within one network alone, and are never called FID: the network's
name stands in the name of each figure. Train it on real images only, never on generated ones.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.metrics.classifier import Layer, fit
from seqjax.metrics.features import FeatureNet, Features, extract, hash_weights
from seqjax.ops.linear import affine

_WIDTHS = (16, 32, 64)
_STEPS, _BATCH, _LEARNING_RATE = 600, 64, 2e-3
_trained: dict[str, FeatureNet] = {}


def train_digits_cnn(
    images: Float[np.ndarray, "N S S C"],
    labels: Int[np.ndarray, " N"],
    held_out_images: Float[np.ndarray, "M S S C"],
    held_out_labels: Int[np.ndarray, " M"],
    *,
    name: str = "digits-cnn",
    seed: int = 0,
) -> FeatureNet:
    """The classifier, trained in seconds; called again with the same data, it is the one in memory.

    Convolutions 3x3 to 16 and 32 channels, each with ReLU and averaged over 2x2 pixels, a hidden layer of 64 with ReLU,
    which are the features, and the classes. He-normal kernels; 600 steps of Adam at 0.002 on batches of 64. The same
    seed and data on one machine give the same weights, bit for bit.

    Args:
      images: real ones, in [-1, 1]; ``S`` a multiple of 4.
      labels: from 0, every class among them.
      held_out_images: others, on which `accuracy` is measured.
      held_out_labels: theirs.
      name: what the figures are named for; one of its own for each data set.
      seed: of parameters and batches.
    """
    size = images.shape[1]
    if size % 4 or not len(held_out_images):
        raise InputError(
            f"train_digits_cnn: images of {size} pixels a side and {len(held_out_images)} held-out ones; expected a "
            "multiple of 4, since they are halved twice, and at least one: resize them, or keep some apart."
        )
    data = (images, labels, held_out_images, held_out_labels)
    key = hashlib.sha256(repr((name, seed, [a.shape for a in data])).encode())
    for array in data:
        key.update(np.ascontiguousarray(array).tobytes())
    if key.hexdigest() not in _trained:
        _trained[key.hexdigest()] = _train(*data, name, seed)
    return _trained[key.hexdigest()]


def _train(
    images: np.ndarray, labels: np.ndarray, held_out: np.ndarray, truth: np.ndarray, name: str, seed: int
) -> FeatureNet:
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    classes = int(labels.max()) + 1
    params = _init(init_key, images.shape[1], images.shape[-1], classes)
    params = fit(
        _logits,
        params,
        jnp.asarray(images, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        optimizer=optax.adam(_LEARNING_RATE),
        steps=_STEPS,
        batch=_BATCH,
        key=batch_key,
    )
    net = FeatureNet(
        name=name,
        sha256=hash_weights(params),
        protocol=f"images as given; trained here: {_STEPS} steps on {len(images)} images, seed {seed}",
        dimension=_WIDTHS[-1],
        classes=classes,
        params=params,
        extract=_extract,
    )
    answers = extract(net, held_out)[1].argmax(axis=1)
    return net._replace(accuracy=float((answers == truth).mean()))


def _init(key: PRNGKeyArray, size: int, channels: int, classes: int) -> list[Layer]:
    first, second, hidden = _WIDTHS
    shapes = [(3, 3, channels, first), (3, 3, first, second), ((size // 4) ** 2 * second, hidden), (hidden, classes)]
    draw = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(shapes))
    return [Layer(draw(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)]


def _both(params: list[Layer], images: Array) -> tuple[Array, Array]:
    """Features and logits."""
    *convolutions, hidden, out = params
    h = images
    for layer in convolutions:
        h = _halve(jax.nn.relu(affine(layer.bias, layer.kernel, h)))
    features = jax.nn.relu(affine(hidden.bias, hidden.kernel, h.reshape(len(h), -1)))
    return features, affine(out.bias, out.kernel, features)


def _halve(images: Array) -> Array:
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _extract(params: list[Layer], images: Array) -> Features:
    features, logits = _both(params, images.astype(jnp.float32))
    return Features(features, jax.nn.softmax(logits))


def _logits(params: list[Layer], images: Array) -> Array:
    return _both(params, images)[1]
