"""Gate blocks between the sources' packing and ours: order, signs, constants, and sums of biases."""

from typing import Any, Literal, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from seqjax.errors import InputError
from seqjax.ops.cells import GRUParams, LSTMParams, RNNParams

Reset = Literal["after", "before"]
"""The cell that runs a GRU's parameters: "after" is ``ops.cells.gru``, "before" is ``ops.cells.gru_reset_before``."""

OURS = {4: "ifgo", 3: "rzn", 1: "n"}
"""Our order, by the number of gates."""


class Packing(NamedTuple):
    """How a source packs a cell's gates along the last axis of its kernels and biases."""

    source: str
    """The cell's name there, for messages."""
    order: str
    """Its gates in our letters: i, f, g, o (LSTM), r, z, n (GRU), n (RNN)."""
    spatial: bool = False
    """Whether its kernels may have spatial dimensions."""
    forget_bias: float = 0.0
    """A constant that the source adds inside its forget gate."""
    reset: Reset = "after"
    """Where a GRU resets."""
    update: Literal["keeps", "replaces"] = "keeps"
    """What a GRU's open update gate does with the old state; ours keeps it."""


P = TypeVar("P", LSTMParams, GRUParams, RNNParams)


class Packed(NamedTuple):
    """A cell's arrays in a source's packing, G the width of all gates together."""

    input: np.ndarray
    """``[*K, C, G]``."""
    recurrent: np.ndarray
    """``[*K, D, G]``."""
    bias: np.ndarray
    """``[G]``, added on the input's side."""
    recurrent_bias: np.ndarray
    """``[G]``, added on the recurrent side."""


def read_lstm(packing: Packing, *arrays: Array | None) -> LSTMParams:
    """LSTM parameters from the fields of ``Packed``, biases may be None: ``b = b_ih + b_hh``, and the constant in f."""
    x, h, bias, recurrent_bias = _in_our_order(packing, *arrays)
    i, f, g, o = jnp.split(bias + recurrent_bias, 4)
    return LSTMParams(x, h, jnp.concatenate([i, f + packing.forget_bias, g, o]), None)


def write_lstm(packing: Packing, params: LSTMParams) -> Packed:
    """The source's arrays; all of the bias goes to the input's side.

    Raises:
      InputError: the source has no place for what the parameters hold, such as peepholes.
    """
    if params.peephole is not None:
        raise InputError(f"params: the LSTM has peepholes, and {packing.source} has none; they cannot be written.")
    i, f, g, o = jnp.split(params.bias, 4)
    bias = jnp.concatenate([i, f - packing.forget_bias, g, o])
    return _in_their_order(packing, params, bias, jnp.zeros_like(bias))


def read_gru(packing: Packing, *arrays: Array | None, reset: Reset) -> GRUParams:
    """GRU parameters from the fields of ``Packed``, biases may be None: those of r and z are summed, n keeps two."""
    _refuse_other_reset(packing, reset)
    x, h, bias, recurrent_bias = _in_our_order(packing, *arrays)
    r_z, n = _before_candidate(bias)
    recurrent_r_z, candidate = _before_candidate(recurrent_bias)
    params = GRUParams(x, h, jnp.concatenate([r_z + recurrent_r_z, n]), candidate)
    return params if packing.update == "keeps" else swap_update(params)


def write_gru(packing: Packing, params: GRUParams, *, reset: Reset) -> Packed:
    """The source's arrays; the recurrent side's bias is zero but for n, and all zero when reset before the product.

    Raises:
      InputError: the source resets elsewhere, or has no place for what the parameters hold.
    """
    _refuse_other_reset(packing, reset)
    if packing.update == "replaces":
        params = swap_update(params)
    r_z, n = _before_candidate(params.bias)
    candidate = params.candidate_bias
    if packing.reset == "before":
        n, candidate = n + candidate, jnp.zeros_like(candidate)
    bias, recurrent_bias = jnp.concatenate([r_z, n]), jnp.concatenate([jnp.zeros_like(r_z), candidate])
    return _in_their_order(packing, params, bias, recurrent_bias)


def read_rnn(packing: Packing, *arrays: Array | None) -> RNNParams:
    """RNN parameters from the fields of ``Packed``, biases may be None and are summed."""
    x, h, bias, recurrent_bias = _in_our_order(packing, *arrays)
    return RNNParams(x, h, bias + recurrent_bias)


