"""Tracking and forecasting storms with density maps, after Deep-Hurricane-Tracker (Kim et al., 2019).

Sookyung Kim, Hyojin Kim, Joonseok Lee, Sangwoong Yoon, Samira Ebrahimi Kahou, Karthik Kashinath, Prabhat,
*Deep-Hurricane-Tracker: Tracking and Forecasting Extreme Climate Events*, WACV 2019,
https://doi.org/10.1109/WACV.2019.00192.

Where a storm is becomes the probability, pixel by pixel, of a density map with a Gaussian at every centre. Tracking
goes from a clip of weather fields to the map of each step; forecasting from past maps to future ones, with the
ConvLSTM encoder-forecaster. The centres are the peaks of the map (`seqjax.ops.heatmap`).

Departures: the paper's layers, loss and schedule could not be confirmed (the code that its authors released is of an
older system), so these are ours. To track: 3x3 convolutions of 32 and, with stride 2, of 64 features, two ConvLSTMs of
64, and at full resolution again a convolution that reads their states and the first features. To forecast:
`seqjax.nn.encoder_forecaster` in patches of 4. The loss is the cross-entropy of all pixels, in which one of density d
counts ``1 + (w - 1) d`` times, for maps are almost empty. Sizes that strides and patches do not divide (the published
fields are 257 wide) are filled up with zeros, which are cut off again.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.encoder_forecaster import EncoderForecaster
from seqjax.ops.cells import lstm
from seqjax.ops.compose import stack
from seqjax.ops.convolution import conv
from seqjax.ops.image import fold_time, unfold_time
from seqjax.ops.likelihood import bernoulli_cross_entropy
from seqjax.ops.scan import unroll


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network."""

    task: Literal["track", "forecast"] = "track"
    """Fields to the density of the same steps, or density to that of the steps that follow."""
    channels: int = 6
    """Tracking: fields of a step."""
    stem: tuple[int, int] = (32, 64)
    """Tracking: features of the two convolutions before the recurrent layers, the second of stride 2."""
    context: int = 5
    """Forecasting: steps that the encoder reads."""
    future: int = 5
    """Forecasting: steps that are predicted."""
    patch: int = 4
    """Forecasting: side of the square patches that a map is cut into."""
    features: tuple[int, ...] = (64, 64)
    """Of each ConvLSTM, bottom first; in forecasting of the encoder's and of the forecaster's."""
    kernel: int = 3
    """Side of the ConvLSTMs' kernels."""
    positive_weight: float = 50.0
    """``w``, how many times a pixel of density 1 counts."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: tracking, one small layer."""
        return cls(channels=3, stem=(4, 6), context=3, future=3, patch=2, features=(5,), positive_weight=10.0)


class Layer(NamedTuple):
    """A 3x3 convolution."""

    kernel: Float[Array, "3 3 C D"]
    bias: Float[Array, " D"]


STRIDE = 2
"""Pixels per position of the recurrent layers, in tracking."""


class Tracker(nnx.Module):
    """Convolutions, ConvLSTMs at half the resolution, and the way back to pixels."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.block = STRIDE
        draw = jax.nn.initializers.he_normal()

        def layer(inputs: int, outputs: int) -> nnx.Param:
            return nnx.Param(Layer(draw(rngs.params(), (3, 3, inputs, outputs)), jnp.zeros(outputs)))

        self.first, self.second = layer(config.channels, config.stem[0]), layer(*config.stem)
        layers, kernel_size = stack([lstm] * len(config.features)), (config.kernel,) * 2
        self.layers = nnx.Param(layers.init(rngs.params(), config.stem[1], config.features, kernel_size=kernel_size))
        self.readout = layer(config.stem[0] + config.features[-1], 1)

    def __call__(self, fields: Float[Array, "B T H W C"]) -> Float[Array, "B T H W 1"]:
        """Logits of the density at every step, from the fields, in [0, 1], of the steps up to it."""
        frames = fields.shape[1]
        fine = jax.nn.relu(_conv(self.first, 2 * fold_time(fields) - 1))
        xs = unfold_time(jax.nn.relu(_conv(self.second, fine, stride=STRIDE)), frames=frames)
        for params in compat.pure(self.layers):
            _, xs = unroll(lstm, params, None, xs)
        coarse = jnp.repeat(jnp.repeat(fold_time(xs), STRIDE, axis=1), STRIDE, axis=2)
        return unfold_time(_conv(self.readout, jnp.concatenate([fine, coarse], axis=-1)), frames=frames)


def _conv(layer: nnx.Param, inputs: Float[Array, "N H W C"], *, stride: int = 1) -> Float[Array, "N H2 W2 D"]:
    kernel, bias = compat.pure(layer)
    return conv(bias, kernel, inputs, stride=stride, padding=1)


class Forecaster(EncoderForecaster):
    """The encoder-forecaster of a configuration, on density maps."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.block = config.patch
        super().__init__(1, config.features, patch=config.patch, kernel=config.kernel, rngs=rngs)


