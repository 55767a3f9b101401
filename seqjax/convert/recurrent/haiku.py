"""Parameters of the cores of Haiku, as ``transform(...).init`` gives them: ``{"lstm/linear": {"w": ..., "b": ...}}``.

``name`` is the core's path: "lstm", then "lstm_1" for the second made without a name, "encoder/lstm" inside a module.
Modules of other names are left alone; layers and directions are cores of their own. Haiku's state of an LSTM is
``(hidden, cell)``, in the order of ours.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array

from seqjax.convert.recurrent import gates
from seqjax.convert.recurrent.gates import Packing, Reset
from seqjax.convert.weights import Weights, take
from seqjax.ops.cells import GRUParams, LSTMParams, RNNParams

LSTM = Packing("haiku.LSTM", "igfo", forget_bias=1.0)
CONV_LSTM = Packing("haiku.Conv1DLSTM, Conv2DLSTM or Conv3DLSTM", "igfo", spatial=True, forget_bias=1.0)
GRU = Packing("haiku.GRU", "zrn", reset="before", update="replaces")
RNN = Packing("haiku.VanillaRNN", "n")

Modules = Mapping[str, Weights]
Arrays = dict[str, dict[str, np.ndarray]]


def read_lstm(weights: Modules, name: str = "lstm") -> LSTMParams:
    """Of an ``LSTM``: one kernel for the input and the state, of which the latter are the last D rows."""
    flat = _take(LSTM, weights, name, ["linear/w", "linear/b"])
    features = flat["linear/w"].shape[-1] // 4
    return gates.read_lstm(LSTM, flat["linear/w"][:-features], flat["linear/w"][-features:], flat["linear/b"])


def write_lstm(params: LSTMParams, name: str = "lstm") -> Arrays:
    """For an ``LSTM``."""
    packed = gates.write_lstm(LSTM, params)
    return {f"{name}/linear": {"w": np.concatenate([packed.input, packed.recurrent]), "b": packed.bias}}


def read_conv_lstm(weights: Modules, name: str) -> LSTMParams:
    """Of a ``Conv1DLSTM``, ``Conv2DLSTM`` or ``Conv3DLSTM``."""
    return gates.read_lstm(CONV_LSTM, *_two_maps(CONV_LSTM, weights, name, "input_to_hidden", "hidden_to_hidden"))


def write_conv_lstm(params: LSTMParams, name: str) -> Arrays:
    """For a ``Conv1DLSTM``, ``Conv2DLSTM`` or ``Conv3DLSTM``; the bias is the input's, the other is zero."""
    packed = gates.write_lstm(CONV_LSTM, params)
    return {
        f"{name}/input_to_hidden": {"w": packed.input, "b": packed.bias},
        f"{name}/hidden_to_hidden": {"w": packed.recurrent, "b": packed.recurrent_bias},
    }


def read_gru(weights: Modules, name: str = "gru", *, reset: Reset) -> GRUParams:
    """Of a ``GRU``; ``reset`` must be "before"."""
    flat = _take(GRU, weights, name, ["w_i", "w_h", "b"])
    return gates.read_gru(GRU, flat["w_i"], flat["w_h"], flat["b"], reset=reset)


def write_gru(params: GRUParams, name: str = "gru", *, reset: Reset) -> Arrays:
    """For a ``GRU``, its one bias holding ``candidate_bias`` too; ``reset`` must be "before"."""
    packed = gates.write_gru(GRU, params, reset=reset)
    return {name: {"w_i": packed.input, "w_h": packed.recurrent, "b": packed.bias}}


def read_rnn(weights: Modules, name: str = "vanilla_rnn") -> RNNParams:
    """Of a ``VanillaRNN``, which is run by ``rnn_relu``."""
    return gates.read_rnn(RNN, *_two_maps(RNN, weights, name, "linear", "linear_1"))


def write_rnn(params: RNNParams, name: str = "vanilla_rnn") -> Arrays:
    """For a ``VanillaRNN``, from the parameters of ``rnn_relu``; the bias is the input's, the other is zero."""
    packed = gates.write_rnn(RNN, params)
    return {
        f"{name}/linear": {"w": packed.input, "b": packed.bias},
        f"{name}/linear_1": {"w": packed.recurrent, "b": packed.recurrent_bias},
    }


def _two_maps(packing: Packing, weights: Modules, name: str, of_input: str, of_state: str) -> tuple:
    names = [f"{module}/{kind}" for kind in "wb" for module in (of_input, of_state)]
    flat = _take(packing, weights, name, names[:3], names[3:])
    return tuple(flat.get(name) for name in names)


def _take(
    packing: Packing, weights: Modules, name: str, names: list[str], optional: list[str] | None = None
) -> dict[str, Array]:
    flat = {f"{module}/{kind}": array for module, arrays in weights.items() for kind, array in arrays.items()}
    own = {path.removeprefix(f"{name}/"): array for path, array in flat.items() if path.startswith(f"{name}/")}
    return take(f"{packing.source} ({name!r})", own, names, optional or [])
