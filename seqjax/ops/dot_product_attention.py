"""Scaled dot-product attention of heads ``[*B, T, N, H]``: one function, whatever computes it.

    softmax over keys of  (q · k / √H - m |i - j|)  where visible,  times v

``implementation`` chooses the road to the same numbers:

    xla      holds all scores [*B, N, T, S]: the reference, the only one with weights to look at and dropout on them
    flash    never holds more than a block of them: memory linear in T and S, values and gradients of its own
             (`flash_attention`); blocks that a causal mask, a window or lengths hide are not computed
    cudnn    the fused kernels of NVIDIA GPUs through `jax.nn.dot_product_attention`, for float16 and bfloat16

Unlike `jax.nn.dot_product_attention`, a query that sees no key gets zeros and no gradient, not the mean of all values,
and a causal mask knows where in the sequence the queries stand, so that a cache needs no other function.
"""

import functools
import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from seqjax.errors import InputError
from seqjax.ops.attention_mask import Mask, Structure, distance_bias, make_mask, visible
from seqjax.ops.flash_attention import Partial, flash_attention, scores, weigh
from seqjax.ops.softmax import masked_softmax

Implementation = Literal["xla", "flash", "cudnn"]


def dot_product_attention(
    queries: Float[Array, "*B T N H"],
    keys: Float[Array, "*B S K H"],
    values: Float[Array, "*B S K E"],
    *,
    mask: Bool[Array, "..."] | None = None,
    lengths: Int[Array, "*B"] | None = None,
    segments: tuple[Int[Array, "*B T"], Int[Array, "*B S"]] | None = None,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    offset: Int[Array, "..."] | int = 0,
    alibi: Float[Array, " N"] | None = None,
    scale: float | Float[Array, ""] | None = None,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
    implementation: Implementation | None = None,
    chunks: tuple[int, int] = (256, 512),
) -> Float[Array, "*B T N E"]:
    """Weighted means of ``values``, by how well ``keys`` match ``queries``.

    Scores and softmax are computed in float32 at least, and sums over keys too; the result has the dtype of ``values``.
    A query that sees no key gets zeros, and nothing of it a gradient. What a hidden key and its value hold changes
    nothing as long as it is finite.

    Args:
      queries: ``q``, of N heads.
      keys: ``k``, of K heads, a divisor of N: N / K neighbouring heads of queries share one (grouped and multi-query
        attention).
      values: ``v``, as many as keys; their size E may differ from H.
      mask: any boolean array that broadcasts to ``[*B, N, T, S]``: True where a query may see a key.
      lengths: how many keys of each row there are; those after them are padding.
      segments: ids of queries and of keys; those of equal ids see one another.
      causal: key j is seen from positions ``≥ j`` only. Query i stands at position ``offset + i``.
      window: how many keys before and after its own position a query sees.
      offset: position of the first query, one number or one for each row: 0 where queries and keys are one sequence,
        the number of keys before in decoding with a cache.
      alibi: ``m``, a slope for each head (`position.alibi_slopes`): distance costs score. Constants: no gradient.
      scale: of the scores; ``1/√H`` unless given. An array may be learned.
      dropout: the share of weights set to zero, the others divided by what is left; "xla" only.
      key: for dropout.
      implementation: see above. None takes "xla" where T·S is at most 2²⁰ (on CPU 2¹⁶) or there is dropout, and else
        "flash"; "cudnn" only whoever asks for it gets.
      chunks: how many queries and keys a block of "flash" has: more is faster up to a point and takes more memory.

    Raises:
      InputError: for shapes that do not fit together, each named, and for what an implementation cannot do.

    Sources: Vaswani et al., *Attention Is All You Need*, 2017, Eq. 1; Shazeer, *Fast Transformer Decoding*, 2019, and
    Ainslie et al., *GQA*, 2023 (shared heads of keys); Press, Smith, Lewis, *Train Short, Test Long*, 2022 (ALiBi).
    """
    structure, hidden = _read(queries, keys, values, mask, lengths, segments, causal, window, offset, alibi)
    if isinstance(scale, jax.Array):
        queries, scale = queries * jnp.broadcast_to(scale.astype(queries.dtype), queries.shape), 1.0
    scale = 1 / math.sqrt(queries.shape[-1]) if scale is None else scale
    if implementation is None:
        small = structure.queries * structure.keys <= (2**16 if jax.default_backend() == "cpu" else 2**20)
        implementation = "xla" if small or dropout else "flash"
    if implementation not in get_args(Implementation):
        raise InputError(f"implementation is {implementation!r}; expected one of {get_args(Implementation)}, or None.")
    if dropout and (implementation != "xla" or key is None):
        raise InputError(
            f"dropout is {dropout}, implementation {implementation!r} and the random key "
            f'{"missing" if key is None else "there"}; expected a key and "xla", which alone holds the weights: give '
            "both, or no dropout."
        )
    if not queries.size or not keys.size:
        return jnp.zeros((*queries.shape[:-1], values.shape[-1]), values.dtype)
    if implementation == "cudnn":
        moved = not isinstance(offset, int) or offset != 0
        outputs = _cudnn(queries, keys, values, structure, hidden, moved, scale)
    else:
        heads = _split_heads(queries, keys, values)
        if implementation == "xla":
            result = _plain(*heads, structure, hidden, scale, dropout, key)
        else:
            result = flash_attention(*heads, structure, hidden, scale=scale, chunks=chunks)
        outputs = result.transpose(0, 3, 1, 2, 4)
    return outputs.reshape(*queries.shape[:-1], values.shape[-1])


