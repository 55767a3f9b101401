"""Differentiable RAM (Gregor et al., 2015): telling what an image shows from glimpses placed by gradient descent.

Karol Gregor, Ivo Danihelka, Alex Graves, Danilo Jimenez Rezende, Daan Wierstra, *DRAW: A Recurrent Neural Network For
Image Generation*, ICML 2015, https://arxiv.org/abs/1502.04623, section 4.1.

At each of T steps an LSTM reads the image through a grid of Gaussian windows that its last state places, spreads and
sharpens, and after the last it tells the class. The window has a gradient, so that cross-entropy alone shapes all of it
and no rewards are drawn, unlike in the recurrent attention model of Mnih et al. (2014). The defaults are the network
for cluttered digits on 100x100 pixels.

Departures: the paper does not say what the first window is; here states begin at zero, so that it is a learned one, the
same for all images, and it starts as the whole image seen through filters that overlap: twelve with a variance of 1
miss most of 100 pixels. Filters that leave the image see its nearest pixel (`ops.glimpse.gaussian_filters`); logarithms
of variance, stride and intensity are clipped to [-6, 6]; kernels are LeCun-normal, the biases of the forget gates 1.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.ops.cells import LSTMCarry, LSTMParams, lstm
from seqjax.ops.glimpse import gaussian_window, read
from seqjax.ops.image import signed_images, signed_to_unit
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the paper's for cluttered digits on 100x100 pixels."""

    size: int = 100
    """Side of the images."""
    channels: int = 1
    """Channels of the images."""
    glimpses: int = 8
    """T."""
    read: int = 12
    """N of the window: N x N filters."""
    features: int = 256
    """Units of the LSTM."""
    classes: int = 10
    """What is told apart."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two glimpses of 8x8 pixels."""
        return cls(size=8, glimpses=2, read=4, features=32, classes=4)


class Path(NamedTuple):
    """Where the network looks, and what it makes of it."""

    windows: Float[Array, "B T 5"]
    """The numbers ``(g̃_X, g̃_Y, log σ², log δ̃, log γ)`` of each, as `ops.glimpse.gaussian_window` takes them."""
    states: Float[Array, "B T D"]
    """``h_t``."""


class Seen(NamedTuple):
    """Parameters of the cell: those of the network, and the images, which every step reads."""

    core: LSTMParams
    kernel: Float[Array, "D 5"]
    """From a state to the numbers of the next window."""
    bias: Float[Array, " 5"]
    images: Float[Array, "B S S C"]


class Recognizer(nnx.Module):
    """Images in [0, 1] to what is seen along a path."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.core = nnx.Param(lstm.init(rngs.params(), config.read**2 * config.channels, config.features))
        self.window = nnx.Linear(config.features, 5, bias_init=overlapping(config), rngs=rngs)
        self.head = nnx.Linear(config.features, config.classes, rngs=rngs)

    def look(self, images: Float[Array, "B S S C"], windows: Float[Array, "B T 5"] | None = None) -> Path:
        """T glimpses.

        Args:
          images: in [0, 1].
          windows: where to look instead, whatever the network wants.
        """
        held: list[Any] = [compat.pure(x) for x in (self.core, self.window.kernel, self.window.bias)]
        core, kernel, bias = held
        seen = Seen(core, kernel, bias, images.astype(bias.dtype))
        steps = self.config.glimpses if windows is None else None
        return unroll(looker(self.config), seen, lstm.carry(core, (len(images),)), windows, steps=steps)[1]

    def answer(self, path: Path) -> Float[Array, "B {self.config.classes}"]:
        """Logits, after the last glimpse."""
        return self.head(path.states[:, -1]).astype(jnp.float32)


def overlapping(config: Config) -> initializers.Initializer:
    """Numbers of the first window: filters over all of the image, each with half of their distance as its deviation."""
    distance = (config.size - 1) / (config.read - 1)
    return initializers.constant(jnp.asarray([0, 0, 2 * math.log(distance / 2), 0, 0]))


def looker(config: Config) -> Cell:
    """``h_t = LSTM(h_{t-1}, read(x; W h_{t-1} + b))``; an input, where there is one, takes the place of ``W h + b``."""

    def no_start(*_: Any) -> Any:
        raise InputError("differentiable_ram.looker: give the initial carry, the LSTM's.")

    def step(params: Seen, carry: LSTMCarry, given: Array | None, affine: Affine) -> tuple[LSTMCarry, Path]:
        numbers = (affine(params.bias, params.kernel, carry.h) if given is None else given).astype(jnp.float32)
        window = gaussian_window(numbers, height=config.size, width=config.size, taps=config.read)
        images = jax.lax.stop_gradient(params.images)
        patch = read(images.astype(jnp.float32), window, taps=config.read)
        inputs = patch.reshape(len(images), -1).astype(images.dtype)
        carry, h = lstm.step(params.core, carry, lstm.project(params.core, inputs, affine), affine)
        return carry, Path(numbers, h)

    return Cell(no_start, no_start, lambda params, xs, affine: xs, step)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Recognizer]:
    """The one network of the system."""
    return {"recognizer": Recognizer(config, rngs=rngs)}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Cross-entropy in nats, and the share of right answers; nothing is drawn."""
    net = nets["recognizer"]
    logits = net.answer(net.look(pixels(net.config, batch)))
    entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))
    right = jnp.mean((jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32))
    return entropy, {"cross_entropy": entropy, "accuracy": right}


def predict(nets: Nets, batch: Batch) -> dict[str, Array]:
    """What the network says.

    Returns:
      ``logits [B, K]``; ``shuffled [B, K]``, those where it looks through the windows of another image of the batch;
      ``windows [B, T, 5]``.
    """
    net = nets["recognizer"]
    images = pixels(net.config, batch)
    path = net.look(images)
    elsewhere = net.look(images, jnp.roll(path.windows, 1, axis=0))
    return {"logits": net.answer(path), "shuffled": net.answer(elsewhere), "windows": path.windows}


def pixels(config: Config, batch: Batch) -> Float[Array, "B S S C"]:
    """The images in [0, 1].

    Raises:
      InputError: if they are of another shape.
    """
    return signed_to_unit(signed_images("image", batch["image"], (config.size, config.size, config.channels)))
