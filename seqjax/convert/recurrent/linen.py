"""Parameters of the cells of ``flax.linen``: the dictionary that a cell has under ``params``.

``nn.RNN(cell)`` keeps it under ``cell``, ``nn.Bidirectional`` under ``forward_rnn/cell`` and ``backward_rnn/cell``.
Gates that linen keeps apart (``ii``, ``if``, ``hr``, ...) are joined to our blocks. Cells run with linen's LSTM carry
need ``read_carry``: it is ``(c, h)`` there.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from seqjax.convert.recurrent import gates
from seqjax.convert.recurrent.gates import Packed, Packing, Reset
from seqjax.convert.weights import take
from seqjax.ops.cells import GRUParams, LSTMCarry, LSTMParams, RNNParams

LSTM = Packing("flax.linen.LSTMCell", "ifgo")
CONV_LSTM = Packing("flax.linen.ConvLSTMCell", "igfo", spatial=True, forget_bias=1.0)
GRU = Packing("flax.linen.GRUCell", "rzn", reset="after")
RNN = Packing("flax.linen.SimpleCell", "n")

Nested = dict[str, Any]
"""``{"ii": {"kernel": array}, ...}``."""


def read_lstm(weights: Nested) -> LSTMParams:
    """Of an ``LSTMCell`` or ``OptimizedLSTMCell``, which have the same parameters."""
    return gates.read_lstm(LSTM, *_joined(LSTM, weights, biased=[f"h{gate}" for gate in LSTM.order]))


def write_lstm(params: LSTMParams) -> Nested:
    """For an ``LSTMCell`` or ``OptimizedLSTMCell``: the biases are the recurrent side's."""
    packed = gates.write_lstm(LSTM, params)
    return _apart(packed._replace(recurrent_bias=packed.bias), LSTM.order, biased="h")


def read_conv_lstm(weights: Nested) -> LSTMParams:
    """Of a ``ConvLSTMCell`` with stride 1 and padding "SAME", whose 1 in the forget gate goes into our bias."""
    names = [f"{side}/{kind}" for kind in ("kernel", "bias") for side in ("ih", "hh")]
    flat = take(CONV_LSTM.source, flatten_dict(weights, sep="/"), names[:2], names[2:])
    return gates.read_lstm(CONV_LSTM, *(flat.get(name) for name in names))


def write_conv_lstm(params: LSTMParams) -> Nested:
    """For a ``ConvLSTMCell``: the bias is the input's, that of ``hh`` is zero."""
    packed = gates.write_lstm(CONV_LSTM, params)
    return {
        "ih": {"kernel": packed.input, "bias": packed.bias},
        "hh": {"kernel": packed.recurrent, "bias": packed.recurrent_bias},
    }


def read_gru(weights: Nested, *, reset: Reset) -> GRUParams:
    """Of a ``GRUCell``; ``reset`` must be "after"."""
    return gates.read_gru(GRU, *_joined(GRU, weights, biased=["ir", "iz", "in", "hn"]), reset=reset)


def write_gru(params: GRUParams, *, reset: Reset) -> Nested:
    """For a ``GRUCell``; ``reset`` must be "after"."""
    packed = gates.write_gru(GRU, params, reset=reset)
    weights = _apart(packed, GRU.order, biased="i")
    weights["hn"]["bias"] = np.split(packed.recurrent_bias, 3)[2]
    return weights


def read_rnn(weights: Nested) -> RNNParams:
    """Of a ``SimpleCell`` that is not ``residual``."""
    flat = take(RNN.source, flatten_dict(weights, sep="/"), ["i/kernel", "i/bias", "h/kernel"])
    return gates.read_rnn(RNN, flat["i/kernel"], flat["h/kernel"], flat["i/bias"])


def write_rnn(params: RNNParams) -> Nested:
    """For a ``SimpleCell``."""
    packed = gates.write_rnn(RNN, params)
    return {"i": {"kernel": packed.input, "bias": packed.bias}, "h": {"kernel": packed.recurrent}}


def read_carry(carry: tuple[Array, Array]) -> LSTMCarry:
    """The carry ``(c, h)`` of Flax's LSTM and ConvLSTM cells."""
    c, h = carry
    return LSTMCarry(h=h, c=c)


def write_carry(carry: LSTMCarry) -> tuple[Array, Array]:
    """The carry ``(c, h)`` for Flax's LSTM and ConvLSTM cells."""
    return carry.c, carry.h


def _joined(packing: Packing, weights: Nested, biased: list[str]) -> tuple[Array, ...]:
    kernels = [f"{side}{gate}/kernel" for side in "ih" for gate in packing.order]
    flat = take(packing.source, flatten_dict(weights, sep="/"), [*kernels, *(f"{name}/bias" for name in biased)])
    features = flat[kernels[-1]].shape[-1]
    zeros = jnp.zeros(features, flat[kernels[-1]].dtype)

    def joined(side: str, kind: str) -> Array:
        return jnp.concatenate([flat.get(f"{side}{gate}/{kind}", zeros) for gate in packing.order], axis=-1)

    return joined("i", "kernel"), joined("h", "kernel"), joined("i", "bias"), joined("h", "bias")


def _apart(packed: Packed, order: str, biased: str) -> Nested:
    weights: Nested = {}
    sides = {"i": (packed.input, packed.bias), "h": (packed.recurrent, packed.recurrent_bias)}
    for side, (kernel, bias) in sides.items():
        blocks = zip(order, np.split(kernel, len(order), axis=-1), np.split(bias, len(order)), strict=True)
        for gate, kernel_block, bias_block in blocks:
            weights[side + gate] = {"kernel": kernel_block} | ({"bias": bias_block} if side == biased else {})
    return weights
