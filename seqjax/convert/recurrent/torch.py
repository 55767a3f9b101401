"""Parameters of ``torch.nn.LSTM``, ``GRU`` and ``RNN``, all layers and directions, as their ``state_dict`` has them.

``weight_ih_l{k}`` is ``[G, C]`` and ``weight_hh_l{k}`` is ``[G, D]``, transposed to ours; each has a bias
(``bias_ih_l{k}``, ``bias_hh_l{k}``) unless built with ``bias=False``, and a backward direction has the suffix
``_reverse``. A bidirectional layer reads the outputs of both directions below, forward first. The state ``h_n`` is
``[layers · directions, B, D]``, directions fastest. An LSTM built with ``proj_size`` is refused.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from seqjax.convert.recurrent import gates
from seqjax.convert.recurrent.gates import P, Packed, Packing, Reset
from seqjax.convert.weights import Weights, take
from seqjax.ops.cells import GRUParams, LSTMParams, RNNParams

LSTM = Packing("torch.nn.LSTM", "ifgo")
GRU = Packing("torch.nn.GRU", "rzn", reset="after")
RNN = Packing("torch.nn.RNN", "n")

Layers = tuple[P | tuple[P, P], ...]
"""One entry per layer: its parameters, or the pair ``(forward, backward)``."""


def read_lstm(weights: Weights, prefix: str = "") -> Layers[LSTMParams]:
    """Layers of an LSTM from a ``state_dict``; of a larger module's, only names that start with ``prefix`` are read."""
    return _read(LSTM, gates.read_lstm, weights, prefix)


def write_lstm(layers: Layers[LSTMParams], prefix: str = "") -> dict[str, np.ndarray]:
    """The ``state_dict`` of an LSTM; ``bias_hh`` is zero."""
    return _write(LSTMParams, partial(gates.write_lstm, LSTM), layers, prefix)


def read_gru(weights: Weights, prefix: str = "", *, reset: Reset) -> Layers[GRUParams]:
    """Layers of a GRU from a ``state_dict``, as ``read_lstm``; ``reset`` must be "after"."""
    return _read(GRU, partial(gates.read_gru, reset=reset), weights, prefix)


def write_gru(layers: Layers[GRUParams], prefix: str = "", *, reset: Reset) -> dict[str, np.ndarray]:
    """The ``state_dict`` of a GRU; ``bias_hh`` is zero but for the candidate's. ``reset`` must be "after"."""
    return _write(GRUParams, partial(gates.write_gru, GRU, reset=reset), layers, prefix)


def read_rnn(weights: Weights, prefix: str = "") -> Layers[RNNParams]:
    """Layers of an RNN from a ``state_dict``, as ``read_lstm``; ``nonlinearity="relu"`` is run by ``rnn_relu``."""
    return _read(RNN, gates.read_rnn, weights, prefix)


def write_rnn(layers: Layers[RNNParams], prefix: str = "") -> dict[str, np.ndarray]:
    """The ``state_dict`` of an RNN; ``bias_hh`` is zero."""
    return _write(RNNParams, partial(gates.write_rnn, RNN), layers, prefix)


def _names(layer: int, direction: int) -> list[str]:
    suffix = f"_l{layer}" + "_reverse" * direction
    return [name + suffix for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def _read(packing: Packing, read: Callable[..., P], weights: Weights, prefix: str) -> Layers[P]:
    weights = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
    depth = max(1, sum(_names(k, 0)[0] in weights for k in range(len(weights))))
    names = [[_names(k, d) for d in range(1 + (_names(0, 1)[0] in weights))] for k in range(depth)]
    biased = any(name.startswith("bias") for name in weights)
    every = {name for layer in names for direction in layer for name in direction[: 4 if biased else 2]}
    arrays = take(packing.source, weights, every)

    def one(w_ih: str, w_hh: str, b_ih: str, b_hh: str) -> P:
        return read(packing, arrays[w_ih].T, arrays[w_hh].T, arrays.get(b_ih), arrays.get(b_hh))

    layers = [[one(*direction) for direction in layer] for layer in names]
    return tuple((layer[0], layer[1]) if len(layer) == 2 else layer[0] for layer in layers)


def _write(kind: type[P], write: Callable[[P], Packed], layers: Layers[P], prefix: str) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for k, layer in enumerate(layers):
        for d, params in enumerate(gates.directions(kind, layer)):
            packed = write(params)
            arrays = (packed.input.T.copy(), packed.recurrent.T.copy(), packed.bias, packed.recurrent_bias)
            weights.update(zip((prefix + name for name in _names(k, d)), arrays, strict=True))
    return weights
