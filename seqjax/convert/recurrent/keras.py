"""Parameters of Keras 3 layers, as ``layer.get_weights()`` lists them: kernel, recurrent kernel and, if any, bias.

A list of twice as many arrays is a ``Bidirectional`` layer's, forward first, and is read as the pair
``(forward, backward)``. Not part of the weights, and meant as by default: ``activation="tanh"`` and
``recurrent_activation="sigmoid"`` (the default of Keras 2 was "hard_sigmoid"). At masked steps Keras repeats the last
output, where ``ops.scan.unroll`` gives zero; the states agree.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seqjax.convert.recurrent import gates
from seqjax.convert.recurrent.gates import P, Packed, Packing, Reset
from seqjax.errors import InputError
from seqjax.ops.cells import GRUParams, LSTMParams, RNNParams

LSTM = Packing("keras.layers.LSTM or ConvLSTM", "ifgo", spatial=True)
GRU: dict[Reset, Packing] = {
    "after": Packing("keras.layers.GRU(reset_after=True)", "zrn", reset="after"),
    "before": Packing("keras.layers.GRU(reset_after=False)", "zrn", reset="before"),
}
RNN = Packing("keras.layers.SimpleRNN", "n")

Arrays = Sequence[Array | np.ndarray]


def read_lstm(weights: Arrays) -> LSTMParams | tuple[LSTMParams, LSTMParams]:
    """Of an ``LSTM``, or of a ``ConvLSTM`` with stride 1 and ``padding="same"`` (its default is "valid")."""
    return _read(LSTM, partial(gates.read_lstm, LSTM), weights)


def write_lstm(params: LSTMParams | tuple[LSTMParams, LSTMParams]) -> list[np.ndarray]:
    """For an ``LSTM`` or ``ConvLSTM``; the forget gate's bias is the parameter, whatever ``unit_forget_bias`` says."""
    return _write(LSTMParams, lambda p: _one_bias(gates.write_lstm(LSTM, p)), params)


def read_gru(weights: Arrays, *, reset: Reset) -> GRUParams | tuple[GRUParams, GRUParams]:
    """Of a ``GRU``.

    Args:
      weights: its arrays; the bias is ``[2, 3D]`` with ``reset_after=True``, ``[3D]`` with ``reset_after=False``.
      reset: "after" for the former, "before" for the latter.

    Raises:
      InputError: the shape of the bias says otherwise than ``reset``.
    """

    def read(kernel: Array, recurrent: Array, bias: Array | None = None) -> GRUParams:
        if bias is None:
            return gates.read_gru(GRU[reset], kernel, recurrent, reset=reset)
        if bias.ndim == 2:
            return gates.read_gru(GRU["after"], kernel, recurrent, *bias, reset=reset)
        return gates.read_gru(GRU["before"], kernel, recurrent, bias, reset=reset)

    return _read(GRU[reset], read, weights)


def write_gru(params: GRUParams | tuple[GRUParams, GRUParams], *, reset: Reset) -> list[np.ndarray]:
    """For a ``GRU``: with ``reset_after=True`` when ``reset`` is "after", the recurrent bias zero but for the
    candidate's; with ``reset_after=False`` when it is "before", ``candidate_bias`` added to the one bias."""

    def write(params: GRUParams) -> list[np.ndarray]:
        packed = gates.write_gru(GRU[reset], params, reset=reset)
        if reset == "before":
            return _one_bias(packed)
        return [packed.input, packed.recurrent, np.stack([packed.bias, packed.recurrent_bias])]

    return _write(GRUParams, write, params)


def read_rnn(weights: Arrays) -> RNNParams | tuple[RNNParams, RNNParams]:
    """Of a ``SimpleRNN``."""
    return _read(RNN, partial(gates.read_rnn, RNN), weights)


def write_rnn(params: RNNParams | tuple[RNNParams, RNNParams]) -> list[np.ndarray]:
    """For a ``SimpleRNN``."""
    return _write(RNNParams, lambda p: _one_bias(gates.write_rnn(RNN, p)), params)


def _one_bias(packed: Packed) -> list[np.ndarray]:
    return [packed.input, packed.recurrent, packed.bias]


def _read(packing: Packing, read: Callable[..., P], weights: Arrays) -> P | tuple[P, P]:
    if len(weights) not in (2, 3, 4, 6):
        raise InputError(
            f"weights: {len(weights)} arrays; {packing.source} has a kernel, a recurrent kernel and, unless built "
            "with use_bias=False, a bias, and Bidirectional has twice that. Give layer.get_weights() of one layer."
        )
    arrays = [jnp.asarray(array) for array in weights]
    if len(arrays) <= 3:
        return read(*arrays)
    half = len(arrays) // 2
    return read(*arrays[:half]), read(*arrays[half:])


def _write(kind: type[P], write: Callable[[P], list[np.ndarray]], layer: P | tuple[P, P]) -> list[np.ndarray]:
    return [array for params in gates.directions(kind, layer) for array in write(params)]
