"""ConvLSTM encoder-forecaster (Shi et al., 2015).

Xingjian Shi, Zhourong Chen, Hao Wang, Dit-Yan Yeung, Wai-kin Wong, Wang-chun Woo, *Convolutional LSTM Network: A
Machine Learning Approach for Precipitation Nowcasting*, NIPS 2015, https://arxiv.org/abs/1506.04214.

A stack of ConvLSTMs reads the context; its states, layer by layer, start a second stack that has no input at its
bottom layer and whose hidden states, all layers concatenated, give each future frame through one 1x1 convolution.
Frames are cut into patches (space to depth) before the first layer and put together after the last. The defaults are
the best network of the paper's Moving MNIST table (5x5 kernels, 128-64-64 features).

Departures from the paper: the forget gate's bias starts at 1 (0 there: ``forget_bias``); ``conditional=True`` adds
the variant whose forecaster reads the previous frame, true or its own. Not a departure, since the paper's six
parameter counts come out only so: peepholes are one weight per channel, and the output reads all layers ("all";
the fully connected baseline of the table reads the top one).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from seqjax import compat
from seqjax.errors import InputError
from seqjax.ops.cells import lstm
from seqjax.ops.compose import FeedbackCarry, FeedbackParams, Teacher, feedback, stack
from seqjax.ops.image import depth_to_space, space_to_depth, uint8_to_unit
from seqjax.ops.likelihood import bernoulli_cross_entropy
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Affine
from seqjax.ops.scan import unroll


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the paper's."""

    context: int = 10
    """Frames that the encoder reads."""
    future: int = 10
    """Frames that the forecaster predicts."""
    channels: int = 1
    """Channels of a frame."""
    patch: int = 4
    """Side of the square patches that a frame is cut into."""
    features: tuple[int, ...] = (128, 64, 64)
    """Features of each layer, bottom first, in the encoder and in the forecaster."""
    kernel: int = 5
    """Side of the state-to-state kernels (and of the input-to-state ones, unless given)."""
    input_kernel: int | None = None
    """Side of the input-to-state kernels, where it differs."""
    peephole: Literal["none", "channel"] = "channel"
    """Peepholes: none, or one weight per channel."""
    forget_bias: float = 1.0
    """Initial bias of the forget gates."""
    readout: Literal["all", "last"] = "all"
    """The forecaster's layers that the output reads."""
    conditional: bool = False
    """Whether the forecaster reads the previous frame (true in teacher forcing, else its own prediction)."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two small layers on a few frames."""
        return cls(context=3, future=2, patch=2, features=(4, 3), kernel=3)


class Readout(NamedTuple):
    """The 1x1 output convolution."""

    kernel: Float[Array, "1 1 D C"]
    bias: Float[Array, " C"]


