"""LSTM composite model (Srivastava et al., 2015).

Nitish Srivastava, Elman Mansimov, Ruslan Salakhutdinov, *Unsupervised Learning of Video Representations using LSTMs*,
ICML 2015, https://arxiv.org/abs/1502.04681; facts that the paper leaves open are those of the released code,
https://github.com/emansim/unsupervised-videos.

Fully connected LSTMs with peepholes. One reads a sequence; from its final state, layer by layer, one decoder gives the
sequence back in reversed order and another gives what follows. Either decoder can be left out. A conditional decoder
reads the previous frame from its second step on, the true one in training and its own afterwards; an unconditional one
reads nothing. A step of the sequence is a frame, a patch that is cut out of a clip, or a vector of features of a frame
("percept"), which comes precomputed in ``batch["percepts"]`` (the set ``folder_of_features``). The defaults are the
sizes for two digits on 64x64.

Departures: kernels are LeCun-normal and orthogonal, peepholes start at 0 and the forget gates' bias at 1 (released
code: U(±0.01), U(±0.1), 0). The reconstructing decoder is unconditional unless asked for; a conditional one reads its
own frames at test time (released code: the true ones). Real-valued sequences cost the squared error (released code:
half of it). Classification with the encoder's states, for which the paper fine-tunes it, is not here.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.ops.cells import LSTMCarry, lstm
from seqjax.ops.compose import FeedbackCarry, FeedbackParams, Teacher, feedback, stack
from seqjax.ops.distances import squared_error
from seqjax.ops.image import uint8_to_unit
from seqjax.ops.likelihood import bernoulli_cross_entropy
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Affine
from seqjax.ops.scan import unroll

DECODERS = ("reconstruction", "future")
Decoders = Literal["reconstruction", "future", "both"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the paper's for Moving MNIST."""

    context: int = 10
    """Frames that the encoder reads, and that are given back."""
    future: int = 10
    """Frames that are predicted."""
    size: int = 64
    """Height and width of a frame, or of a patch of it."""
    channels: int = 1
    """Channels of a frame."""
    percept: int | None = None
    """Features of a percept, where sequences are of those and not of frames."""
    features: tuple[int, ...] = (2048,)
    """Units of each layer, bottom first, in the encoder and in the decoders."""
    decoders: Decoders = "both"
    """What is decoded: the composite model, the autoencoder alone or the future predictor alone."""
    conditional: Decoders | Literal["none"] = "future"
    """The decoders that read the previous frame."""
    true_frames: float = 1.0
    """Probability that a conditional decoder is given the true frame in training: 1 is teacher forcing, less is
    scheduled sampling."""
    error: Literal["cross_entropy", "squared"] = "cross_entropy"
    """Of a step: cross-entropy of grey levels in [0, 1], or squared error of real numbers."""
    forget_bias: float = 1.0
    """Initial bias of the forget gates."""

    @property
    def key(self) -> str:
        """Of a batch, what the sequences are."""
        return "video" if self.percept is None else "percepts"

    @property
    def step(self) -> tuple[int, ...]:
        """Shape of one step of a sequence."""
        return (self.size, self.size, self.channels) if self.percept is None else (self.percept,)

    @property
    def width(self) -> int:
        """Numbers in one step."""
        return math.prod(self.step)

    @property
    def names(self) -> tuple[str, ...]:
        """The decoders there are."""
        return DECODERS if self.decoders == "both" else (self.decoders,)

    @classmethod
    def tiny(cls) -> "Config":
        """For tests: two small layers on a few small frames, both decoders unconditional."""
        return cls(context=3, future=2, size=8, features=(12, 8), conditional="none")


class Readout(NamedTuple):
    """From the top layer to a frame."""

    kernel: Float[Array, "H D"]
    bias: Float[Array, " D"]


