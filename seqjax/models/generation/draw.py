"""DRAW (Gregor et al., 2015): an image painted step by step, through a window that moves.

Karol Gregor, Ivo Danihelka, Alex Graves, Danilo Jimenez Rezende, Daan Wierstra, *DRAW: A Recurrent Neural Network For
Image Generation*, ICML 2015, https://arxiv.org/abs/1502.04623.

A variational auto-encoder whose encoder and decoder are LSTMs. At every step it reads the image and what the canvas
still lacks of it, through a grid of Gaussian windows that the decoder places; the encoder gives a latent distribution;
the decoder, given a draw of it, adds a patch to the canvas, through a window of its own. The image is the last canvas
through a sigmoid. The defaults are those for binarised MNIST. ``attention=False`` reads and writes whole images.

Departures: filters that leave the image see its nearest pixel (`ops.glimpse.gaussian_filters`); logarithms of variance,
stride and intensity are clipped to [-6, 6]; initial kernels are LeCun-normal and the forget gates' biases 1; pixels
that are not binary are Bernoulli expectations, or, with a ``deviation``, Gaussian.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.ops.cells import LSTMCarry, LSTMParams, lstm
from seqjax.ops.compose import learned_carry
from seqjax.ops.glimpse import gaussian_window, read, write
from seqjax.ops.image import uint8_to_unit
from seqjax.ops.likelihood import bernoulli_cross_entropy, standard_normal_kl
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Affine, Cell
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the paper's for binarised MNIST."""

    size: int = 28
    """Side of the images."""
    channels: int = 1
    """Channels of the images."""
    steps: int = 64
    """T, how often it reads and paints."""
    features: int = 256
    """Units of the encoder and of the decoder."""
    latent: int = 100
    """Numbers drawn at each step."""
    attention: bool = True
    """Whether it reads and writes through windows; otherwise whole images."""
    read: int = 2
    """N of the window that reads: N x N filters."""
    write: int = 5
    """N of the window that writes."""
    canvas: float = 0.0
    """Initial value of the first canvas, which is learned, as a logit."""
    deviation: float = 0.0
    """σ of Gaussian pixels around the sigmoid of the canvas; 0 for Bernoulli pixels."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two steps on 8x8 pixels."""
        return cls(size=8, steps=2, features=32, latent=6, read=4, write=6)


class Layer(NamedTuple):
    """An affine map."""

    kernel: Float[Array, "C D"]
    bias: Float[Array, " D"]


class Start(NamedTuple):
    """Where every image begins, and the state of each step."""

    canvas: Float[Array, "... H W C"]
    """``c``, as logits."""
    encoder: LSTMCarry
    decoder: LSTMCarry


class Weights(NamedTuple):
    """All parameters."""

    encoder: LSTMParams
    decoder: LSTMParams
    posterior: Layer
    """From the encoder to mean and logarithm of the deviation of ``z``."""
    patch: Layer
    """From the decoder to what is written."""
    read: Layer | None
    """From the decoder to the five numbers of the window that reads; None without attention."""
    write: Layer | None
    """Likewise, of the one that writes."""
    start: Start
    """Learned initial states."""


class Seen(NamedTuple):
    """Parameters of the cell: the weights, and the images, which every step reads."""

    weights: Weights
    images: Float[Array, "B H W C"]


class Step(NamedTuple):
    """What a step gives."""

    mean: Float[Array, "... Z"]
    """``μ`` of the latent distribution."""
    log_deviation: Float[Array, "... Z"]
    """``log σ``."""