class EncoderForecaster(nnx.Module):
    """The two stacks and the readout."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        depth = config.channels * config.patch**2
        layers = stack([lstm] * len(config.features), outputs="all")
        options = {
            "kernel_size": (config.kernel,) * 2,
            "input_kernel_size": (config.input_kernel or config.kernel,) * 2,
            "peephole": config.peephole,
            "forget_bias": config.forget_bias,
        }
        self.encoder = nnx.Param(layers.init(rngs.params(), depth, config.features, **options))
        bottom = depth if config.conditional else None
        self.forecaster = nnx.Param(layers.init(rngs.params(), bottom, config.features, **options))
        width = sum(config.features) if config.readout == "all" else config.features[-1]
        kernel = jax.nn.initializers.lecun_normal()(rngs.params(), (1, 1, width, depth))
        self.readout = nnx.Param(Readout(kernel, jnp.zeros(depth)))

    def __call__(
        self,
        context: Float[Array, "B T H W C"],
        *,
        steps: int,
        teacher: Float[Array, "B S H W C"] | None = None,
        use: Float[Array, "B S"] | None = None,
    ) -> Float[Array, "B S H W C"]:
        """Logits of the ``steps`` frames that follow the context (frames in [0, 1]).

        Args:
          context: the frames read.
          steps: how many frames to predict.
          teacher: the true future, for the conditional variant alone: the forecaster then reads true frames.
          use: 1 where it does, 0 where it reads its own prediction; all ones unless given (scheduled sampling).
        """
        block = self.config.patch
        xs = space_to_depth(context, block=block)
        carries = []
        for params in compat.pure(self.encoder):
            carry, xs = unroll(lstm, params, None, xs)
            carries.append(carry)
        if self.config.conditional:
            first = space_to_depth(context[:, -1], block=block)
            logits = self._feed_back(tuple(carries), first, steps, teacher, use)
        else:
            logits = self._forecast(carries, steps)
        return depth_to_space(logits, block=block)

    def _forecast(self, carries: list, steps: int) -> Array:
        xs, hs = None, []
        for params, carry in zip(compat.pure(self.forecaster), carries, strict=True):
            _, xs = unroll(lstm, params, carry, xs, steps=steps)
            hs.append(xs)
        return self._read(Readout(*compat.pure(self.readout)), tuple(hs), affine)

    def _feed_back(self, carries: tuple, first: Array, steps: int, teacher: Array | None, use: Array | None) -> Array:
        def readout(params: Readout, hs: tuple, affine: Affine) -> tuple[Array, Array]:
            logits = self._read(params, hs, affine)
            return jax.nn.sigmoid(logits), logits

        cell = feedback(stack([lstm] * len(carries), outputs="all"), readout)
        params = FeedbackParams(compat.pure(self.forecaster), compat.pure(self.readout))
        xs = None
        if teacher is not None:
            frames = space_to_depth(teacher, block=self.config.patch)
            frames = jnp.concatenate([first[:, None], frames[:, :-1]], axis=1)
            xs = Teacher(frames, jnp.ones(frames.shape[:2]) if use is None else use)
        _, logits = unroll(cell, params, FeedbackCarry(carries, first), xs, steps=steps)
        return logits

    def _read(self, params: Readout, hs: tuple[Array, ...], affine: Affine) -> Array:
        read = jnp.concatenate(hs, axis=-1) if self.config.readout == "all" else hs[-1]
        return affine(params.bias, params.kernel, read)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The one network of the system."""
    return {"forecaster": EncoderForecaster(config, rngs=rngs)}


def split_clip(
    config: Config, video: UInt8[Array, "B T H W C"]
) -> tuple[Float[Array, "B P H W C"], Float[Array, "B S H W C"]]:
    """A clip as past and future, in [0, 1].

    Raises:
      InputError: for clips too short, of other channels, or of a size that the patches do not tile.
    """
    frames, height, width, channels = video.shape[1:]
    needed = config.context + config.future
    if frames < needed or channels != config.channels or height % config.patch or width % config.patch:
        raise InputError(
            f"video: a clip of {frames} frames of {height}x{width} with {channels} channels came; the network takes "
            f"at least {needed} frames (context {config.context} + future {config.future}) with {config.channels} "
            f"channels, and a height and width that patch={config.patch} divides. Choose a data set of that shape, or "
            "set model.context, model.future, model.channels or model.patch."
        )
    video = uint8_to_unit(video)
    return video[:, : config.context], video[:, config.context : needed]


def loss(
    nets: dict[str, EncoderForecaster], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Cross-entropy of the future frames, per sequence: summed over pixels and frames, averaged over the batch.

    ``-Σ_t Σ_ij [x log x̂ + (1-x) log(1-x̂)]`` (Shi et al., 2015, section 4.1), with grey levels as targets. The
    conditional variant is trained with teacher forcing. The value minimised is the mean per pixel.
    """
    net = nets["forecaster"]
    context, future = split_clip(net.config, batch["video"])
    teacher = future if net.config.conditional else None
    logits = net(context, steps=net.config.future, teacher=teacher)
    entropy = bernoulli_cross_entropy(logits, future)
    return jnp.mean(entropy) / future[0, 0].size, {"cross_entropy": jnp.mean(jnp.sum(entropy, axis=1))}


def predict(nets: dict[str, EncoderForecaster], batch: dict[str, Array]) -> Float[Array, "B S H W C"]:
    """The future frames, in [0, 1], running freely."""
    net = nets["forecaster"]
    context, _ = split_clip(net.config, batch["video"])
    return jax.nn.sigmoid(net(context, steps=net.config.future))
