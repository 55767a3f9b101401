"""Recurrent networks on the adding and copy-memory problems (Hochreiter and Schmidhuber, 1997).

Sepp Hochreiter, Jürgen Schmidhuber, *Long Short-Term Memory*, Neural Computation 9(8), 1997,
https://doi.org/10.1162/neco.1997.9.8.1735, in the form that Martin Arjovsky, Amar Shah and Yoshua Bengio, *Unitary
Evolution Recurrent Neural Networks*, ICML 2016, https://arxiv.org/abs/1511.06464, gave both problems.

Layers of one cell read a sequence and a linear map reads the top layer: after the last step for the sum of the two
marked numbers, after every step for the symbol to write. Which cell is the question: what an Elman network has to carry
over tens of steps is lost, what a gated cell carries is not. The sequences are those of ``seqjax.data.memory_tasks``.

Departures from 1997: one layer of today's cells (the LSTM with a forget gate that starts open) instead of memory
blocks with truncated gradients. From 2016: 9 output symbols, since the go symbol is never a target; orthogonal
recurrent kernels for every cell.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax import compat
from seqjax.errors import InputError
from seqjax.ops import cells
from seqjax.ops.compose import stack
from seqjax.ops.diagnostics import gradient_norm_by_lag
from seqjax.ops.recurrence import Cell
from seqjax.ops.scan import unroll

Task = Literal["adding", "copy"]
CellName = Literal["rnn", "rnn_relu", "lstm", "gru", "gru_reset_before"]

READ, WRITTEN = 10, 9
"""Symbols of the copy-memory problem that can be read (0-7 to remember, 8 blank, 9 go) and be written."""
COPIED = 10
"""Steps at the end of the copy-memory problem that ask for memory."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the LSTM's of Arjovsky et al. for the adding problem."""

    task: Task = "adding"
    """The problem."""
    cell: CellName = "lstm"
    """The recurrent cell, by its name in ``seqjax.ops.cells``."""
    features: int = 128
    """Width of each layer."""
    layers: int = 1
    """Layers, one above the other."""

    @classmethod
    def tiny(cls) -> "Config":
        """For tests."""
        return cls(features=8)


class Reader(nnx.Module):
    """The layers and the map that reads the top one."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        inputs, outputs = (2, 1) if config.task == "adding" else (READ, WRITTEN)
        layers = stack([self.cell] * config.layers)
        self.layers = nnx.Param(layers.init(rngs.params(), inputs, (config.features,) * config.layers))
        self.readout = nnx.Linear(config.features, outputs, rngs=rngs)

    @property
    def cell(self) -> Cell:
        """The cell of each layer."""
        return getattr(cells, self.config.cell)

    def __call__(self, inputs: Array) -> Float[Array, "B ..."]:
        """Sums ``[B, 1]`` for inputs ``[B, T, 2]``; logits ``[B, L, 9]`` for symbols ``[B, L]``."""
        hs = self.encode(inputs)
        for params in compat.pure(self.layers):
            _, hs = unroll(self.cell, params, None, hs)
        return self.readout(hs[:, -1] if self.config.task == "adding" else hs)

    def encode(self, inputs: Array) -> Float[Array, "B T C"]:
        """Numbers as they are, symbols one-hot.

        Raises:
          InputError: the inputs are of the other problem.
        """
        adding = jnp.issubdtype(inputs.dtype, jnp.floating)
        if adding != (self.config.task == "adding"):
            raise InputError(
                f"inputs: {'numbers' if adding else 'symbols'} came, {inputs.dtype}{list(inputs.shape)}; the network "
                f"was built for task={self.config.task!r}. Give float [B, T, 2] to 'adding' and int [B, L] to 'copy'."
            )
        return inputs if adding else jax.nn.one_hot(inputs, READ)


def build(config: Config, rngs: nnx.Rngs) -> dict[str, Reader]:
    """The one network of the system."""
    return {"reader": Reader(config, rngs=rngs)}


def loss(
    nets: dict[str, Reader], batch: dict[str, Array], *, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean over the batch of the squared error of the sum, or of the cross-entropy per step in nats."""
    net = nets["reader"]
    errors = error(net.config.task, net(batch["inputs"]), batch["targets"])
    return jnp.mean(errors), {}


def error(task: Task, outputs: Float[Array, "B ..."], targets: Array) -> Float[Array, " B"]:
    """What each sequence costs: ``(y - ŷ)²`` ("adding"), ``-1/L Σ_t log p_t(y_t)`` ("copy")."""
    outputs = outputs.astype(jnp.float32)
    if task == "adding":
        return jnp.mean(jnp.square(outputs - targets), axis=-1)
    return jnp.mean(-_log_probability(outputs, targets), axis=-1)


def recalled(logits: Float[Array, "B L K"], targets: Array) -> Float[Array, " B"]:
    """The part of the ten symbols that are remembered right."""
    right = jnp.argmax(logits[:, -COPIED:], axis=-1) == targets[:, -COPIED:]
    return jnp.mean(right, axis=-1, dtype=logits.dtype)


def predict(nets: dict[str, Reader], batch: dict[str, Array]) -> Float[Array, "B ..."]:
    """The sums ``[B, 1]``, or the logits ``[B, L, 9]`` of the symbols."""
    return nets["reader"](batch["inputs"])


def memoryless(task: Task, inputs: Array) -> Float[Array, "B ..."]:
    """The best prediction that remembers nothing.

    Adding: 1, the mean of the target, at a squared error of 1/6. Copying: blanks until the go symbol is read, then
    all eight symbols alike, at a cross-entropy of ``10 ln 8 / (T + 20)`` per step.
    """
    if task == "adding":
        return jnp.ones((len(inputs), 1))
    blank = jnp.arange(inputs.shape[1]) < inputs.shape[1] - COPIED
    possible = blank[:, None] == (jnp.arange(WRITTEN) == WRITTEN - 1)[None]
    return jnp.broadcast_to(jnp.where(possible, 0.0, -1e9)[None], (len(inputs), *possible.shape))


def last_number(inputs: Float[Array, "B T 2"]) -> Float[Array, "B 1"]:
    """The adding problem half solved: the second marked number, and 1/2 for the first, at a squared error of 1/12."""
    numbers, marks = inputs[..., 0], inputs[..., 1]
    last = inputs.shape[1] - 1 - jnp.argmax(marks[:, ::-1], axis=1)
    return jnp.take_along_axis(numbers, last[:, None], axis=1) + 0.5


def gradient_norms(nets: dict[str, Reader], batch: dict[str, Array]) -> Float[Array, "B T"]:
    """``‖∂L_T/∂h_{T-k}‖`` for k = 1 .. T: the loss is the last step's alone, ``h`` the states of all layers."""
    net = nets["reader"]
    layers, params, xs = stack([net.cell] * net.config.layers), compat.pure(net.layers), net.encode(batch["inputs"])

    def last(h: Float[Array, "B D"]) -> Float[Array, " B"]:
        if net.config.task == "adding":
            return error("adding", net.readout(h), batch["targets"])
        return error("copy", net.readout(h)[:, None], batch["targets"][:, -1:])

    return gradient_norm_by_lag(layers, params, layers.carry(params, (len(xs),)), xs, last)


def _log_probability(logits: Float[Array, "B L K"], targets: Array) -> Float[Array, "B L"]:
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