class Encoder(nnx.Module):
    """The layers that read."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.layers = nnx.Param(_layers(config, config.width, rngs))

    def __call__(self, xs: Float[Array, "B T D"]) -> tuple[LSTMCarry, ...]:
        """The state of each layer after the last step."""
        carries = []
        for params in compat.pure(self.layers):
            carry, xs = unroll(lstm, params, None, xs)
            carries.append(carry)
        return tuple(carries)


class Decoder(nnx.Module):
    """The layers that write, and their readout."""

    def __init__(self, config: Config, *, conditional: bool, rngs: nnx.Rngs):
        self.config, self.conditional = config, conditional
        self.layers = nnx.Param(_layers(config, config.width if conditional else None, rngs))
        kernel = jax.nn.initializers.lecun_normal()(rngs.params(), (config.features[-1], config.width))
        self.readout = nnx.Param(Readout(kernel, jnp.zeros(config.width)))

    def __call__(
        self,
        carries: tuple[LSTMCarry, ...],
        *,
        steps: int,
        teacher: Float[Array, "B S D"] | None = None,
        use: Float[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """So many steps from the encoder's states: logits for the cross-entropy, else the values themselves.

        Args:
          carries: of each layer.
          steps: how many.
          teacher: the true sequence, for a conditional decoder alone, which then reads it, shifted by one step.
          use: 1 where it does, 0 where it reads what it wrote itself; all ones unless given.
        """
        if self.conditional:
            return self._feed_back(carries, steps, teacher, use)
        xs: Any = None
        for params, carry in zip(compat.pure(self.layers), carries, strict=True):
            _, xs = unroll(lstm, params, carry, xs, steps=steps)
        return _read(Readout(*compat.pure(self.readout)), xs, affine)

    def _feed_back(
        self, carries: tuple[LSTMCarry, ...], steps: int, teacher: Array | None, use: Array | None
    ) -> Float[Array, "B S D"]:
        def readout(params: Readout, h: Array, affine: Affine) -> tuple[Array, Array]:
            outputs = _read(params, h, affine)
            return _values(self.config, outputs), outputs

        nothing = jnp.zeros((len(carries[0].h), self.config.width))
        xs = None
        if teacher is not None:
            shifted = jnp.concatenate([nothing[:, None], teacher[:, :-1]], axis=1)
            xs = Teacher(shifted, jnp.ones(shifted.shape[:2]) if use is None else use)
        params = FeedbackParams(compat.pure(self.layers), compat.pure(self.readout))
        cell = feedback(stack([lstm] * len(carries)), readout)
        _, outputs = unroll(cell, params, FeedbackCarry(carries, nothing), xs, steps=steps)
        return outputs


def _layers(config: Config, inputs: int | None, rngs: nnx.Rngs) -> tuple:
    layers = stack([lstm] * len(config.features))
    return layers.init(rngs.params(), inputs, config.features, peephole="channel", forget_bias=config.forget_bias)


def _read(params: Readout, h: Array, affine: Affine) -> Array:
    return affine(params.bias, params.kernel, h)


def _values(config: Config, outputs: Array) -> Array:
    return jax.nn.sigmoid(outputs) if config.error == "cross_entropy" else outputs


def build(config: Config, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The encoder, and each decoder under the name of what it decodes.

    Raises:
      InputError: percepts, which are any real numbers, with the cross-entropy of grey levels.
    """
    if config.percept is not None and config.error == "cross_entropy":
        raise InputError(
            f"error: got 'cross_entropy' for percepts of {config.percept} features; it is defined for values in [0, 1]."
            " Give error='squared'."
        )
    nets: dict[str, nnx.Module] = {"encoder": Encoder(config, rngs=rngs)}
    for name in config.names:
        nets[name] = Decoder(config, conditional=config.conditional in (name, "both"), rngs=rngs)
    return nets


def sequences(config: Config, batch: dict[str, Array]) -> dict[str, Float[Array, "B _ D"]]:
    """What is read ("context"), and what each decoder has to give: steps as vectors, frames in [0, 1].

    The target of the reconstruction is the context reversed: the step that was read last comes first.

    Raises:
      InputError: sequences too short, or of other frames or percepts than the network's.
    """
    key, step, needed = config.key, config.step, config.context + config.future
    xs = batch[key]
    if xs.shape[1] < needed or xs.shape[2:] != step:
        raise InputError(
            f"{key}: sequences of shape {xs.shape[1:]} came; the network takes at least {needed} steps (context "
            f"{config.context} + future {config.future}) of shape {step}. Choose a data set of that shape, or set "
            "model.context, model.future, and model.size and model.channels or model.percept."
        )
    xs = (uint8_to_unit(xs) if config.percept is None else xs).reshape(*xs.shape[:2], -1)
    context = xs[:, : config.context]
    return {"context": context, "reconstruction": context[:, ::-1], "future": xs[:, config.context : needed]}


def loss(
    nets: dict[str, Any], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """``L = L_reconstruction + L_future``, each per step: summed over its numbers, averaged over steps and sequences.

    Nats, or the squared error. Conditional decoders are given the true steps, each with probability ``true_frames``.
    The metrics are the two parts.
    """
    config = nets["encoder"].config
    true = sequences(config, batch)
    carries = nets["encoder"](true["context"])
    parts = {}
    for name, key_name in zip(config.names, jax.random.split(key, len(config.names)), strict=True):
        given = {}
        if nets[name].conditional:
            use = jax.random.bernoulli(key_name, config.true_frames, true[name].shape[:2])
            given = {"teacher": true[name], "use": use.astype(jnp.float32)}
        outputs = nets[name](carries, steps=true[name].shape[1], **given)
        parts[name] = jnp.mean(step_error(config, outputs, true[name]))
    return sum(parts.values(), jnp.zeros(())), parts


def step_error(config: Config, outputs: Float[Array, "B S D"], targets: Float[Array, "B S D"]) -> Float[Array, "B S"]:
    """What each step costs: ``-Σ_d [x log σ(z) + (1-x) log(1-σ(z))]`` of logits ``z``, or ``Σ_d (x - z)²``."""
    error = bernoulli_cross_entropy if config.error == "cross_entropy" else squared_error
    return error(outputs[..., None, None, :], targets[..., None, None, :])


def predict(nets: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, "B _ ..."]]:
    """What each decoder gives, running freely: frames ``[B, S, H, W, C]``, or percepts ``[B, S, D]``.

    The reconstruction is in the order in which it is written, the last step of the context first.
    """
    config = nets["encoder"].config
    true = sequences(config, batch)
    carries = nets["encoder"](true["context"])
    found = {name: _values(config, nets[name](carries, steps=true[name].shape[1])) for name in config.names}
    return {name: xs.reshape(*xs.shape[:2], *config.step) for name, xs in found.items()}
