"""MCNet: motion and content, encoded apart, give the next frame (Villegas et al., 2017).

Ruben Villegas, Jimei Yang, Seunghoon Hong, Xunyu Lin, Honglak Lee, *Decomposing Motion and Content for Natural Video
Sequence Prediction*, ICLR 2017, https://arxiv.org/abs/1706.08033, and the released code.

Differences of consecutive grey frames go through convolutions into a ConvLSTM: the motion. The last frame alone goes
through others: the content. Both together, and at every scale a residual map of both, are decoded into the next frame,
which then is the last one; gradients flow through the whole of that recursion. Besides squared error, a difference of
edges' steepness and a discriminator of the whole clip keep frames sharp. The defaults are those of KTH.

Departures from the released code. Differences of neighbouring pixels are taken where there are two (``border="same"``
has its border terms). Each player's turn is told from the discriminator's losses in the step before, before that step's
updates, and anew at each step; there a player that pauses does so until the other would too, and losses are taken after
the updates. Channels are in the order red, green, blue. Transposed convolutions of stride 1 are convolutions, whose
kernels are theirs turned around. The discriminator pads evenly, starts from N(0, 0.02²), and has no bias where a
normalisation follows; the ConvLSTM starts as all of `ops.cells`. Not of the paper: ``adversarial_after``, for networks
that begin from nothing on little data, ``content="none"``, which shows what content is for, and ``output="linear"``.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.nn.convolution import Conv
from seqjax.nn.norm import Kind
from seqjax.nn.unpool_codec import GLOROT, Decoder, Encoder, SequenceDiscriminator
from seqjax.ops.cells import LSTMCarry, lstm
from seqjax.ops.colour import rgb_to_grey
from seqjax.ops.distances import absolute_error, gradient_difference, squared_error
from seqjax.ops.gan import Turns, non_saturating, turns
from seqjax.ops.image import fold_time, signed_to_unit, uint8_to_unit, unfold_time, unit_to_signed
from seqjax.ops.linear import affine
from seqjax.ops.scan import unroll

Nets = dict[str, Any]
Batch = dict[str, Array]
Maps = tuple[Float[Array, "..."], ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses; the defaults are the released code's for KTH."""

    context: int = 10
    """Frames that are seen, 2 or more."""
    future: int = 10
    """Frames that follow in training; predictions go as far as they are asked to."""
    height: int = 128
    """Of the frames, a multiple of 2 for each scale."""
    width: int = 128
    """Of the frames, likewise."""
    channels: int = 1
    """Of the frames, 1 or 3."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Features of each scale, the largest map first; those of the ConvLSTM are the last."""
    convolutions: tuple[int, ...] = (2, 2, 3)
    """3x3 convolutions of each scale, in the content encoder and in the decoder."""
    motion_kernels: tuple[int, ...] = (5, 5, 7)
    """Sides of the motion encoder's kernels, one convolution a scale."""
    content: Literal["frame", "none"] = "frame"
    """What the content encoder is given: the last frame, or zeros."""
    output: Literal["tanh", "linear"] = "tanh"
    """What the decoder ends in. Where most of every frame is black, tanh soon is -1 everywhere and has no gradient."""
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)
    """Features of the discriminator's convolutions."""
    norm: Kind = "batch"
    """Normalisation of the discriminator, of each batch on its own."""
    image: float = 1.0
    """``α``, weight of the pixels' distance and of the gradient difference."""
    distance: Literal["squared", "absolute"] = "squared"
    """Of pixels, the paper's ``p`` of 2 or 1."""
    gradient: float = 1.0
    """Weight of the gradient difference beside it."""
    exponent: float = 1.0
    """Of the gradient difference, the paper's ``λ``, 1 or more."""
    border: Literal["valid", "same"] = "valid"
    """Of the gradient difference: see `ops.distances.gradient_difference`."""
    adversarial: float = 0.02
    """``β``, weight of the adversarial loss; 0 for no discriminator."""
    adversarial_after: int = 0
    """Steps of the predictor without one."""
    margin: float = 0.3
    """Of the rule that lets a player pause: see `ops.gan.turns`."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two scales, three frames of context; nothing normalised, for by batches what differs little in
        such a network would be made large, rounding too."""
        small = cls(3, 2, height=8, width=8, widths=(6, 8), convolutions=(1, 2), motion_kernels=(3, 3))
        return dataclasses.replace(small, discriminator_widths=(4, 6), norm="none")