class Draw(nnx.Module):
    """The parameters, and the two ways through them."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        width, pixels = config.features, config.size**2
        seen, painted = (n**2 if config.attention else pixels for n in (config.read, config.write))

        def layer(inputs: int, outputs: int) -> Layer:
            return Layer(initializers.lecun_normal()(rngs.params(), (inputs, outputs)), jnp.zeros(outputs))

        self.weights = nnx.Param(
            Weights(
                encoder=lstm.init(rngs.params(), 2 * seen * config.channels + width, width),
                decoder=lstm.init(rngs.params(), config.latent, width),
                posterior=layer(width, 2 * config.latent),
                patch=layer(width, painted * config.channels),
                read=layer(width, 5) if config.attention else None,
                write=layer(width, 5) if config.attention else None,
                start=Start(
                    jnp.full((config.size, config.size, config.channels), config.canvas),
                    *(LSTMCarry(jnp.zeros(width), jnp.zeros(width)) for _ in range(2)),
                ),
            )
        )

    def infer(
        self, images: Float[Array, "B H W C"], noise: Float[Array, "B T Z"]
    ) -> tuple[Float[Array, "B H W C"], Step]:
        """The last canvas, and the latent distribution of every step.

        Args:
          images: in [0, 1].
          noise: ``ε ~ N(0, I)``, fresh for every step: ``z_t = μ_t + σ_t ε_t``.
        """
        weights: Any = compat.pure(self.weights)
        seen = Seen(weights, images.astype(weights.patch.bias.dtype))
        last, steps = unroll(painter(self.config), seen, learned_carry(weights.start, images.shape[:1]), noise)
        return last.canvas, steps

    def generate(self, z: Float[Array, "B T Z"]) -> tuple[Float[Array, "B T H W C"], Float[Array, "B T 5"]]:
        """The canvas after every step, for latent vectors of the prior N(0, I), and the numbers of the window through
        which each step has written (zeros without attention)."""
        weights: Any = compat.pure(self.weights)

        def step(weights: Weights, carry: Start, z_t: Array) -> tuple[Start, tuple[Array, Array]]:
            carry, numbers = _paint(self.config, weights, carry, z_t, affine)
            return carry, (carry.canvas, numbers)

        start = learned_carry(weights.start, z.shape[:1])
        return unroll(step, weights, start, z.astype(weights.patch.bias.dtype))[1]


def painter(config: Config) -> Cell:
    """The step of inference as a cell over the noise: reads, encodes, draws and paints.

    ::

        x̂ = x - σ(c_{t-1})                       r = read(x, x̂; h_dec)
        h_enc = LSTM([r, h_dec])                 μ, log σ = W h_enc
        h_dec = LSTM(μ + σ ε_t)                  c_t = c_{t-1} + write(h_dec)
    """

    def no_start(*_: Any) -> Any:
        raise InputError("draw.painter: give the initial carry, from the learned start.")

    def step(params: Seen, carry: Start, noise: Array, affine: Affine) -> tuple[Start, Step]:
        weights, images = params.weights, jax.lax.stop_gradient(params.images)
        h = carry.decoder.h
        both = jnp.concatenate([images, images - jax.nn.sigmoid(carry.canvas)], axis=-1)
        inputs = jnp.concatenate([_read(config, weights, both, h, affine), h], axis=-1)
        gates = lstm.project(weights.encoder, inputs, affine)
        encoder, h_enc = lstm.step(weights.encoder, carry.encoder, gates, affine)
        numbers = affine(weights.posterior.bias, weights.posterior.kernel, h_enc)
        mean, log_deviation = jnp.split(numbers, 2, axis=-1)
        z = mean + jnp.exp(log_deviation) * noise
        carry, _ = _paint(config, weights, carry._replace(encoder=encoder), z, affine)
        return carry, Step(mean, log_deviation)

    return Cell(no_start, no_start, lambda params, xs, affine: xs, step)


def _read(config: Config, weights: Weights, both: Array, h: Array, affine: Affine) -> Array:
    if weights.read is None:
        return both.reshape(len(both), -1)
    numbers = affine(weights.read.bias, weights.read.kernel, h).astype(jnp.float32)
    window = gaussian_window(numbers, height=config.size, width=config.size, taps=config.read)
    patch = read(both.astype(jnp.float32), window, taps=config.read)
    return patch.reshape(len(both), -1).astype(both.dtype)


def _paint(config: Config, weights: Weights, carry: Start, z: Array, affine: Affine) -> tuple[Start, Array]:
    """The state after a patch more, and the numbers of its window."""
    gates = lstm.project(weights.decoder, z, affine)
    decoder, h = lstm.step(weights.decoder, carry.decoder, gates, affine)
    patch = affine(weights.patch.bias, weights.patch.kernel, h)
    if weights.write is None:
        added, numbers = patch.reshape(carry.canvas.shape), jnp.zeros((len(z), 5))
    else:
        numbers = affine(weights.write.bias, weights.write.kernel, h).astype(jnp.float32)
        window = gaussian_window(numbers, height=config.size, width=config.size, taps=config.write)
        square = patch.astype(jnp.float32).reshape(len(z), config.write, config.write, config.channels)
        added = write(square, window, height=config.size, width=config.size).astype(patch.dtype)
    return carry._replace(decoder=decoder, canvas=carry.canvas + added), numbers


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Draw]:
    """The one network of the system."""
    return {"draw": Draw(config, rngs=rngs)}


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The bound in nats per image, averaged over the batch, and its two parts."""
    parts = bound(nets, pixels(nets["draw"].config, batch), key=key)
    means = {name: jnp.mean(value) for name, value in parts.items()}
    return means["reconstruction"] + means["kl"], means