Nets = dict[str, Tracker] | dict[str, Forecaster]


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The one network of the task.

    Raises:
      InputError: for another task.
    """
    if config.task not in ("track", "forecast"):
        raise InputError(f"task: got {config.task!r}, expected 'track' or 'forecast'.")
    return {"predictor": (Tracker if config.task == "track" else Forecaster)(config, rngs=rngs)}


def inputs_and_targets(
    config: Config, batch: Mapping[str, Array]
) -> tuple[Float[Array, "B P H W C"], Float[Array, "B S H W 1"]]:
    """What the network reads, and the density that it is to give.

    Raises:
      InputError: for fields of other channels, or clips too short.
    """
    if config.task == "track":
        if (channels := batch["fields"].shape[-1]) != config.channels:
            raise InputError(
                f"fields: clips of {channels} channels came, and the network takes {config.channels}: choose another "
                "data set, or set model.channels."
            )
        return batch["fields"], batch["density"]
    frames, end = batch["density"].shape[1], config.context + config.future
    if frames < end:
        raise InputError(
            f"density: a clip of {frames} steps came; the network takes at least {end} (context {config.context} + "
            f"future {config.future}): choose longer clips, or set model.context or model.future."
        )
    return batch["density"][:, : config.context], batch["density"][:, config.context : end]


def loss(nets: Nets, batch: dict[str, Array], *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Weighted cross-entropy of the density maps, the mean per pixel: ``-w_d [d log p + (1 - d) log(1 - p)]``.

    ``w_d = 1 + (w - 1) d``, ``p`` the map predicted. Beside it: the same without weights, and ``Σ d p / Σ d²``, the
    mean over clips, which is 0 for empty maps and 1 for the true ones of clips that are not empty.
    """
    net = nets["predictor"]
    logits, target = _logits(net, batch)
    weights = 1 + (net.config.positive_weight - 1) * target
    pixels = math.prod(target.shape[2:])
    axes = tuple(range(1, target.ndim))
    overlap, all_of_it = jnp.sum(jax.nn.sigmoid(logits) * target, axes), jnp.sum(jnp.square(target), axes)
    found = jnp.mean(overlap / jnp.maximum(all_of_it, 1e-6))
    value = jnp.mean(bernoulli_cross_entropy(logits, target, weights=weights)) / pixels
    entropy = jnp.mean(bernoulli_cross_entropy(logits, target)) / pixels
    return value, {"cross_entropy": entropy, "found": found}


def predict(nets: Nets, batch: dict[str, Array]) -> Float[Array, "B S H W 1"]:
    """The density maps, in [0, 1]: of every step in tracking, of those after the context in forecasting."""
    return jax.nn.sigmoid(_logits(nets["predictor"], batch)[0])


def _logits(net: Tracker | Forecaster, batch: dict[str, Array]) -> tuple[Array, Array]:
    """And the targets. What the strides do not divide is filled up with zeros at the end, which are cut off again."""
    inputs, target = inputs_and_targets(net.config, batch)
    height, width = inputs.shape[2:4]
    inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, -height % net.block), (0, -width % net.block), (0, 0)))
    logits = net(inputs) if isinstance(net, Tracker) else net(inputs, steps=net.config.future)
    return logits[:, :, :height, :width], target
