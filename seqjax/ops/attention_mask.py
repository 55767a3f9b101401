"""Which keys a query may see: one description for attention that holds all scores and for attention that never does.

Query i stands at position ``offset + i``, key j at position j. A key is seen when everything that is given allows it:

    causal      j ≤ position                              autoregression, and a cache filled up to the position
    window      position - left ≤ j ≤ position + right    local attention
    lengths     j < length of the row                     padding at the end
    segments    segment of the key = that of the query    several sequences packed into one row
    allowed     any boolean array                         the rest
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqjax.errors import InputError

Block = tuple[Array | int, int]
"""Of queries or of keys: where it starts and how many there are."""


class Structure(NamedTuple):
    """What is known when a program is compiled."""

    queries: int
    """T."""
    keys: int
    """S."""
    causal: bool
    window: tuple[int, int] | None


class Mask(NamedTuple):
    """What may be known only when it runs; ``B`` is one dimension here, ``N`` counts the heads of queries."""

    allowed: Bool[Array, "B N T S"] | None
    """Dimensions that all share have size 1."""
    lengths: Int[Array, " B"] | None
    segments: tuple[Int[Array, "B T"], Int[Array, "B S"]] | None
    offset: Int[Array, " B"]
    """Of size 1 where all rows share it."""
    slopes: Float[Array, " N"] | None
    """ALiBi's, or None."""


def make_mask(
    batch: tuple[int, ...],
    heads: int,
    structure: Structure,
    *,
    allowed: Array | None,
    lengths: Array | None,
    segments: tuple[Array, Array] | None,
    offset: Array | int,
    slopes: Array | None,
) -> tuple[Structure, Mask]:
    """Arguments as `dot_product_attention` takes them, their shapes checked and ``*B`` folded into one dimension."""
    (queries, keys, _, window), shape = structure, (*batch, heads, structure.queries, structure.keys)
    allowed, lengths, slopes = (None if x is None else jnp.asarray(x) for x in (allowed, lengths, slopes))
    segments = None if segments is None else (jnp.asarray(segments[0]), jnp.asarray(segments[1]))
    if window is not None and (not isinstance(window, Sequence) or len(window) != 2 or min(window) < 0):
        raise InputError(
            f"window is {window}; expected how many keys before and after a query it sees, such as (128, 0): "
            "give two numbers, none negative."
        )
    _expect("lengths", lengths, batch, "one length for each row of keys, [*B]")
    for name, ids, size in zip(("queries", "keys"), segments or (None, None), (queries, keys), strict=True):
        _expect(f"segments of {name}", ids, (*batch, size), "one number for each position, [*B, T] and [*B, S]")
    _expect("alibi", slopes, (heads,), "one slope for each head of queries, [N], as alibi_slopes gives them")
    offset = jnp.asarray(offset, jnp.int32)
    if offset.ndim:
        _expect("offset", offset, batch, "one number for all rows, or one for each, [*B]")
    return structure, Mask(
        allowed=None if allowed is None else _folded(allowed, shape),
        lengths=None if lengths is None else lengths.astype(jnp.int32).reshape(-1),
        segments=None if segments is None else (segments[0].reshape(-1, queries), segments[1].reshape(-1, keys)),
        offset=offset.reshape(-1),
        slopes=None if slopes is None else jax.lax.stop_gradient(slopes.astype(jnp.float32)),
    )


def visible(structure: Structure, mask: Mask, rows: Block, columns: Block) -> Bool[Array, "B N t s"] | None:
    """Which of a block of scores count; None for all."""
    position, key = _positions(mask, rows), _indices(columns)[None, None, :]
    found = []
    if structure.causal:
        found.append(key <= position)
    if structure.window is not None:
        left, right = structure.window
        found += [key >= position - left, key <= position + right]
    if mask.lengths is not None:
        found.append(key < mask.lengths[:, None, None])
    if mask.segments is not None:
        queries, keys = (_cut(ids, *block, axis=1) for ids, block in zip(mask.segments, (rows, columns), strict=True))
        found.append(queries[:, :, None] == keys[:, None, :])
    block = [allowed[:, None] for allowed in found]
    if mask.allowed is not None:
        block.append(_cut(_cut(mask.allowed, *rows, axis=2), *columns, axis=3))
    if not block:
        return None
    shape = jnp.broadcast_shapes(*(allowed.shape for allowed in block))
    result = jnp.broadcast_to(block[0], shape)
    for allowed in block[1:]:
        result = result & jnp.broadcast_to(allowed, shape)
    return result