def partial_attention(
    queries: Float[Array, "*B T N H"],
    keys: Float[Array, "*B S K H"],
    values: Float[Array, "*B S K E"],
    *,
    mask: Bool[Array, "..."] | None = None,
    lengths: Int[Array, "*B"] | None = None,
    segments: tuple[Int[Array, "*B T"], Int[Array, "*B S"]] | None = None,
    causal: bool = False,
    window: tuple[int, int] | None = None,
    offset: Int[Array, "..."] | int = 0,
    alibi: Float[Array, " N"] | None = None,
    scale: float | None = None,
) -> Partial:
    """Attention over these keys, before it is known what others there are.

        finish(merge(partial_attention(q, k[:, :n], v[:, :n]), partial_attention(q, k[:, n:], v[:, n:], offset=-n)))

    is `dot_product_attention` over all of them (`flash_attention.merge`, ``finish``), in value and gradient: for keys
    that lie on several devices, or in several caches. All scores of these keys are held.

    Args:
      queries, keys, values, mask, lengths, segments, causal, window, alibi, scale: as there, of these keys.
      offset: position of the first query as seen from the first of these keys: negative before them.

    Returns:
      ``total [*B, T, N, E]``, ``top`` and ``mass`` ``[*B, T, N]``, in float32 at least.

    Raises:
      InputError: for shapes that do not fit together, each named.

    Source: Rabe and Staats, *Self-attention Does Not Need O(n²) Memory*, 2021.
    """
    structure, hidden = _read(queries, keys, values, mask, lengths, segments, causal, window, offset, alibi)
    scale = 1 / math.sqrt(queries.shape[-1]) if scale is None else scale
    q, k, v = _split_heads(queries, keys, values)
    logits, seen = scores(q, k, structure, hidden, scale, (0, structure.queries), (0, structure.keys))
    if seen is not None:
        logits = jnp.where(seen, logits, jnp.full_like(logits, -jnp.inf))
    total, top, mass = weigh(logits, v)
    rows = queries.shape[:-1]
    return Partial(
        total.transpose(0, 3, 1, 2, 4).reshape(*rows, values.shape[-1]),
        *(x.transpose(0, 3, 1, 2).reshape(rows) for x in (top, mass)),
    )


