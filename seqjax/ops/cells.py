"""Recurrent cells. The equations of a cell are written once; its kernels decide whether it is dense or convolutional.

A kernel ``[C, 4D]`` makes ``lstm`` the fully connected LSTM on ``[*B, C]``; a kernel ``[3, 3, C, 4D]`` makes it the
ConvLSTM on ``[*B, H, W, C]``; so it is with every cell here. Parameters whose ``norm`` is not None make it the
layer-normalised cell of Ba, Kiros and Hinton, *Layer Normalization*, 2016. Run a cell over time with
``seqjax.ops.scan.unroll``.

Every ``init`` takes ``(key, in_features, features, *, kernel_size, input_kernel_size, layer_norm)`` and draws
LeCun-normal input kernels and, gate by gate, orthogonal recurrent ones:

- key: consumed.
- in_features: ``C``, or None for a cell without input.
- features: ``D``.
- kernel_size: ``*K`` of the recurrent kernel; empty for a dense cell.
- input_kernel_size: ``*K`` of the input kernel; the recurrent one's unless given.
- layer_norm: whether the products are normalised, with scales that start at 1.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.norm import layer_norm as normalise
from seqjax.ops.recurrence import Affine, Cell


class Norm(NamedTuple):
    """Scales of a layer-normalised RNN or GRU; the biases are the cell's own."""

    input: Float[Array, " G"] | None
    """For ``W_x x``, as wide as the cell's gates together; None for a cell without input."""
    recurrent: Float[Array, " G"]
    """For ``W_h h``, as wide."""


class RNNParams(NamedTuple):
    """Parameters of ``rnn`` and ``rnn_relu``."""

    input: Float[Array, "... C D"] | None
    """``W_x [*K, C, D]``; None for a cell without input."""
    recurrent: Float[Array, "... D D"]
    """``W_h [*K, D, D]``."""
    bias: Float[Array, " D"]
    """``b [D]``."""
    norm: Norm | None = None
    """Scales, each ``[D]``."""


class LSTMNorm(NamedTuple):
    """Scales of a layer-normalised LSTM, and the bias of its normalised memory."""

    input: Float[Array, " 4D"] | None
    """``α_2 [4D]``, for ``W_x x``; None for a cell without input."""
    recurrent: Float[Array, " 4D"]
    """``α_1 [4D]``, for ``W_h h``."""
    cell: Float[Array, " D"]
    """``α_3 [D]``, for ``c'`` on its way to the output."""
    cell_bias: Float[Array, " D"]
    """``β_3 [D]``."""


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
    norm: LSTMNorm | None = None
    """Scales."""


class LSTMCarry(NamedTuple):
    """State of ``lstm``."""

    h: Float[Array, "... D"]
    """Output of the last step."""
    c: Float[Array, "... D"]
    """Memory cell."""


class GRUParams(NamedTuple):
    """Parameters of ``gru`` and ``gru_reset_before``; gate blocks in the order r, z, n along the last axis."""

    input: Float[Array, "... C 3D"] | None
    """``W [*K, C, 3D]``; None for a cell without input."""
    recurrent: Float[Array, "... D 3D"]
    """``U [*K, D, 3D]``."""
    bias: Float[Array, " 3D"]
    """``b [3D]``."""
    candidate_bias: Float[Array, " D"]
    """``b_hn [D]``, added to the candidate's recurrent product."""
    norm: Norm | None = None
    """Scales, each ``[3D]``: r and z are normalised together, n on its own."""


class GRURCNParams(NamedTuple):
    """Parameters of ``gru_rcn``."""

    gru: GRUParams
    """Of the cell itself."""
    below: Float[Array, "... E 2D"]
    """``W_l [*K, E, 2D]``: from the layer below to r and z."""


def _kernels(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    gates: int,
    kernel_size: tuple[int, ...],
    input_kernel_size: tuple[int, ...] | None,
) -> tuple[Array | None, Array]:
    key_input, *key_gates = jax.random.split(key, gates + 1)
    input_size = kernel_size if input_kernel_size is None else input_kernel_size
    orthogonal, normal = initializers.orthogonal(), initializers.lecun_normal()
    recurrent = [orthogonal(k, (*kernel_size, features, features)) for k in key_gates]
    if in_features is None:
        return None, jnp.concatenate(recurrent, axis=-1)
    return normal(key_input, (*input_size, in_features, gates * features)), jnp.concatenate(recurrent, axis=-1)