def write_rnn(packing: Packing, params: RNNParams) -> Packed:
    """The source's arrays; all of the bias goes to the input's side."""
    return _in_their_order(packing, params, params.bias, jnp.zeros_like(params.bias))


def swap_update(params: GRUParams) -> GRUParams:
    """Between ``h' = (1-z)⊙n + z⊙h`` (ours, Cho et al., 2014) and ``h' = (1-z)⊙h + z⊙n`` (Chung et al., 2014).

    ``σ(-a) = 1 - σ(a)``, so the z block of both kernels and of the bias changes its sign. Its own inverse, and exact.
    """

    def negated(array: Array) -> Array:
        r, z, n = jnp.split(array, 3, axis=-1)
        return jnp.concatenate([r, -z, n], axis=-1)

    x = None if params.input is None else negated(params.input)
    return params._replace(input=x, recurrent=negated(params.recurrent), bias=negated(params.bias))


def directions(kind: type[P], layer: Any) -> tuple[P, ...]:
    """The parameters of a layer's directions: one, or forward and backward."""
    found = (layer,) if isinstance(layer, kind) else layer
    if not (isinstance(found, tuple) and all(isinstance(params, kind) for params in found) and len(found) in (1, 2)):
        raise InputError(
            f"layer: expected {kind.__name__}, or the pair (forward, backward) of them; got {type(layer).__name__}. "
            "A function that writes all layers at once takes a tuple, even of one layer."
        )
    return found


def _before_candidate(array: Array) -> tuple[Array, Array]:
    cut = array.shape[-1] // 3 * 2
    return array[..., :cut], array[..., cut:]


def _reordered(array: Array, given: str, wanted: str) -> Array:
    blocks = dict(zip(given, jnp.split(array, len(given), axis=-1), strict=True))
    return jnp.concatenate([blocks[gate] for gate in wanted], axis=-1)


def _in_our_order(packing: Packing, *arrays: Any) -> tuple[Array, ...]:
    x, h, *biases = (*arrays, None, None)[:4]
    zeros = jnp.zeros(h.shape[-1], h.dtype)
    arrays = (x, h, *(zeros if bias is None else bias for bias in biases))
    _refuse_shapes(packing, arrays)
    return tuple(_reordered(array, packing.order, OURS[len(packing.order)]) for array in arrays)


def _in_their_order(
    packing: Packing, params: LSTMParams | GRUParams | RNNParams, bias: Array, recurrent_bias: Array
) -> Packed:
    if params.norm is not None or params.input is None:
        what = "no input kernel" if params.input is None else "layer normalisation"
        raise InputError(f"params: the cell has {what}, and {packing.source} differs; it cannot be written.")
    arrays = (params.input, params.recurrent, bias, recurrent_bias)
    _refuse_shapes(packing, arrays)
    # Copied, because a view of a jax array is read-only, which a library that takes it over may not expect.
    return Packed(*(np.array(_reordered(array, OURS[len(packing.order)], packing.order)) for array in arrays))


def _refuse_shapes(packing: Packing, arrays: tuple[Array, ...]) -> None:
    gates, shapes = len(packing.order), [array.shape for array in arrays]
    rank = len(shapes[1])
    right = [len(shape) for shape in shapes] == [rank, rank, 1, 1] and (rank == 2 or (packing.spatial and rank > 2))
    if not (right and {shape[-1] for shape in shapes} == {gates * shapes[1][-2]}):
        space = "*K, " if packing.spatial else ""
        raise InputError(
            f"weights: the shapes of input kernel, recurrent kernel and their biases, inputs first, are "
            f"{', '.join(map(str, shapes))}; {packing.source} has [{space}C, {gates}D], [{space}D, {gates}D], "
            f"[{gates}D] and [{gates}D]. Are they another cell's?"
        )


def _refuse_other_reset(packing: Packing, reset: Reset) -> None:
    if packing.reset != reset:
        raise InputError(
            f"reset: {reset!r}, and {packing.source} resets {packing.reset} the recurrent product. "
            "tanh(x + r⊙(U h + b)) and tanh(x + U (r⊙h) + b) are different functions: no weights of one give the "
            "other. Run the parameters with ops.cells.gru ('after') or ops.cells.gru_reset_before ('before'), as "
            "they were trained, or train again."
        )