def bound(nets: Nets, images: Float[Array, "B H W C"], *, key: PRNGKeyArray) -> dict[str, Float[Array, " B"]]:
    """``reconstruction = -log p(x | c_T)`` and ``kl = Σ_t KL(N(μ_t, σ_t²) ‖ N(0, I))``, in nats.

    Their sum is, in expectation over the noise, an upper bound of ``-log p(x)`` (Eq. 9 to 12 of the paper).
    """
    net = nets["draw"]
    noise = jax.random.normal(key, (len(images), net.config.steps, net.config.latent))
    canvas, steps = net.infer(images, noise)
    kl = standard_normal_kl(steps.mean, steps.log_deviation)
    return {"reconstruction": surprise(net.config, canvas, images), "kl": jnp.sum(kl, axis=-1)}


def surprise(config: Config, canvas: Float[Array, "B H W C"], images: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """``-log p(x | c)`` of an image under a canvas, in nats: Bernoulli pixels, or Gaussian ones."""
    if not config.deviation:
        return bernoulli_cross_entropy(canvas, images)
    errors = jnp.square((images - jax.nn.sigmoid(canvas.astype(jnp.float32))) / config.deviation)
    return jnp.sum(errors / 2 + math.log(config.deviation) + 0.5 * math.log(2 * math.pi), axis=(-3, -2, -1))


def predict(nets: Nets, batch: Batch) -> dict[str, Float[Array, " B"]]:
    """The bound of each image and its parts, by noise that is the same for every batch."""
    parts = bound(nets, pixels(nets["draw"].config, batch), key=jax.random.key(0))
    return {"bound": parts["reconstruction"] + parts["kl"]} | parts


def sample(nets: Nets, batch: Batch) -> dict[str, Array]:
    """Images painted from ``batch["z"] [B, T, Z]``, in [0, 1] after every step, with the numbers of the windows; and
    the images of the batch painted again."""
    net = nets["draw"]
    canvases, windows = net.generate(batch["z"])
    again, _ = net.infer(pixels(net.config, batch), batch["z"])
    return {"painted": jax.nn.sigmoid(canvases), "windows": windows, "again": jax.nn.sigmoid(again)}


def pixels(config: Config, batch: Batch) -> Float[Array, "B S S C"]:
    """The images in [0, 1].

    Raises:
      InputError: if they are of another shape.
    """
    images, side = batch["image"], config.size
    if images.shape[1:] != (side, side, config.channels):
        raise InputError(
            f"image: {'x'.join(map(str, images.shape[1:]))} came, and the network takes {side}x{side}x"
            f"{config.channels}: choose a data set of that shape, or set model.size and model.channels."
        )
    return uint8_to_unit(images)
