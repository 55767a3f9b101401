"""Stochastic video generation with a fixed or a learned prior, SVG-FP and SVG-LP, or none (Denton and Fergus, 2018).

Emily Denton, Rob Fergus, *Stochastic Video Generation with a Learned Prior*, ICML 2018,
https://arxiv.org/abs/1802.07687, and the released code.

An LSTM predicts the vector of the next frame from that of the last and from a latent ``z_t``. In training ``z_t`` comes
from an LSTM that has seen the frame to be predicted, at a price: its divergence from a prior, which is N(0, I) or an
LSTM over the frames before. So ``z_t`` carries what cannot be foreseen, and drawing it from the prior gives one of the
futures. Frames become vectors and back by convolutions with skips (`nn.frame_codec`), which after the context are those
of the last true frame, so that what stays need not be remembered. The same networks without ``z``, ``prior="none"``,
are the deterministic model that such papers compare with: one future, no divergence. Defaults are those of SM-MNIST.

Departures from the released code. Skips come from the last frame of the context, as the paper says; there from the one
before (``skips="repository"``). Batch normalisation goes by running averages in sampling, not by the frames that happen
to be generated together, and in training by those of all steps, not step by step. Logarithms of variances are clipped.
Convolutions before a normalisation have no bias; LSTMs have one bias and start as all of `ops.cells`, dense layers
LeCun-normal. Not of the paper: ``backbone="dense"``, for frames of any height and width, with a hidden layer each way
and no skips.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.frame_codec import FrameDecoder, FrameEncoder
from seqjax.nn.norm import Kind
from seqjax.ops.cells import lstm
from seqjax.ops.compose import stack
from seqjax.ops.distances import squared_error
from seqjax.ops.image import fold_time, uint8_to_unit, unfold_time
from seqjax.ops.likelihood import gaussian_kl
from seqjax.ops.linear import affine
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]
Maps = tuple[Float[Array, "..."], ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and the price of the latent; the defaults are the released code's for SM-MNIST."""

    context: int = 5
    """Frames that are given."""
    future: int = 10
    """Frames that follow in training; sampling goes as far as it is asked to."""
    height: int = 64
    """Of the frames."""
    width: int = 64
    """Of the frames."""
    channels: int = 1
    """Of the frames."""
    backbone: Literal["dcgan", "vgg", "dense"] = "dcgan"
    """How frames become vectors and back."""
    base: int = 64
    """Features of the largest map; of a dense backbone, of the hidden layer."""
    features: int = 128
    """Numbers in the vector of a frame."""
    latent: int = 10
    """Numbers in ``z``."""
    hidden: int = 256
    """Units of every LSTM."""
    layers: int = 2
    """LSTMs of the predictor."""
    prior: Literal["learned", "fixed", "none"] = "learned"
    """SVG-LP, SVG-FP, or no latents at all, whatever ``latent`` says."""
    beta: float = 1e-4
    """Price of a nat of ``z`` in mean squared error: with fewer pixels in a frame the same error costs less of it."""
    skips: Literal["context", "repository", "last"] = "context"
    """Where skips come from after the context: its last frame; the one before, as in the released code; or always the
    frame before the one predicted (``last_frame_skip`` there), for scenes whose background moves."""
    norm: Kind = "batch"
    """Normalisation of the convolutions; "group" does the same in training and sampling."""
    log_variance: tuple[float, float] = (-8.0, 4.0)
    """What the logarithms of variances are kept within."""

    @property
    def drawn(self) -> int:
        """Numbers in ``z`` that there are: none without a prior."""
        return 0 if self.prior == "none" else self.latent

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: one halving, three frames of context; by batches, what differs little in such a network would be
        made large, rounding too."""
        small = cls(3, 2, height=8, width=8, base=6, features=8, latent=2, hidden=12, layers=1, beta=1e-3)
        return dataclasses.replace(small, norm="group")


class Gaussian(NamedTuple):
    """A diagonal Gaussian for each step."""

    mean: Float[Array, "*B Z"]
    log_deviation: Float[Array, "*B Z"]

    def at(self, noise: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
        """``μ + σ ε``."""
        return self.mean + jnp.exp(self.log_deviation) * noise.astype(self.mean.dtype)


class Recurrent(nnx.Module):
    """A dense layer, LSTMs, a dense layer: predictor, posterior and prior alike."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int, *, rngs: nnx.Rngs):
        self.cell = stack([lstm] * layers)
        self.embed = nnx.Linear(inputs, hidden, rngs=rngs)
        self.lstms = nnx.Param(self.cell.init(rngs.params(), hidden, [hidden] * layers))
        self.head = nnx.Linear(hidden, outputs, rngs=rngs)

    def __call__(self, xs: Float[Array, "B T C"]) -> tuple[Any, Float[Array, "B T D"]]:
        """The last states and all outputs, from zero states."""
        ys, carries = self.embed(xs), []
        for params in compat.pure(self.lstms):
            carry, ys = unroll(lstm, params, lstm.carry(params, xs.shape[:1]), ys)
            carries.append(carry)
        return tuple(carries), self.head(ys)

    def step(self, carry: Any, x: Float[Array, "B C"]) -> tuple[Any, Float[Array, "B D"]]:
        """One step more."""
        params: Any = compat.pure(self.lstms)
        carry, y = self.cell.step(params, carry, self.cell.project(params, self.embed(x), affine), affine)
        return carry, self.head(y)