def _scales(layer_norm: bool, in_features: int | None, width: int) -> Norm | None:
    if not layer_norm:
        return None
    return Norm(None if in_features is None else jnp.ones(width), jnp.ones(width))


def _zeros(params: RNNParams | GRUParams | LSTMParams, shape: tuple[int, ...]) -> Array:
    return jnp.zeros((*shape, params.recurrent.shape[-2]), params.recurrent.dtype)


def _project(params: RNNParams | GRUParams | LSTMParams, xs: Float[Array, "... C"] | None, affine: Affine) -> Array:
    """``b + W_x x``, the product normalised block by block where there are scales."""
    if xs is None and params.input is None:
        return params.bias
    if xs is None or params.input is None:
        raise InputError(
            f"project: the cell has {'no input kernel' if params.input is None else 'an input kernel'}, and xs is "
            f"{'None' if xs is None else f'an array of shape {xs.shape}'}; give inputs to a cell built with "
            "in_features, and xs=None with steps to a cell built without."
        )
    if params.norm is None or params.norm.input is None:
        return affine(params.bias, params.input, xs)
    product = _normalised(params, params.norm.input, _product(affine, params.input, xs))
    return jnp.broadcast_to(params.bias, product.shape) + product


def _product(affine: Affine, kernel: Array, inputs: Array) -> Array:
    return affine(jnp.zeros((), inputs.dtype), kernel, inputs)


def _normalised(params: RNNParams | GRUParams | LSTMParams, scale: Array, product: Array) -> Array:
    """All gates together, but the GRU's candidate on its own."""
    if not isinstance(params, GRUParams):
        return normalise(product, scale)
    cut = 2 * params.candidate_bias.size
    gates, candidate = product[..., :cut], product[..., cut:]
    return jnp.concatenate([normalise(gates, scale[:cut]), normalise(candidate, scale[cut:])], axis=-1)


def _rnn_init(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    *,
    kernel_size: tuple[int, ...] = (),
    input_kernel_size: tuple[int, ...] | None = None,
    layer_norm: bool = False,
) -> RNNParams:
    kernels = _kernels(key, in_features, features, 1, kernel_size, input_kernel_size)
    return RNNParams(*kernels, jnp.zeros(features), _scales(layer_norm, in_features, features))


def _rnn(activation: Callable[[Array], Array]) -> Cell:
    def step(params: RNNParams, h: Array, z_t: Array, affine: Affine) -> tuple[Array, Array]:
        if params.norm is None:
            h = activation(affine(z_t, params.recurrent, h))
        else:
            product = _normalised(params, params.norm.recurrent, _product(affine, params.recurrent, h))
            h = activation(jnp.broadcast_to(z_t, product.shape) + product)
        return h, h

    return Cell(init=_rnn_init, carry=_zeros, project=_project, step=step)


rnn = _rnn(jnp.tanh)
"""Elman's recurrent network: ``h' = tanh(W_x x + W_h h + b)``; the output is ``h'``.

With scales: ``h' = tanh(LN(W_x x; α_2) + LN(W_h h; α_1) + b)``.

Source: Elman, *Finding Structure in Time*, 1990.
"""

rnn_relu = _rnn(jax.nn.relu)
"""``h' = max(0, W_x x + W_h h + b)``; otherwise as ``rnn``.

Source: Le, Jaitly and Hinton, *A Simple Way to Initialize Recurrent Networks of Rectified Linear Units*, 2015, who
start ``W_h`` at the identity; the kernels here start as every cell's do.
"""


def _lstm_init(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    *,
    kernel_size: tuple[int, ...] = (),
    input_kernel_size: tuple[int, ...] | None = None,
    layer_norm: bool = False,
    peephole: Literal["none", "channel", "full"] = "none",
    space: tuple[int, ...] = (),
    forget_bias: float = 1.0,
) -> LSTMParams:
    """Parameters, as the module says; peepholes and bias are zero, but for the forget gate's bias.

    Args:
      peephole: none, one weight per channel, or one per position ("full", which needs ``space``).
      space: the state's spatial size; read by ``peephole="full"`` alone.
      forget_bias: initial value of the forget gate's bias (Gers et al., 2000).
    """
    if peephole == "full" and len(space) != len(kernel_size):
        raise InputError(
            f"lstm.init: peephole='full' holds one weight per position and needs space, a size for each of the "
            f"{len(kernel_size)} spatial dimensions of kernel_size {kernel_size}; space is {space}."
        )
    kernels = _kernels(key, in_features, features, 4, kernel_size, input_kernel_size)
    bias = jnp.zeros((4, features)).at[1].set(forget_bias).reshape(-1)
    peepholes = None if peephole == "none" else jnp.zeros((3, *space, features))
    scales = _scales(layer_norm, in_features, 4 * features)
    norm = None if scales is None else LSTMNorm(*scales, jnp.ones(features), jnp.zeros(features))
    return LSTMParams(*kernels, bias, peepholes, norm)