def distance_bias(mask: Mask, rows: Block, columns: Block) -> Float[Array, "B N t s"] | None:
    """ALiBi's ``-m |position - j|`` for a block of scores, or None."""
    if mask.slopes is None:
        return None
    distance = jnp.abs(_positions(mask, rows) - _indices(columns)[None, None, :]).astype(jnp.float32)[:, None]
    slopes = mask.slopes[None, :, None, None]
    shape = jnp.broadcast_shapes(distance.shape, slopes.shape)
    return -jnp.broadcast_to(slopes, shape) * jnp.broadcast_to(distance, shape)


def seen_chunks(structure: Structure, mask: Mask, rows: Block, chunk: int) -> tuple[Array | int, Array | int]:
    """The first chunk of keys that any of these rows may see, and the one after the last."""
    start, size = rows
    first: Array | int = 0
    end: Array | int = structure.keys
    if structure.causal:
        end = jnp.minimum(end, jnp.max(mask.offset) + start + size)
    if structure.window is not None:
        left, right = structure.window
        first = jnp.maximum(first, jnp.min(mask.offset) + start - left)
        end = jnp.minimum(end, jnp.max(mask.offset) + start + size + right)
    if mask.lengths is not None:
        end = jnp.minimum(end, jnp.max(mask.lengths))
    return first // chunk, -(-end // chunk)


def padded(structure: Structure, mask: Mask, queries: int, keys: int) -> tuple[Structure, Mask]:
    """The same for more queries and keys, of which the new keys are seen by no one."""
    lengths, allowed, segments = mask.lengths, mask.allowed, mask.segments
    if keys > structure.keys:
        full = jnp.full(mask.offset.shape, structure.keys, jnp.int32)
        lengths = full if lengths is None else jnp.minimum(lengths, jnp.full_like(lengths, structure.keys))
    if allowed is not None:
        sizes = [n if n == 1 else m for n, m in zip(allowed.shape[2:], (queries, keys), strict=True)]
        allowed = _extended(allowed, (*allowed.shape[:2], *sizes))
    if segments is not None:
        grown = [_extended(ids, (len(ids), n)) for ids, n in zip(segments, (queries, keys), strict=True)]
        segments = grown[0], grown[1]
    return structure._replace(queries=queries, keys=keys), mask._replace(
        lengths=lengths, allowed=allowed, segments=segments
    )


def _expect(name: str, array: Array | None, shape: tuple[int, ...], what: str) -> None:
    if array is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; expected {shape}: give {what}.")


def _folded(allowed: Array, shape: tuple[int, ...]) -> Array:
    """``[*B, N, T, S]`` with some sizes 1 to ``[B, N, T, S]`` with some sizes 1."""
    given = (*[1] * (len(shape) - allowed.ndim), *allowed.shape)
    if allowed.dtype != bool:
        raise InputError(f"mask has dtype {allowed.dtype}; expected booleans, True where a query may see a key.")
    if len(given) != len(shape) or any(n not in (1, m) for n, m in zip(given, shape, strict=True)):
        raise InputError(
            f"mask has shape {allowed.shape}; expected one that broadcasts to [*B, N, T, S] = {shape}: give size 1 to "
            "every dimension that shares it, such as [B, 1, 1, S] for keys."
        )
    allowed, batch = allowed.reshape(given), shape[:-3]
    if max(given[:-3], default=1) > 1:
        allowed = jnp.broadcast_to(allowed, (*batch, *given[-3:]))
    return allowed.reshape(-1, *given[-3:])


def _positions(mask: Mask, rows: Block) -> Array:
    return mask.offset[:, None, None] + _indices(rows)[None, :, None]


def _indices(block: Block) -> Array:
    start, size = block
    return start + jnp.arange(size, dtype=jnp.int32)


def _cut(array: Array, start: Array | int, size: int, axis: int) -> Array:
    return array if array.shape[axis] in (1, size) else jax.lax.dynamic_slice_in_dim(array, start, size, axis)


def _extended(array: Array, shape: tuple[int, ...]) -> Array:
    return jnp.pad(array, [(0, m - n) for n, m in zip(array.shape, shape, strict=True)])