class Residual(nnx.Module):
    """What a scale of the decoder is given: two 3x3 convolutions of the motion's and the content's maps."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.mix = Conv(2 * features, features, 3, start=GLOROT, rngs=rngs)
        self.out = Conv(features, features, 3, start=GLOROT, rngs=rngs)

    def __call__(self, motion: Float[Array, "B H W D"], content: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        """The residual map."""
        return self.out(jax.nn.relu(self.mix(jnp.concatenate([motion, content], axis=-1))))


class Predictor(nnx.Module):
    """Encoders, ConvLSTM, combination, residual maps and decoder."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        widths, scales = config.widths, len(config.widths)
        top = widths[-1]
        self.config = config
        self.motion = Encoder(1, widths=widths, convolutions=(1,) * scales, kernels=config.motion_kernels, rngs=rngs)
        self.content = Encoder(
            config.channels, widths=widths, convolutions=config.convolutions, kernels=(3,) * scales, rngs=rngs
        )
        self.lstm = nnx.Param(lstm.init(rngs.params(), top, top, kernel_size=(3, 3)))
        sizes = zip((2 * top, top, top // 2), (top, top // 2, top), strict=True)
        self.combine = compat.List([Conv(c, d, 3, start=GLOROT, rngs=rngs) for c, d in sizes])
        self.residuals = compat.List([Residual(width, rngs=rngs) for width in widths])
        self.decoder = Decoder(
            config.channels, output=config.output, widths=widths, convolutions=config.convolutions, rngs=rngs
        )
        self.steps = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, context: Float[Array, "B K H W C"], *, steps: int) -> Float[Array, "B S H W C"]:
        """The frames that follow, in (-1, 1) by tanh, and float32.

        Args:
          context: frames in [-1, 1].
          steps: how many follow.
        """
        differences = jnp.diff(grey(context), axis=1)
        state = self._remember(differences[:, :-1])

        def step(_: Any, carry: Any, x_t: None) -> Any:
            state, frame, difference = carry
            state, motion = self._move(state, difference)
            predicted = self._compose(state.h, motion, frame)
            return (state, predicted, grey(predicted) - grey(frame)), predicted

        first = (state, context[:, -1].astype(jnp.float32), differences[:, -1])
        return unroll(step, (), first, None, steps=steps)[1]

    def _remember(self, differences: Float[Array, "B T H W 1"]) -> LSTMCarry:
        """The state after so many differences, which may be none."""
        params: Any = compat.pure(self.lstm)
        batch, frames, height, width, _ = differences.shape
        scale = 2 ** len(self.config.widths)
        start = lstm.carry(params, (batch, height // scale, width // scale))
        if not frames:
            return start
        tops, _ = self.motion(fold_time(differences))
        return unroll(lstm, params, start, unfold_time(tops, frames=frames))[0]

    def _move(self, state: LSTMCarry, difference: Float[Array, "B H W 1"]) -> tuple[LSTMCarry, Maps]:
        """The state after one difference more, and that one's maps."""
        params: Any = compat.pure(self.lstm)
        top, maps = self.motion(difference)
        return lstm.step(params, state, lstm.project(params, top, affine), affine)[0], maps

    def _compose(
        self, h: Float[Array, "B _h _w D"], motion: Maps, frame: Float[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """The next frame of a motion and the last frame."""
        seen = frame if self.config.content == "frame" else jnp.zeros_like(frame)
        top, content = self.content(seen)
        x = jnp.concatenate([h, top], axis=-1)
        for conv in self.combine:
            x = jax.nn.relu(conv(x))
        maps = [residual(m, c) for residual, m, c in zip(self.residuals, motion, content, strict=True)]
        return self.decoder(x, maps)


def grey(frames: Float[Array, "*B H W C"]) -> Float[Array, "*B H W 1"]:
    """Frames in [-1, 1] as grey ones in [0, 1]."""
    unit = signed_to_unit(frames.astype(jnp.float32))
    return unit if unit.shape[-1] == 1 else rgb_to_grey(unit)


def build(config: Config, rngs: nnx.Rngs) -> Nets:
    """The networks; without an adversarial loss there is no discriminator.

    Raises:
      InputError: a context without motion; frames that do not halve as often as there are scales.
    """
    whole = 2 ** len(config.widths)
    if config.context < 2 or config.future < 1:
        raise InputError(
            f"context, future: got {config.context} and {config.future} frames; expected 2 or more, between which "
            "something can move, and 1 or more: set model.context or model.future."
        )
    if config.height % whole or config.width % whole or config.channels not in (1, 3):
        raise InputError(
            f"height, width, channels: got {config.height}x{config.width}x{config.channels}; expected multiples of "
            f"{whole}, for {len(config.widths)} poolings, and 1 or 3 channels: choose a data set of such frames, or "
            "set model.widths."
        )
    nets: Nets = {"predictor": Predictor(config, rngs=rngs)}
    if config.adversarial:
        depth, size = (config.context + config.future) * config.channels, (config.height, config.width)
        widths = config.discriminator_widths
        nets["discriminator"] = SequenceDiscriminator(depth, size, widths=widths, norm=config.norm, rngs=rngs)
    return nets


def loss_generator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``α (L_p + L_gdl) + β L_GAN``, averaged over the batch.

    ``L_p`` is the mean squared (or absolute) error of pixels in [-1, 1], ``L_gdl`` the gradient difference of pixels in
    [0, 1], so that between frames of one range, as the paper writes it, it counts half as much at ``λ = 1``, and
    ``L_GAN = -log D([x_1:K, x̂_K+1:K+T])`` (Villegas et al., 2017, Eq. 7 to 10).
    """
    predictor = nets["predictor"]
    config = predictor.config
    context, future = split_clip(config, batch["video"])
    predicted = predictor(context, steps=config.future)
    error = squared_error if config.distance == "squared" else absolute_error
    pixels = jnp.mean(error(predicted, future)) / math.prod(future.shape[2:])
    units = (signed_to_unit(predicted), signed_to_unit(future))
    edges = jnp.mean(gradient_difference(*units, exponent=config.exponent, border=config.border))
    total = config.image * (pixels + config.gradient * edges)
    metrics = {"pixels": pixels, "edges": edges}
    if config.adversarial:
        _, fake = _judged(nets, context, future, predicted)
        fooled = jnp.mean(non_saturating.generator(fake))
        began = predictor.steps[...] >= config.adversarial_after
        total = total + jnp.where(began, config.adversarial * fooled, 0.0)
        metrics["adversarial"] = fooled
        predictor.steps[...] = predictor.steps[...] + 1
    return total, metrics


def loss_discriminator(nets: Nets, batch: Batch, *, key: PRNGKeyArray) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``-log D([x_1:K, x_K+1:K+T]) - log(1 - D([x_1:K, x̂_K+1:K+T]))``, averaged over the batch."""
    config = nets["predictor"].config
    context, future = split_clip(config, batch["video"])
    predicted = nets["predictor"](context, steps=config.future)
    real, fake = _judged(nets, context, future, predicted)
    metrics = dict(zip(("real", "fake"), nets["discriminator"].errors[...], strict=True))
    return jnp.mean(non_saturating.discriminator(real, fake)), metrics


def _judged(
    nets: Nets, context: Float[Array, "B K H W C"], future: Float[Array, "B S H W C"], predicted: Array
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Logits of the true and of the predicted clip, whose losses the discriminator keeps."""
    judge = nets["discriminator"]
    clips = (jnp.concatenate([context, frames], axis=1) for frames in (future, predicted))
    real, fake = (judge(clip).astype(jnp.float32) for clip in clips)
    judge.remember(real, fake)
    return real, fake


def playing(config: Config, rest: Mapping[str, Any]) -> Turns:
    """Who plays next, from what the networks keep (``train.step.State.rest``).

    Until the adversarial loss counts, the generator alone.
    """
    next_ones = turns(*rest["discriminator"]["errors"], margin=config.margin)
    began = rest["predictor"]["steps"] >= config.adversarial_after
    return Turns(began & next_ones.discriminator, ~began | next_ones.generator)


def predict(nets: Nets, batch: Batch, *, steps: int | None = None) -> Float[Array, "B S H W C"]:
    """The frames that follow the context, in [0, 1]; ``config.future`` of them unless said."""
    predictor = nets["predictor"]
    context, _ = split_clip(predictor.config, batch["video"], future=0)
    return jnp.clip(signed_to_unit(predictor(context, steps=steps or predictor.config.future)), 0, 1)


def split_clip(
    config: Config, video: UInt8[Array, "B T H W C"], *, future: int | None = None
) -> tuple[Float[Array, "B K H W C"], Float[Array, "B S H W C"]]:
    """A clip as past and future, in [-1, 1].

    Args:
      config: of the networks.
      video: grey levels.
      future: frames that follow; ``config.future`` unless given.

    Raises:
      InputError: for clips too short, or of another size.
    """
    needed = config.context + (config.future if future is None else future)
    size = (config.height, config.width, config.channels)
    if video.shape[1] < needed or video.shape[2:] != size:
        raise InputError(
            f"video: a clip of {video.shape[1]} frames of {'x'.join(map(str, video.shape[2:]))} came; the networks "
            f"take at least {needed} frames of {'x'.join(map(str, size))}: choose a data set of that shape, or set "
            "model.context, model.future, model.height, model.width or model.channels."
        )
    signed = unit_to_signed(uint8_to_unit(video[:, :needed]))
    return signed[:, : config.context], signed[:, config.context :]