class DenseEncoder(nnx.Module):
    """Frames to vectors through one hidden layer; there are no skips."""

    def __init__(self, pixels: int, hidden: int, features: int, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(pixels, hidden, rngs=rngs)
        self.top = nnx.Linear(hidden, features, rngs=rngs)

    def __call__(self, frames: Float[Array, "B H W C"], *, running: bool = False) -> tuple[Float[Array, "B D"], tuple]:
        """The vectors, in (-1, 1), and no skips; ``running`` means nothing here."""
        return jnp.tanh(self.top(jax.nn.leaky_relu(self.hidden(frames.reshape(len(frames), -1)), 0.2))), ()


class DenseDecoder(nnx.Module):
    """Vectors to frames through one hidden layer."""

    def __init__(self, shape: tuple[int, int, int], hidden: int, features: int, *, rngs: nnx.Rngs):
        self.shape = shape
        self.hidden = nnx.Linear(features, hidden, rngs=rngs)
        self.frame = nnx.Linear(hidden, int(np.prod(shape)), rngs=rngs)

    def __call__(self, h: Float[Array, "B D"], skips: tuple, *, running: bool = False) -> Float[Array, "B H W C"]:
        """The frames, in [0, 1] and float32."""
        pixels = self.frame(jax.nn.leaky_relu(self.hidden(h), 0.2))
        return jax.nn.sigmoid(pixels.astype(jnp.float32)).reshape(len(h), *self.shape)


class Encoder(nnx.Module):
    """The backbone's encoder, and the configuration."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        if config.backbone == "dense":
            pixels = config.height * config.width * config.channels
            self.net: nnx.Module = DenseEncoder(pixels, config.base, config.features, rngs=rngs)
        else:
            self.net = FrameEncoder(*_frame(config), config.features, **_options(config), rngs=rngs)

    def __call__(self, video: Float[Array, "B T H W C"], *, running: bool = False) -> tuple[Array, Maps]:
        """Vectors ``[B, T, D]`` and skips ``[B, T, ...]`` of all frames."""
        encoded = self.net(fold_time(video), running=running)
        return jax.tree.map(lambda x: unfold_time(x, frames=video.shape[1]), encoded)


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The networks; a fixed prior is no network, and without a prior there is no posterior.

    Raises:
      InputError: frames that the backbone does not take; a context that has no frame for the skips.
    """
    least = 2 if config.skips == "repository" else 1
    if config.context < least or config.future < 1:
        raise InputError(
            f"context: got {config.context} frames and {config.future} to predict; expected {least} or more (skips are "
            f"taken by {config.skips!r}) and 1 or more: set model.context, model.future or model.skips."
        )
    if config.backbone == "dense":
        shape = (config.height, config.width, config.channels)
        decoder: nnx.Module = DenseDecoder(shape, config.base, config.features, rngs=rngs)
    else:
        decoder = FrameDecoder(*_frame(config), config.features, **_options(config), rngs=rngs)
    nets = {
        "encoder": Encoder(config, rngs=rngs),
        "decoder": decoder,
        "predictor": Recurrent(
            config.features + config.drawn, config.hidden, config.features, config.layers, rngs=rngs
        ),
    }
    if config.prior != "none":
        nets["posterior"] = Recurrent(config.features, config.hidden, 2 * config.latent, 1, rngs=rngs)
    if config.prior == "learned":
        nets["prior"] = Recurrent(config.features, config.hidden, 2 * config.latent, 1, rngs=rngs)
    return nets


def loss(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``Σ_t MSE(x̂_t, x_t) + β Σ_t KL(q(z_t | x_1..t) ‖ p(z_t | x_1..t-1))``, averaged over the batch.

    All frames but the first are predicted, each from the true ones before it. ``MSE`` is a mean over pixels; the
    metrics are the squared error summed over pixels and the divergence in nats, both per frame.
    """
    config = nets["encoder"].config
    video = unit_clip(config, batch["video"], config.future)
    noise = jax.random.normal(key, (len(video), video.shape[1] - 1, config.drawn))
    frames, posterior, prior = reconstruct(nets, video, noise)
    errors, kl = squared_error(frames, video[:, 1:]), gaussian_kl(*posterior, *prior)
    total = jnp.sum(errors / frames[0, 0].size + config.beta * kl, axis=1)
    return jnp.mean(total), {"mse": jnp.mean(errors), "kl": jnp.mean(kl)}


def reconstruct(
    nets: Nets, video: Float[Array, "B T H W C"], noise: Float[Array, "B S Z"], *, running: bool = False
) -> tuple[Float[Array, "B S H W C"], Gaussian, Gaussian]:
    """Every frame but the first from those before it and from a latent that has seen it; the posterior and the prior.

    Args:
      nets: the networks.
      video: true frames, in [0, 1].
      noise: ``ε ~ N(0, I)``.
      running: whether batch normalisation takes its running averages.
    """
    hs, maps = nets["encoder"](video, running=running)
    posterior, prior = beliefs(nets, hs)
    _, predicted = nets["predictor"](jnp.concatenate([hs[:, :-1], posterior.at(noise)], axis=-1))
    sources = skip_sources(nets["encoder"].config, video.shape[1])
    seen = tuple(fold_time(level[:, sources]) for level in maps)
    frames = nets["decoder"](jnp.tanh(fold_time(predicted)), seen, running=running)
    return unfold_time(frames, frames=video.shape[1] - 1), posterior, prior


def beliefs(nets: Nets, hs: Float[Array, "B T D"]) -> tuple[Gaussian, Gaussian]:
    """Of the latent of every frame but the first: the posterior, after having seen it, and the prior, before."""
    config, posterior = nets["encoder"].config, infer(nets, hs)
    if config.prior != "learned":
        return posterior, _standard(posterior.mean)
    return posterior, _gaussian(config, nets["prior"](hs[:, :-1])[1])


def infer(nets: Nets, hs: Float[Array, "B T D"]) -> Gaussian:
    """The posterior of `beliefs`; without a prior of no numbers, at no price."""
    config = nets["encoder"].config
    if config.prior == "none":
        return _standard(hs[:, 1:, :0])
    return _gaussian(config, nets["posterior"](hs[:, 1:])[1])


def surprise(nets: Nets, batch: Batch) -> dict[str, Float[Array, "B S"]]:
    """Of every frame of the clips but the first: ``kl``, the nats of news that the posterior finds in it, and
    ``deviation``, the prior's mean ``σ``, which says beforehand how open it is; both 0 without a prior."""
    video = unit_clip(nets["encoder"].config, batch["video"], batch["video"].shape[1] - nets["encoder"].config.context)
    posterior, prior = beliefs(nets, nets["encoder"](video, running=True)[0])
    deviations = jnp.exp(prior.log_deviation.astype(jnp.float32))
    return {
        "kl": gaussian_kl(*posterior, *prior),
        "deviation": jnp.sum(deviations, axis=-1) / max(1, deviations.shape[-1]),
    }


def skip_sources(config: Config, frames: int) -> np.ndarray:
    """For frames 1 to ``frames - 1``, the frame whose skips each is decoded with."""
    last = {"context": config.context - 1, "repository": config.context - 2, "last": frames}[config.skips]
    return np.minimum(np.arange(frames - 1), last)


class Seen(NamedTuple):
    """What sampling needs of the context."""

    hs: Float[Array, "B P D"]
    """Vectors of its frames."""
    skips: Maps
    """Those that the first new frame is decoded with."""


def observe(nets: Nets, context: Float[Array, "B P H W C"]) -> Seen:
    """The context, encoded once for as many samples as are drawn."""
    hs, maps = nets["encoder"](context, running=True)
    source = skip_sources(nets["encoder"].config, context.shape[1] + 1)[-1]
    return Seen(hs, tuple(level[:, source] for level in maps))


def rollout(nets: Nets, seen: Seen, noise: Float[Array, "B N Z"]) -> Float[Array, "B S H W C"]:
    """One future, in [0, 1]: through the context with latents of the posterior, from there on with those of the prior.

    Args:
      nets: the networks.
      seen: the context's P frames.
      noise: ``ε ~ N(0, I)`` of every step, ``N = P - 1 + S``; zeros give the future of the means.
    """
    config, hs = nets["encoder"].config, seen.hs
    past = hs.shape[1] - 1
    z = infer(nets, hs).at(noise[:, :past])
    states, _ = nets["predictor"](jnp.concatenate([hs[:, :-1], z], axis=-1))
    beliefs = nets["prior"](hs[:, :-1])[0] if config.prior == "learned" else ()

    def step(_: Any, carry: Any, noise_t: Array) -> Any:
        states, beliefs, h, skips = carry
        if config.prior == "learned":
            beliefs, numbers = nets["prior"].step(beliefs, h)
            prior = _gaussian(config, numbers)
        else:
            prior = _standard(jnp.zeros((len(h), config.drawn), h.dtype))
        states, predicted = nets["predictor"].step(states, jnp.concatenate([h, prior.at(noise_t)], axis=-1))
        frame = nets["decoder"](jnp.tanh(predicted), skips, running=True)
        h, maps = jax.tree.map(lambda x: x[:, 0], nets["encoder"](frame[:, None], running=True))
        return (states, beliefs, h, maps if config.skips == "last" else skips), frame

    return unroll(step, (), (states, beliefs, hs[:, -1], seen.skips), noise[:, past:])[1]


def draw_noise(config: Config, number: int, steps: int, *, key: PRNGKeyArray) -> Float[Array, "{number} N Z"]:
    """What `rollout` takes for so many clips and steps."""
    return jax.random.normal(key, (number, config.context - 1 + steps, config.drawn))


def sample(nets: Nets, batch: Batch, *, key: PRNGKeyArray, steps: int | None = None) -> Float[Array, "B S H W C"]:
    """One future of each clip, drawn; ``config.future`` frames unless said."""
    config = nets["encoder"].config
    steps = config.future if steps is None else steps
    context = unit_clip(config, batch["video"], 0)
    return rollout(nets, observe(nets, context), draw_noise(config, len(context), steps, key=key))


def predict(nets: Nets, batch: Batch, *, steps: int | None = None) -> Float[Array, "B S H W C"]:
    """The future of the latents' means, which nothing is drawn for."""
    config = nets["encoder"].config
    context = unit_clip(config, batch["video"], 0)
    noise = jnp.zeros((len(context), config.context - 1 + (steps or config.future), config.drawn))
    return rollout(nets, observe(nets, context), noise)


def unit_clip(config: Config, video: UInt8[Array, "B T H W C"], future: int) -> Float[Array, "B S H W C"]:
    """The context and so many frames of the future, in [0, 1].

    Raises:
      InputError: for clips too short, or of another size.
    """
    frames, *shape = video.shape[1:]
    wanted, needed = [config.height, config.width, config.channels], config.context + future
    if frames < needed or shape != wanted:
        raise InputError(
            f"video: a clip of {frames} frames of {'x'.join(map(str, shape))} came; expected at least {needed} "
            f"(context {config.context} + future {future}) of {'x'.join(map(str, wanted))}. Choose a data set of that "
            "shape, or set model.context, model.future, model.height, model.width or model.channels."
        )
    return uint8_to_unit(video[:, :needed])


def _gaussian(config: Config, numbers: Float[Array, "*B Y"]) -> Gaussian:
    mean, log_variance = jnp.split(numbers, 2, axis=-1)
    return Gaussian(mean, jnp.clip(log_variance, *config.log_variance) / 2)


def _standard(like: Float[Array, "*B Z"]) -> Gaussian:
    return Gaussian(jnp.zeros_like(like), jnp.zeros_like(like))


def _frame(config: Config) -> tuple[int, int]:
    if config.height != config.width:
        raise InputError(
            f"height, width: got {config.height} and {config.width}; a {config.backbone} backbone takes square frames: "
            'set both alike, or model.backbone to "dense".'
        )
    return config.height, config.channels


def _options(config: Config) -> dict[str, Any]:
    return {"backbone": config.backbone, "base": config.base, "norm": config.norm}
