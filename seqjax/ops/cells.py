"""Recurrent cells. The equations of a cell are written once; its kernels decide whether it is dense or convolutional.

A kernel ``[C, 4D]`` makes ``lstm`` the fully connected LSTM on ``[*B, C]``; a kernel ``[3, 3, C, 4D]`` makes it the
ConvLSTM on ``[*B, H, W, C]``. Run a cell over time with ``seqjax.ops.scan.unroll``.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.scan import Affine, Cell


class LSTMParams(NamedTuple):
    """Parameters of ``lstm``; gate blocks in the order i, f, g, o along the last axis."""

    input: Float[Array, "... C 4D"] | None
    """``W_x [*K, C, 4D]``; None for a cell without input."""
    recurrent: Float[Array, "... D 4D"]
    """``W_h [*K, D, 4D]``."""
    bias: Float[Array, " 4D"]
    """``b [4D]``."""
    peephole: Float[Array, "3 ... D"] | None
    """``p_i, p_f, p_o``: ``[3, D]`` (one weight per channel), ``[3, *space, D]`` (one per position), or None."""


class LSTMCarry(NamedTuple):
    """State of ``lstm``."""

    h: Float[Array, "... D"]
    """Output of the last step."""
    c: Float[Array, "... D"]
    """Memory cell."""


def _lstm_init(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    *,
    kernel_size: tuple[int, ...] = (),
    input_kernel_size: tuple[int, ...] | None = None,
    peephole: Literal["none", "channel", "full"] = "none",
    space: tuple[int, ...] = (),
    forget_bias: float = 1.0,
) -> LSTMParams:
    """Parameters: LeCun-normal input, orthogonal recurrent kernels gate by gate, zero peepholes and bias.

    Args:
      key: consumed.
      in_features: ``C``, or None for a cell without input.
      features: ``D``.
      kernel_size: ``*K`` of the recurrent kernel; empty for a dense cell.
      input_kernel_size: ``*K`` of the input kernel; the recurrent one's unless given.
      peephole: none, one weight per channel, or one per position ("full", which needs ``space``).
      space: the state's spatial size; read by ``peephole="full"`` alone.
      forget_bias: initial value of the forget gate's bias (Gers et al., 2000).
    """
    if peephole == "full" and len(space) != len(kernel_size):
        raise InputError(
            f"lstm.init: peephole='full' holds one weight per position and needs space, a size for each of the "
            f"{len(kernel_size)} spatial dimensions of kernel_size {kernel_size}; space is {space}."
        )
    key_input, *key_gates = jax.random.split(key, 5)
    input_size = kernel_size if input_kernel_size is None else input_kernel_size
    orthogonal = initializers.orthogonal()
    recurrent = [orthogonal(k, (*kernel_size, features, features)) for k in key_gates]
    bias = jnp.zeros((4, features)).at[1].set(forget_bias)
    return LSTMParams(
        input=None
        if in_features is None
        else initializers.lecun_normal()(key_input, (*input_size, in_features, 4 * features)),
        recurrent=jnp.concatenate(recurrent, axis=-1),
        bias=bias.reshape(-1),
        peephole=None if peephole == "none" else jnp.zeros((3, *space, features)),
    )


def _lstm_carry(params: LSTMParams, shape: tuple[int, ...]) -> LSTMCarry:
    zeros = jnp.zeros((*shape, params.recurrent.shape[-2]), params.recurrent.dtype)
    return LSTMCarry(zeros, zeros)


def _lstm_project(params: LSTMParams, xs: Float[Array, "... C"] | None, affine: Affine) -> Array:
    if xs is not None and params.input is not None:
        return affine(params.bias, params.input, xs)
    if xs is None and params.input is None:
        return params.bias
    raise InputError(
        f"lstm: the cell has {'no input kernel' if params.input is None else 'an input kernel'}, and xs is "
        f"{'None' if xs is None else f'an array of shape {xs.shape}'}; give inputs to a cell built with in_features, "
        "and xs=None with steps to a cell built without."
    )


def _lstm_step(params: LSTMParams, carry: LSTMCarry, z_t: Array, affine: Affine) -> tuple[LSTMCarry, Array]:
    i, f, g, o = jnp.split(affine(z_t, params.recurrent, carry.h), 4, axis=-1)
    if params.peephole is None:
        c = jax.nn.sigmoid(f) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    else:
        p_i, p_f, p_o = (jnp.broadcast_to(p, i.shape) for p in params.peephole)
        c = jax.nn.sigmoid(f + p_f * carry.c) * carry.c + jax.nn.sigmoid(i + p_i * carry.c) * jnp.tanh(g)
        o = o + p_o * c
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return LSTMCarry(h, c), h


lstm = Cell(init=_lstm_init, carry=_lstm_carry, project=_lstm_project, step=_lstm_step)
"""Long short-term memory, dense or convolutional, with or without peepholes.

::

    i = σ(W_xi x + W_hi h + p_i⊙c + b_i)      f = σ(W_xf x + W_hf h + p_f⊙c + b_f)
    g = tanh(W_xg x + W_hg h + b_g)           c' = f⊙c + i⊙g
    o = σ(W_xo x + W_ho h + p_o⊙c' + b_o)     h' = o⊙tanh(c')

The products with ``W`` are matrix products, or convolutions where the kernels have spatial dimensions; ``p_o`` sees
the new cell. The output is ``h'``.

References: Hochreiter and Schmidhuber, *Long Short-Term Memory*, 1997; Graves, *Generating Sequences With Recurrent
Neural Networks*, 2013, Eq. 7-11 (peepholes); Shi et al., *Convolutional LSTM Network*, 2015, Eq. 3 (convolutions).
"""
