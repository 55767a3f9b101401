"""The ConvLSTM encoder-forecaster of Shi et al., *Convolutional LSTM Network*, 2015.

A stack of ConvLSTMs reads the context; its states, layer by layer, start a second stack, whose hidden states give each
future frame through one 1x1 convolution. `seqjax.models.prediction.convlstm` is the published system.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from seqjax import compat
from seqjax.ops.cells import lstm
from seqjax.ops.compose import FeedbackCarry, FeedbackParams, Teacher, feedback, stack
from seqjax.ops.image import depth_to_space, space_to_depth
from seqjax.ops.linear import affine
from seqjax.ops.recurrence import Affine
from seqjax.ops.scan import unroll


class Readout(NamedTuple):
    """The 1x1 output convolution."""

    kernel: Float[Array, "1 1 D C"]
    bias: Float[Array, " C"]


class EncoderForecaster(nnx.Module):
    """The two stacks and the readout.

    Args:
      channels: C of a frame.
      features: of each layer, bottom first, in the encoder and in the forecaster.
      patch: side of the square patches that a frame is cut into.
      kernel: side of the state-to-state kernels (and of the input-to-state ones, unless given).
      input_kernel: side of the input-to-state kernels, where it differs.
      peephole: none, or one weight per channel.
      forget_bias: initial bias of the forget gates.
      readout: the forecaster's layers that the output reads.
      conditional: whether the forecaster reads the previous frame, true or its own prediction.
      remat: of the scans over inputs, as of `ops.scan.unroll`.
      rngs: of the parameters.
    """

    def __init__(
        self,
        channels: int,
        features: tuple[int, ...],
        *,
        patch: int,
        kernel: int,
        input_kernel: int | None = None,
        peephole: Literal["none", "channel"] = "channel",
        forget_bias: float = 1.0,
        readout: Literal["all", "last"] = "all",
        conditional: bool = False,
        remat: int | Literal["sqrt"] | None = None,
        rngs: nnx.Rngs,
    ):
        self.patch, self.reads_all, self.conditional, self.remat = patch, readout == "all", conditional, remat
        depth = channels * patch**2
        layers = stack([lstm] * len(features), outputs="all")
        options = {
            "kernel_size": (kernel,) * 2,
            "input_kernel_size": (input_kernel or kernel,) * 2,
            "peephole": peephole,
            "forget_bias": forget_bias,
        }
        self.encoder = nnx.Param(layers.init(rngs.params(), depth, features, **options))
        self.forecaster = nnx.Param(layers.init(rngs.params(), depth if conditional else None, features, **options))
        width = sum(features) if self.reads_all else features[-1]
        weights = jax.nn.initializers.lecun_normal()(rngs.params(), (1, 1, width, depth))
        self.readout = nnx.Param(Readout(weights, jnp.zeros(depth)))

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
        block = self.patch
        xs = space_to_depth(context, block=block)
        carries = []
        for params in compat.pure(self.encoder):
            carry, xs = unroll(lstm, params, None, xs, remat=self.remat)
            carries.append(carry)
        if self.conditional:
            first = space_to_depth(context[:, -1], block=block)
            logits = self._feed_back(tuple(carries), first, steps, teacher, use)
        else:
            logits = self._forecast(carries, steps)
        return depth_to_space(logits, block=block)

    def _forecast(self, carries: list, steps: int) -> Array:
        xs, hs = None, []
        for params, carry in zip(compat.pure(self.forecaster), carries, strict=True):
            _, xs = unroll(lstm, params, carry, xs, steps=steps, remat=None if xs is None else self.remat)
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
            frames = space_to_depth(teacher, block=self.patch)
            frames = jnp.concatenate([first[:, None], frames[:, :-1]], axis=1)
            xs = Teacher(frames, jnp.ones(frames.shape[:2]) if use is None else use)
        _, logits = unroll(
            cell, params, FeedbackCarry(carries, first), xs, steps=steps, remat=None if xs is None else self.remat
        )
        return logits

    def _read(self, params: Readout, hs: tuple[Array, ...], affine: Affine) -> Array:
        read = jnp.concatenate(hs, axis=-1) if self.reads_all else hs[-1]
        return affine(params.bias, params.kernel, read)
