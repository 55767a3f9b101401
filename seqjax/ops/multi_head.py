"""Multi-head attention with its projections, and decoding with a cache of keys and values.

    self-attention       multi_head_attention(params, xs, project(params, xs), causal=True)
    cross-attention      memory = project(params, encoded), once;  multi_head_attention(params, xs, memory)
    decoding             cache, ys = cached_attention(params, cache, xs), with any number of new tokens at a time

Everything that `dot_product_attention` can be asked for can be asked for here.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array, Float, Int, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.dot_product_attention import dot_product_attention
from seqjax.ops.position import rotary


class MultiHeadBias(NamedTuple):
    """Biases of the four projections."""

    query: Float[Array, "N H"]
    key: Float[Array, "K H"]
    value: Float[Array, "K E"]
    output: Float[Array, " F"]


class MultiHeadParams(NamedTuple):
    """Parameters: N heads of queries, K of keys and values."""

    query: Float[Array, "D N H"]
    """``W_q``, of the inputs."""
    key: Float[Array, "C K H"]
    """``W_k``, of the memory."""
    value: Float[Array, "C K E"]
    """``W_v``, of the memory."""
    output: Float[Array, "N E F"]
    """``W_o``."""
    bias: MultiHeadBias | None = None
    """None for projections without."""


class Memory(NamedTuple):
    """What is attended to."""

    keys: Float[Array, "*B S K H"]
    values: Float[Array, "*B S K E"]


class Cache(NamedTuple):
    """Keys and values of the tokens so far, and room for those to come."""

    memory: Memory
    """S places."""
    length: Int[Array, "..."]
    """How many are filled: one number, or one for each row ``[*B]``."""


def init(
    key: PRNGKeyArray,
    features: int,
    heads: int,
    *,
    memory_features: int | None = None,
    key_heads: int | None = None,
    head_features: int | None = None,
    bias: bool = True,
) -> MultiHeadParams:
    """Xavier-uniform kernels, each as one matrix of all heads; zero biases.

    Args:
      key: consumed.
      features: D of the inputs and of the outputs.
      heads: N.
      memory_features: C, the inputs' unless given.
      key_heads: K, a divisor of N; N unless given.
      head_features: H and E; ``D / N`` unless given.
      bias: whether the projections have one.

    Raises:
      InputError: if the heads do not divide the features, or those of keys those of queries.
    """
    width = features // heads if head_features is None else head_features
    shared = heads if key_heads is None else key_heads
    if (head_features is None and features % heads) or heads % shared:
        raise InputError(
            f"multi_head.init: {features} features, {heads} heads and {shared} of keys; expected heads that divide the "
            "features (or give head_features), and heads of keys that divide those of queries."
        )
    source = features if memory_features is None else memory_features
    asking, asked, output = (features, heads, width), (source, shared, width), (heads, width, features)
    shapes = {"query": (asking, 1), "key": (asked, 1), "value": (asked, 1), "output": (output, 2)}
    keys = jax.random.split(key, len(shapes))
    kernels = {name: _xavier(k, *shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    zeros = {name: jnp.zeros(shape[inputs:]) for name, (shape, inputs) in shapes.items()}
    return MultiHeadParams(**kernels, bias=MultiHeadBias(**zeros) if bias else None)


def project(
    params: MultiHeadParams, memory: Float[Array, "*B S C"], *, positions: Int[Array, "*#B S"] | None = None
) -> Memory:
    """Keys and values of what is attended to; keys turned by `rotary` where there are positions."""
    bias = params.bias
    keys = _heads(params.key, None if bias is None else bias.key, memory)
    values = _heads(params.value, None if bias is None else bias.value, memory)
    return Memory(keys if positions is None else rotary(keys, positions), values)


def multi_head_attention(
    params: MultiHeadParams,
    xs: Float[Array, "*B T D"],
    memory: Memory,
    *,
    positions: Int[Array, "*#B T"] | None = None,
    **options: Any,
) -> Float[Array, "*B T F"]:
    """``Σ_n softmax(q_n k_nᵀ / √H) v_n W_o,n + b_o`` with ``q_n = W_q,n x + b_q,n``.

    Args:
      params: from `init`.
      xs: inputs that ask.
      memory: from `project`.
      positions: of the inputs, for `rotary`, where the memory was projected with its own.
      options: of `dot_product_attention`: mask, lengths, causal, window, alibi, implementation, ...

    Source: Vaswani et al., *Attention Is All You Need*, 2017, section 3.2.2.
    """
    bias = params.bias
    found = dot_product_attention(_queries(params, xs, positions), *memory, **options)
    flat = found.reshape(*found.shape[:-2], -1)
    outputs = flat @ params.output.reshape(flat.shape[-1], -1)
    return outputs if bias is None else outputs + jnp.broadcast_to(bias.output, outputs.shape)


def attention_weights(
    params: MultiHeadParams,
    xs: Float[Array, "*B T D"],
    memory: Memory,
    *,
    positions: Int[Array, "*#B T"] | None = None,
    **options: Any,
) -> Float[Array, "*B N T S"]:
    """How much each head of each input sees of each key, to be looked at; arguments as of `multi_head_attention`."""
    *batch, size, heads, _ = memory.keys.shape
    # Attention to values that are unit vectors.
    units = jnp.broadcast_to(jnp.eye(size, dtype=xs.dtype)[:, None], (*batch, size, heads, size))
    found = dot_product_attention(_queries(params, xs, positions), memory.keys, units, **options)
    return jnp.moveaxis(found, -2, -3)


def init_cache(params: MultiHeadParams, shape: tuple[int, ...], length: int) -> Cache:
    """An empty cache for rows ``*B = shape`` with ``length`` places, in the dtype of the parameters."""
    keys, values = (jnp.zeros((*shape, length, *kernel.shape[1:]), kernel.dtype) for kernel in params[1:3])
    return Cache(Memory(keys, values), jnp.zeros((), jnp.int32))


def cached_attention(
    params: MultiHeadParams, cache: Cache, xs: Float[Array, "*B T D"], *, rotate: bool = False, **options: Any
) -> tuple[Cache, Float[Array, "*B T F"]]:
    """Causal self-attention of T new tokens to all before them and to themselves: one step of decoding, or the prompt.

    Calls one after another give what one call with all tokens gives. Prompts of several lengths: give all of them
    padded, then set ``length`` to their lengths ``[*B]``; the next tokens of each row take the places of its padding.
    Make room for all that will come: a full cache overwrites its last tokens, and no compiled program can warn of it.

    Args:
      params: from `init`.
      cache: from `init_cache`, or the last call.
      xs: the new tokens.
      rotate: whether queries and keys are turned by `rotary`.
      options: of `dot_product_attention`, such as window or alibi.

    Returns:
      The cache with T more tokens, and the outputs.
    """
    length, new = cache.length, xs.shape[-2]
    positions = length[..., None] + jnp.arange(new, dtype=jnp.int32).reshape(*[1] * length.ndim, new)
    turned = positions if rotate else None
    fresh = project(params, xs, positions=turned)
    memory = Memory(*(_written(old, x, length) for old, x in zip(cache.memory, fresh, strict=True)))
    ys = multi_head_attention(params, xs, memory, positions=turned, causal=True, offset=length, **options)
    return Cache(memory, length + new), ys


def _xavier(key: Array, shape: tuple[int, ...], inputs: int) -> Array:
    matrix = math.prod(shape[:inputs]), math.prod(shape[inputs:])
    return initializers.glorot_uniform()(key, matrix).reshape(shape)


def _queries(params: MultiHeadParams, xs: Array, positions: Array | None) -> Array:
    queries = _heads(params.query, None if params.bias is None else params.bias.query, xs)
    return queries if positions is None else rotary(queries, positions)


def _heads(kernel: Array, bias: Array | None, xs: Array) -> Array:
    product = xs @ kernel.reshape(len(kernel), -1)
    heads = product.reshape(*xs.shape[:-1], *kernel.shape[1:])
    return heads if bias is None else heads + jnp.broadcast_to(bias, heads.shape)


def _written(cache: Array, new: Array, start: Array) -> Array:
    """New entries ``[*B, T, ..]`` at their places in ``[*B, S, ..]``, from ``start``, one or one for each row."""
    new = new.astype(cache.dtype)
    if not start.ndim:
        return jax.lax.dynamic_update_slice_in_dim(cache, new, start, cache.ndim - 3)
    write = jax.lax.dynamic_update_slice_in_dim
    rows = jax.vmap(lambda a, b, i: write(a, b, i, 0))
    flat = rows(cache.reshape(-1, *cache.shape[-3:]), new.reshape(-1, *new.shape[-3:]), start.reshape(-1))
    return flat.reshape(cache.shape)