def _lstm_carry(params: LSTMParams, shape: tuple[int, ...]) -> LSTMCarry:
    return LSTMCarry(_zeros(params, shape), _zeros(params, shape))


def _lstm_step(params: LSTMParams, carry: LSTMCarry, z_t: Array, affine: Affine) -> tuple[LSTMCarry, Array]:
    if params.norm is None:
        gates = affine(z_t, params.recurrent, carry.h)
    else:
        product = _normalised(params, params.norm.recurrent, _product(affine, params.recurrent, carry.h))
        gates = jnp.broadcast_to(z_t, product.shape) + product
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    if params.peephole is None:
        c = jax.nn.sigmoid(f) * carry.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    else:
        p_i, p_f, p_o = (jnp.broadcast_to(p, i.shape) for p in params.peephole)
        c = jax.nn.sigmoid(f + p_f * carry.c) * carry.c + jax.nn.sigmoid(i + p_i * carry.c) * jnp.tanh(g)
        o = o + p_o * c
    seen = c
    if params.norm is not None:
        seen = normalise(c, params.norm.cell) + jnp.broadcast_to(params.norm.cell_bias, c.shape)
    h = jax.nn.sigmoid(o) * jnp.tanh(seen)
    return LSTMCarry(h, c), h


lstm = Cell(init=_lstm_init, carry=_lstm_carry, project=_project, step=_lstm_step)
"""Long short-term memory, dense or convolutional, with or without peepholes and layer normalisation.

::

    i = σ(W_xi x + W_hi h + p_i⊙c + b_i)      f = σ(W_xf x + W_hf h + p_f⊙c + b_f)
    g = tanh(W_xg x + W_hg h + b_g)           c' = f⊙c + i⊙g
    o = σ(W_xo x + W_ho h + p_o⊙c' + b_o)     h' = o⊙tanh(c')

The products with ``W`` are matrix products, or convolutions where the kernels have spatial dimensions; ``p_o`` sees
the new cell. The output is ``h'``. With scales, ``W_x x`` and ``W_h h`` are replaced by ``LN(W_x x; α_2)`` and
``LN(W_h h; α_1)``, all four gates in one normalisation, and ``h' = o⊙tanh(LN(c'; α_3) + β_3)``; the source's ``β_1``
and ``β_2`` only add to ``b``.

References: Hochreiter and Schmidhuber, *Long Short-Term Memory*, 1997; Graves, *Generating Sequences With Recurrent
Neural Networks*, 2013, Eq. 7-11 (peepholes); Shi et al., *Convolutional LSTM Network*, 2015, Eq. 3 (convolutions);
Ba et al., 2016, Eq. 20-22 (layer normalisation).
"""


def _gru_init(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    *,
    kernel_size: tuple[int, ...] = (),
    input_kernel_size: tuple[int, ...] | None = None,
    layer_norm: bool = False,
) -> GRUParams:
    kernels = _kernels(key, in_features, features, 3, kernel_size, input_kernel_size)
    scales = _scales(layer_norm, in_features, 3 * features)
    return GRUParams(*kernels, jnp.zeros(3 * features), jnp.zeros(features), scales)


def _blend(r_z: Array, x_n: Array, h: Array, candidate: Callable[[Array], Array]) -> tuple[Array, Array]:
    """``h' = z⊙h + (1-z)⊙tanh(x_n + candidate(r))`` from the sums ``r_z`` of both gates."""
    r, z = jnp.split(jax.nn.sigmoid(r_z), 2, axis=-1)
    n = jnp.tanh(x_n + candidate(r))
    h = n + z * (h - n)
    return h, h


def _gru_step(params: GRUParams, h: Array, z_t: Array, affine: Affine) -> tuple[Array, Array]:
    product = _product(affine, params.recurrent, h)
    if params.norm is not None:
        product = _normalised(params, params.norm.recurrent, product)
    z_t = jnp.broadcast_to(z_t, product.shape)
    cut = 2 * h.shape[-1]
    h_n = product[..., cut:] + jnp.broadcast_to(params.candidate_bias, h.shape)
    return _blend(z_t[..., :cut] + product[..., :cut], z_t[..., cut:], h, lambda r: r * h_n)


