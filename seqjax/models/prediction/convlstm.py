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
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from seqjax.errors import InputError
from seqjax.nn.encoder_forecaster import EncoderForecaster
from seqjax.ops.image import uint8_to_unit
from seqjax.ops.likelihood import bernoulli_cross_entropy


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
    remat: bool = False
    """Whether of every √T steps one is kept for the gradient and the others are computed again."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two small layers on a few frames."""
        return cls(context=3, future=2, patch=2, features=(4, 3), kernel=3)


class Forecaster(EncoderForecaster):
    """The network of a configuration."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        super().__init__(
            config.channels,
            config.features,
            patch=config.patch,
            kernel=config.kernel,
            input_kernel=config.input_kernel,
            peephole=config.peephole,
            forget_bias=config.forget_bias,
            readout=config.readout,
            conditional=config.conditional,
            remat="sqrt" if config.remat else None,
            rngs=rngs,
        )


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The one network of the system."""
    return {"forecaster": Forecaster(config, rngs=rngs)}


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
    nets: dict[str, Forecaster], batch: dict[str, Array], *, key: PRNGKeyArray
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


def predict(nets: dict[str, Forecaster], batch: dict[str, Array]) -> Float[Array, "B S H W C"]:
    """The future frames, in [0, 1], running freely."""
    net = nets["forecaster"]
    context, _ = split_clip(net.config, batch["video"])
    return jax.nn.sigmoid(net(context, steps=net.config.future))