def _read(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    lengths: Array | None,
    segments: tuple[Array, Array] | None,
    causal: bool,
    window: tuple[int, int] | None,
    offset: Array | int,
    alibi: Array | None,
) -> tuple[Structure, Mask]:
    """How the arrays fit together."""
    *batch, length, heads, width = queries.shape
    fits = keys.ndim == queries.ndim and keys.shape[:-1] == values.shape[:-1] and [*keys.shape[:-3]] == batch
    if not fits or keys.shape[-1] != width or heads % max(keys.shape[-2], 1):
        raise InputError(
            f"dot_product_attention: queries have shape {queries.shape}, keys {keys.shape}, values {values.shape}; "
            "expected [*B, T, N, H], [*B, S, K, H] and [*B, S, K, E], where K divides N."
        )
    return make_mask(
        tuple(batch),
        heads,
        Structure(length, keys.shape[-3], causal, window),
        allowed=mask,
        lengths=lengths,
        segments=segments,
        offset=offset,
        slopes=alibi,
    )


def _split_heads(queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
    """``[B, K, N/K, T, H]``, ``[B, K, S, H]`` and ``[B, K, S, E]``."""
    length, heads, width = queries.shape[-3:]
    shared = keys.shape[-2]
    q = queries.reshape(-1, length, shared, heads // shared, width).transpose(0, 2, 3, 1, 4)
    k, v = (x.reshape(-1, *x.shape[-3:]).transpose(0, 2, 1, 3) for x in (keys, values))
    return q, k, v


def _plain(
    queries: Array,
    keys: Array,
    values: Array,
    structure: Structure,
    mask: Mask,
    scale: float,
    dropout: float,
    key: Array | None,
) -> Array:
    everything = (0, structure.queries), (0, structure.keys)
    weights = masked_softmax(*scores(queries, keys, structure, mask, scale, *everything))
    if key is not None and dropout:
        kept = jax.random.bernoulli(key, 1 - dropout, weights.shape)
        weights = jnp.where(kept, weights / (1 - dropout), jnp.zeros_like(weights))
    products = jnp.einsum(
        "bkgts,bkse->bkgte", weights.astype(values.dtype), values, preferred_element_type=weights.dtype
    )
    return products.astype(values.dtype)


def _cudnn(
    queries: Array, keys: Array, values: Array, structure: Structure, mask: Mask, moved: bool, scale: float
) -> Array:
    """Causal masks and lengths in the kernels' own words, everything else as whole arrays ``[B, N, T, S]``.

    Rows that see nothing are made to see something, and what they get is set to zero.
    """
    if jax.default_backend() != "gpu" or queries.dtype not in (jnp.float16, jnp.bfloat16):
        raise InputError(
            f'implementation is "cudnn" on {jax.default_backend()} for {queries.dtype}; expected a GPU and float16 or '
            'bfloat16: cast the heads, or choose "flash", which computes the same.'
        )
    queries, keys, values = (x.reshape(-1, *x.shape[-3:]) for x in (queries, keys, values))
    options: dict[str, Any] = {}
    seen = None
    if moved or structure.window or mask.allowed is not None or mask.segments or mask.slopes is not None:
        everything = (0, structure.queries), (0, structure.keys)
        allowed, bias = visible(structure, mask, *everything), distance_bias(mask, *everything)
        shape = (len(queries), queries.shape[-2], structure.queries, structure.keys)
        if allowed is not None:
            options["mask"] = jnp.broadcast_to(allowed, shape)
            seen = jnp.swapaxes(jnp.any(allowed, axis=-1, keepdims=True), 1, 2)
        if bias is not None:
            options["bias"] = jnp.broadcast_to(bias, shape).astype(queries.dtype)
    else:
        options["is_causal"] = structure.causal
        if mask.lengths is not None:
            options["key_value_seq_lengths"] = jnp.maximum(mask.lengths, 1)
            seen = (mask.lengths > 0)[:, None, None, None]
    attend = functools.partial(jax.nn.dot_product_attention, scale=scale, implementation="cudnn")
    with jax.numpy_dtype_promotion("standard"):
        outputs = attend(queries, keys, values, **options)
    return outputs if seen is None else jnp.where(seen, outputs, jnp.zeros_like(outputs))