def _gru_reset_before_step(params: GRUParams, h: Array, z_t: Array, affine: Affine) -> tuple[Array, Array]:
    cut = 2 * h.shape[-1]
    z_t = jnp.broadcast_to(z_t, (*h.shape[:-1], z_t.shape[-1]))

    def product(block: slice, inputs: Array) -> Array:
        product = _product(affine, params.recurrent[..., block], inputs)
        return product if params.norm is None else normalise(product, params.norm.recurrent[block])

    def candidate(r: Array) -> Array:
        return product(slice(cut, None), r * h) + jnp.broadcast_to(params.candidate_bias, h.shape)

    return _blend(z_t[..., :cut] + product(slice(cut), h), z_t[..., cut:], h, candidate)


gru = Cell(init=_gru_init, carry=_zeros, project=_project, step=_gru_step)
"""Gated recurrent unit that resets *after* the recurrent product, dense or convolutional.

::

    r = σ(W_r x + U_r h + b_r)                z = σ(W_z x + U_z h + b_z)
    n = tanh(W_n x + b_n + r⊙(U_n h + b_hn))  h' = (1-z)⊙n + z⊙h

The output is ``h'``. This is the unit of cuDNN, PyTorch, Flax and (by default) Keras. ``z`` keeps the old state, as in
Cho et al.; papers in which it takes the new one (Chung et al., 2014; Ballas et al., 2016) have ``1-z`` for our ``z``:
negate the ``z`` block of kernels and bias to go from one to the other, exactly.
With scales, ``LN`` stands around each product, r and z in one normalisation and n in another.

References: Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation*, arXiv 1406.1078v1, 2014; Ba et al., 2016, supplement (layer normalisation).
"""

gru_reset_before = Cell(init=_gru_init, carry=_zeros, project=_project, step=_gru_reset_before_step)
"""Gated recurrent unit that resets *before* the recurrent product: ``n = tanh(W_n x + b_n + U_n (r⊙h) + b_hn)``.

Otherwise as ``gru``, with the same parameters and another function of them: neither can be converted into the other.
With convolutional kernels it is the ConvGRU, the GRU-RCN cell of Ballas et al.

References: Cho et al., EMNLP 2014, Eq. 5-8; Ballas, Yao, Pal and Courville, *Delving Deeper into Convolutional
Networks for Learning Video Representations*, ICLR 2016, section 3.1.
"""


def _rcn_init(
    key: PRNGKeyArray,
    in_features: int | None,
    features: int,
    *,
    below_features: int,
    kernel_size: tuple[int, ...] = (3, 3),
    input_kernel_size: tuple[int, ...] | None = None,
    layer_norm: bool = False,
) -> GRURCNParams:
    """As every cell's; ``below_features`` is ``E``, the width of the layer below."""
    key, key_below = jax.random.split(key)
    size = kernel_size if input_kernel_size is None else input_kernel_size
    gru_params = _gru_init(
        key, in_features, features, kernel_size=kernel_size, input_kernel_size=size, layer_norm=layer_norm
    )
    below = initializers.lecun_normal()(key_below, (*size, below_features, 2 * features))
    return GRURCNParams(gru_params, below)


def _rcn_project(params: GRURCNParams, xs: tuple[Array, Array], affine: Affine) -> Array:
    x, below = xs
    z = _project(params.gru, x, affine)
    cut = params.below.shape[-1]
    return jnp.concatenate([affine(z[..., :cut], params.below, below), z[..., cut:]], axis=-1)


gru_rcn = Cell(
    init=_rcn_init,
    carry=lambda params, shape: _zeros(params.gru, shape),
    project=_rcn_project,
    step=lambda params, h, z_t, affine: _gru_reset_before_step(params.gru, h, z_t, affine),
)
"""The cell of the stacked GRU-RCN: ``gru_reset_before`` whose gates also read the layer below.

``r = σ(W_r*x + W_lr*h_below + U_r*h + b_r)``, ``z`` alike; the candidate does not read it. Its inputs are pairs
``(x_t, h_below_t)``, the second pooled to the resolution of the first: the level's features and the states that the
level below gave at the same steps.

Source: Ballas et al., 2016, section 3.2; their ``z`` is our ``1-z``.
"""
