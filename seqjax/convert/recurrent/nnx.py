"""Parameters of the cells of ``flax.nnx``: ``nnx.to_pure_dict(nnx.state(cell, nnx.Param))``.

``nnx.Bidirectional`` has its cells at ``forward_rnn.cell`` and ``backward_rnn.cell``. Cells run with the LSTM carry of
Flax need ``read_carry``: it is ``(c, h)`` there.
"""

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from seqjax.convert.recurrent import gates, linen
from seqjax.convert.recurrent.gates import Packed, Packing, Reset
from seqjax.convert.recurrent.linen import Nested, read_carry, write_carry
from seqjax.convert.weights import take
from seqjax.errors import InputError
from seqjax.ops.cells import GRUParams, LSTMParams, RNNParams

__all__ = [
    "read_carry",
    "read_gru",
    "read_lstm",
    "read_optimized_lstm",
    "read_rnn",
    "write_carry",
    "write_gru",
    "write_lstm",
    "write_optimized_lstm",
    "write_rnn",
]

OPTIMIZED_LSTM = Packing("flax.nnx.OptimizedLSTMCell", "ifgo")
GRU = Packing("flax.nnx.GRUCell", "rzn", reset="after")
RNN = Packing("flax.nnx.SimpleCell", "n")


def read_lstm(weights: Nested) -> LSTMParams:
    """Of an ``LSTMCell``, which is linen's but for the name ``if_``."""
    return linen.read_lstm({"if" if name == "if_" else name: kernel for name, kernel in weights.items()})


def write_lstm(params: LSTMParams) -> Nested:
    """For an ``LSTMCell``."""
    return {"if_" if name == "if" else name: kernel for name, kernel in linen.write_lstm(params).items()}


def read_optimized_lstm(weights: Nested) -> LSTMParams:
    """Of an ``OptimizedLSTMCell``."""
    return gates.read_lstm(OPTIMIZED_LSTM, *_packed(OPTIMIZED_LSTM, weights, biased="dense_h"))


def write_optimized_lstm(params: LSTMParams) -> Nested:
    """For an ``OptimizedLSTMCell``."""
    return _nested(gates.write_lstm(OPTIMIZED_LSTM, params), biased="dense_h")


def read_gru(weights: Nested, *, reset: Reset) -> GRUParams:
    """Of a ``GRUCell``, which has no bias inside ``r⊙(·)``; ``reset`` must be "after"."""
    return gates.read_gru(GRU, *_packed(GRU, weights, biased="dense_i"), reset=reset)


def write_gru(params: GRUParams, *, reset: Reset) -> Nested:
    """For a ``GRUCell``; ``reset`` must be "after".

    Raises:
      InputError: ``candidate_bias`` is not zero, and the cell has no place for it.
    """
    if np.any(params.candidate_bias):
        raise InputError(
            f"params: candidate_bias reaches {float(np.max(np.abs(params.candidate_bias))):.3g}, and {GRU.source} has "
            "no bias inside r⊙(·): its values cannot be written exactly. flax.linen.GRUCell has one (linen.write_gru)."
        )
    return _nested(gates.write_gru(GRU, params, reset=reset), biased="dense_i")


def read_rnn(weights: Nested) -> RNNParams:
    """Of a ``SimpleCell`` that is not ``residual``."""
    return gates.read_rnn(RNN, *_packed(RNN, weights, biased="dense_i"))


def write_rnn(params: RNNParams) -> Nested:
    """For a ``SimpleCell``."""
    return _nested(gates.write_rnn(RNN, params), biased="dense_i")


def _packed(packing: Packing, weights: Nested, biased: str) -> tuple[Array, Array, Array]:
    flat = flatten_dict(weights, sep="/")
    flat = take(packing.source, flat, ["dense_i/kernel", "dense_h/kernel", f"{biased}/bias"])
    return flat["dense_i/kernel"], flat["dense_h/kernel"], flat[f"{biased}/bias"]


def _nested(packed: Packed, biased: str) -> Nested:
    weights = {"dense_i": {"kernel": packed.input}, "dense_h": {"kernel": packed.recurrent}}
    weights[biased]["bias"] = packed.bias
    return weights
