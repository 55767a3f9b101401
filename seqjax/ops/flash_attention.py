"""Attention in memory linear in length: blocks of scores, an online softmax, and a gradient that computes them again.

Softmax over keys needs the largest score and the sum of all exponentials, and both can be corrected later. So keys are
taken in chunks; of each, for every query, a `Partial` is kept: the largest score ``m``, ``l = Σ exp(s - m)`` and
``a = Σ exp(s - m) v``. Two of them `merge` into that of all their keys,

    m = max(m₁, m₂),    l = l₁ exp(m₁ - m) + l₂ exp(m₂ - m),    a likewise,

in any order, and at the end the result is ``a / l``. Nothing is approximated. The gradient keeps the result and
``log l + m`` of each query, from which every weight can be formed again:

    p = exp(s - lse),  v̄ = pᵀ ō,  s̄ = p (ō vᵀ - ō · o),  q̄ = s̄ k,  k̄ = s̄ᵀ q        (· scale)

Chunks of keys that no query of a chunk may see are skipped, so a causal mask costs half and a window of fixed size is
linear in length. Reverse mode, once: for higher derivatives take ``implementation="xla"``.

Sources: Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018 (the merge); Rabe and Staats,
*Self-attention Does Not Need O(n²) Memory*, 2021; Dao et al., *FlashAttention*, 2022, appendix B (the gradient).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.ops.attention_mask import Block, Mask, Structure, distance_bias, padded, seen_chunks, visible
from seqjax.ops.softmax import LOWEST, wide


class Partial(NamedTuple):
    """Attention over some of the keys, without its normalisation."""

    total: Float[Array, "*B T E"]
    """``a = Σ exp(s - m) v``."""
    top: Float[Array, "*B T"]
    """``m``, the largest score."""
    mass: Float[Array, "*B T"]
    """``l = Σ exp(s - m)``; 0 where no key is seen."""


class _Static(NamedTuple):
    structure: Structure
    scale: float
    rows: int
    columns: int


def merge(first: Partial, second: Partial) -> Partial:
    """Attention over the keys of both. Associative and commutative; `Partial` of no key is its identity.

    What keys on other devices, in a cache, or in another chunk give, becomes one result by it
    (`dot_product_attention.partial_attention`).
    """
    top = jnp.maximum(first.top, second.top)
    a, b = jnp.exp(first.top - top), jnp.exp(second.top - top)
    total = first.total * a[..., None] + second.total * b[..., None]
    return Partial(total, top, first.mass * a + second.mass * b)


def finish(partial: Partial) -> Float[Array, "*B T E"]:
    """``a / l``; zeros where no key was seen."""
    mass = jnp.where(partial.mass > 0, partial.mass, jnp.ones_like(partial.mass))
    return partial.total / mass[..., None]


def flash_attention(
    queries: Float[Array, "B K G T H"],
    keys: Float[Array, "B K S H"],
    values: Float[Array, "B K S E"],
    structure: Structure,
    mask: Mask,
    *,
    scale: float,
    chunks: tuple[int, int],
) -> Float[Array, "B K G T E"]:
    """What `dot_product_attention` calls, which has the arguments' meaning; heads lead, grouped by those of keys."""
    if min(chunks) < 1:
        raise InputError(f"chunks is {chunks}; expected how many queries and keys a block has, each at least 1.")
    rows, columns = min(chunks[0], structure.queries), min(chunks[1], structure.keys)
    counts = -(-structure.queries // rows), -(-structure.keys // columns)
    longer = counts[0] * rows, counts[1] * columns
    static, mask = padded(structure, mask, *longer)
    queries = _chunked(queries, rows, longer[0])
    keys, values = _chunked(keys, columns, longer[1]), _chunked(values, columns, longer[1])
    outputs = _attend(_Static(static, scale, rows, columns), queries, keys, values, mask)
    return _joined(outputs)[..., : structure.queries, :]


def scores(
    queries: Float[Array, "B K G t H"],
    keys: Float[Array, "B K s H"],
    structure: Structure,
    mask: Mask,
    scale: float,
    rows: Block,
    columns: Block,
) -> tuple[Float[Array, "B K G t s"], Array | None]:
    """A block of scores in float32 at least, and which of them count (None for all), of a shape that broadcasts."""
    dtype = wide(queries)
    logits = jnp.einsum("bkgth,bksh->bkgts", queries, keys, preferred_element_type=dtype) * scale

    def grouped(block: Array) -> Array:
        heads = (1, 1) if block.shape[1] == 1 else logits.shape[1:3]
        return block.reshape(block.shape[0], *heads, *block.shape[2:])

    bias = distance_bias(mask, rows, columns)
    if bias is not None:
        logits = logits + jnp.broadcast_to(grouped(bias).astype(dtype), logits.shape)
    seen = visible(structure, mask, rows, columns)
    return logits, None if seen is None else grouped(seen)


def _chunked(x: Array, size: int, length: int) -> Array:
    """``[.., T, H]`` to ``[chunks, .., size, H]``, with zeros at the end."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, length - x.shape[-2]), (0, 0)])
    return jnp.moveaxis(x.reshape(*x.shape[:-2], length // size, size, x.shape[-1]), -3, 0)


def _joined(x: Array) -> Array:
    x = jnp.moveaxis(x, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _block(static: _Static, mask: Mask, queries: Array, keys: Array, i: Array, j: Array) -> Array:
    """Scores of a chunk of queries with a chunk of keys; -∞ for what is hidden."""
    rows, columns = (i * static.rows, static.rows), (j * static.columns, static.columns)
    logits, seen = scores(queries, keys, static.structure, mask, static.scale, rows, columns)
    return logits if seen is None else jnp.where(seen, logits, jnp.full_like(logits, -jnp.inf))


def weigh(logits: Float[Array, "B K G T S"], values: Float[Array, "B K S E"]) -> Partial:
    """A `Partial` of heads that lead, from its scores; -∞ for what is hidden."""
    # A finite bound below: where all is hidden, the exponential of -inf minus it is zero, and no NaN.
    # It has no gradient, since the result in the end does not depend on it.
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, axis=-1), LOWEST))
    weights = jnp.exp(logits - top[..., None])
    total = jnp.einsum("bkgts,bkse->bkgte", weights.astype(values.dtype), values, preferred_element_type=weights.dtype)
    return Partial(total, top, jnp.sum(weights, axis=-1))


def _chunk_range(static: _Static, mask: Mask, i: Array) -> tuple[Array | int, Array | int]:
    return seen_chunks(static.structure, mask, (i * static.rows, static.rows), static.columns)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static: _Static, queries: Array, keys: Array, values: Array, mask: Mask) -> Array:
    return _forward(static, queries, keys, values, mask)[0]


def _forward(static: _Static, queries: Array, keys: Array, values: Array, mask: Mask) -> tuple[Array, tuple]:
    """Over chunks of queries, each over the chunks of keys that it may see."""
    dtype = wide(queries)

    def of_queries(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        i, q = inputs

        def add(j: Array, partial: Partial) -> Partial:
            return merge(partial, weigh(_block(static, mask, q, keys[j], i, j), values[j]))

        rows = q.shape[:-1]
        nothing = Partial(
            jnp.zeros((*rows, values.shape[-1]), dtype), jnp.full(rows, LOWEST, dtype), jnp.zeros(rows, dtype)
        )
        partial = jax.lax.fori_loop(*_chunk_range(static, mask, i), add, nothing)
        some = partial.mass > 0
        lse = partial.top + jnp.log(jnp.where(some, partial.mass, jnp.ones_like(partial.mass)))
        return finish(partial).astype(values.dtype), lse

    outputs, lse = jax.lax.map(of_queries, (jnp.arange(len(queries)), queries))
    return outputs, (queries, keys, values, mask, outputs, lse)


def _backward(static: _Static, residuals: tuple, d_outputs: Array) -> tuple[Array, Array, Array, None]:
    queries, keys, values, mask, outputs, lse = residuals
    dtype = lse.dtype

    def of_queries(sums: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], Array]:
        i, q, out, d_out, lse = inputs
        inner = jnp.sum(out.astype(dtype) * d_out.astype(dtype), axis=-1)

        def add(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            d_q, d_keys, d_values = carry
            k, v = keys[j], values[j]
            weights = jnp.exp(_block(static, mask, q, k, i, j) - lse[..., None])
            d_weights = jnp.einsum("bkgte,bkse->bkgts", d_out, v, preferred_element_type=dtype)
            d_logits = (weights * (d_weights - inner[..., None]) * static.scale).astype(q.dtype)
            d_v = jnp.einsum("bkgts,bkgte->bkse", weights.astype(v.dtype), d_out, preferred_element_type=dtype)
            d_k = jnp.einsum("bkgts,bkgth->bksh", d_logits, q, preferred_element_type=dtype)
            d_q = d_q + jnp.einsum("bkgts,bksh->bkgth", d_logits, k, preferred_element_type=dtype)
            return d_q, d_keys.at[j].add(d_k), d_values.at[j].add(d_v)

        start = (jnp.zeros(q.shape, dtype), *sums)
        d_q, d_keys, d_values = jax.lax.fori_loop(*_chunk_range(static, mask, i), add, start)
        return (d_keys, d_values), d_q.astype(q.dtype)

    sums = jnp.zeros(keys.shape, dtype), jnp.zeros(values.shape, dtype)
    inputs = jnp.arange(len(queries)), queries, outputs, d_outputs.astype(values.dtype), lse
    (d_keys, d_values), d_queries = jax.lax.scan(of_queries, sums, inputs)
    return d_queries, d_keys.astype(keys.dtype), d_values.astype(values.dtype), None


_attend.defvjp(_forward, _backward)
