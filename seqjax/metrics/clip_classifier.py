"""A small classifier of clips trained on the spot: which action is it, and features to compare sets of clips by.

Its distances depend on the scale of its features, so they compare within one network alone, and are never called FVD:
the network's name stands in the name of each figure. Train it on real clips only, never on generated ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from seqjax.errors import InputError
from seqjax.metrics.average import Totals, add, means, zeros
from seqjax.metrics.classifier import Layer, fit
from seqjax.metrics.features import FeatureNet, Features, extract, hash_weights
from seqjax.metrics.metric import Figures, Metric
from seqjax.ops.cells import GRUParams, gru
from seqjax.ops.convolution import conv
from seqjax.ops.linear import affine
from seqjax.ops.scan import unroll

_WIDTHS, _FEATURES = (16, 32), 64
_BATCH, _LEARNING_RATE = 32, 3e-3


class _Params(NamedTuple):
    convolutions: list[Layer]
    embed: Layer
    gru: GRUParams
    classes: Layer


def train_clip_classifier(
    clips: UInt8[np.ndarray, "N T S S C"],
    labels: Int[np.ndarray, " N"],
    held_out_clips: UInt8[np.ndarray, "M T S S C"],
    held_out_labels: Int[np.ndarray, " M"],
    *,
    name: str = "clip-gru",
    steps: int = 600,
    seed: int = 0,
) -> FeatureNet:
    """The classifier, trained in seconds to minutes.

    Of every frame convolutions 3x3 to 16 and 32 channels at stride 2, each with ReLU, and a dense layer of 64 with
    ReLU; a GRU of 64 units reads the frames, whose last state is the features, and the classes come from it. He-normal
    kernels; Adam at 0.003 on batches of 32. What the classes do not ask for the features may not tell: give labels
    that name all that distances shall see.

    Args:
      clips: real ones; ``S`` a multiple of 4.
      labels: from 0, every class among them.
      held_out_clips: others, on which `accuracy` is measured.
      held_out_labels: theirs.
      name: what the figures are named for; one of its own for each data set.
      steps: of the optimiser.
      seed: of parameters and batches.

    Raises:
      InputError: another size, or no held-out clips.
    """
    _, frames, size, _, channels = clips.shape
    if size % 4 or not len(held_out_clips):
        raise InputError(
            f"train_clip_classifier: frames of {size} pixels a side and {len(held_out_clips)} held-out clips; expected "
            "a multiple of 4, since they are halved twice, and at least one: resize them, or keep some apart."
        )
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    classes = int(labels.max()) + 1
    params = fit(
        _logits,
        _init(init_key, size, channels, classes),
        jnp.asarray(clips),
        jnp.asarray(labels, jnp.int32),
        optimizer=optax.adam(_LEARNING_RATE),
        steps=steps,
        batch=_BATCH,
        key=batch_key,
    )
    net = FeatureNet(
        name=name,
        sha256=hash_weights(params),
        protocol=f"{frames} frames as given; trained here: {steps} steps on {len(clips)} clips, seed {seed}",
        dimension=_FEATURES,
        classes=classes,
        params=params,
        extract=_extract,
    )
    answers = extract(net, held_out_clips.astype(np.float32) / 127.5 - 1, batch=50)[1].argmax(axis=1)
    return net._replace(accuracy=float((answers == held_out_labels).mean()))


def _init(key: PRNGKeyArray, size: int, channels: int, classes: int) -> _Params:
    first, second = _WIDTHS
    shapes = [(3, 3, channels, first), (3, 3, first, second), ((size // 4) ** 2 * second, _FEATURES)]
    draw = jax.nn.initializers.he_normal()
    *keys, key_gru, key_classes = jax.random.split(key, len(shapes) + 2)
    *convolutions, embed = (Layer(draw(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True))
    out = Layer(draw(key_classes, (_FEATURES, classes)), jnp.zeros(classes))
    return _Params(convolutions, embed, gru.init(key_gru, _FEATURES, _FEATURES), out)


def _both(params: _Params, clips: Float[Array, "B T H W C"]) -> tuple[Array, Array]:
    """Features and logits."""
    x = clips
    for layer in params.convolutions:
        x = jax.nn.relu(conv(layer.bias, layer.kernel, x, stride=2, padding=((0, 1), (0, 1))))
    x = jax.nn.relu(affine(params.embed.bias, params.embed.kernel, x.reshape(*x.shape[:2], -1)))
    features, _ = unroll(gru, params.gru, None, x)
    return features, affine(params.classes.bias, params.classes.kernel, features)


def _extract(params: Any, clips: Array) -> Features:
    features, logits = _both(params, clips.astype(jnp.float32))
    return Features(features, jax.nn.softmax(logits))


def _logits(params: _Params, clips: UInt8[Array, "B T H W C"]) -> Array:
    return _both(params, clips.astype(jnp.float32) / 127.5 - 1)[1]


class _Acc(NamedTuple):
    params: Any
    """The network's weights travel with the sums, as arguments of the compiled evaluation."""
    totals: Totals


def control_metric(net: FeatureNet, *, categories: int) -> Metric:
    """Motion control score: the share of clips whose kind of motion is, to the classifier, the one that was meant.

    Outputs ``{"clips": [B, T, H, W, C] in [-1, 1], "category": [B]}``; the figure is "motion_control". Classes of the
    network that belong to one category lie side by side, as many for each, and their probabilities are added up.

    Args:
      net: a classifier of clips.
      categories: how many.

    Raises:
      InputError: the classes cannot be shared evenly.

    Source: Tulyakov, Liu, Yang, Kautz, *MoCoGAN: Decomposing Motion and Content for Video Generation*, 2018, section 4.
    """
    if categories < 1 or net.classes % categories:
        raise InputError(
            f"categories={categories} of a classifier of {net.classes} classes: expected a divisor, as many classes "
            "for each: train it on labels category · n + detail."
        )

    def accumulate(acc: _Acc, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> _Acc:
        probabilities = net.extract(acc.params, outputs["clips"]).probabilities
        found = jnp.argmax(probabilities.reshape(len(probabilities), categories, -1).sum(axis=-1), axis=-1)
        right = (found == outputs["category"]).astype(jnp.float32)
        # A clip that is not a number is seen in the figure.
        right = jnp.where(jnp.isnan(probabilities[:, 0]), jnp.nan, right)
        weight = batch.get("weight", jnp.ones(len(right)))
        return acc._replace(totals=add(acc.totals, {"motion_control": right}, weight))

    def finish(acc: _Acc) -> Figures:
        return {name: float(mean) for name, mean in means(acc.totals, "motion_control").items()}

    return Metric(lambda: _Acc(net.params, zeros({"motion_control": ()})), accumulate, finish, net.record())
