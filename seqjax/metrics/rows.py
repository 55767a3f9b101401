"""Rows of arrays kept until the end, for figures that are no sums: of features, of generated texts, of embeddings."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError


class Rows(NamedTuple):
    """The rows so far, one per example that counts; those from n on are not filled yet."""

    arrays: dict[str, Array]
    """By name, ``[M, ..]``."""
    n: Array


def no_rows(row: Mapping[str, jax.ShapeDtypeStruct], capacity: int) -> Rows:
    """Room for the rows of ``capacity`` examples; ``row`` says what one is."""
    arrays = {name: jnp.zeros((capacity, *one.shape), one.dtype) for name, one in row.items()}
    return Rows(arrays, jnp.zeros((), jnp.int32))


def add_rows(acc: Rows, found: Mapping[str, Array], weight: Float[Array, " B"]) -> Rows:
    """A batch more, ``[B, ..]`` by name; rows of weight 0 are left out, what is beyond the capacity only counted."""
    counts = (weight > 0).astype(jnp.int32)
    capacity = len(next(iter(acc.arrays.values())))
    # Rows that do not count go past the end, where they are dropped.
    places = jnp.where(weight > 0, acc.n + jnp.cumsum(counts) - 1, capacity)
    arrays = {
        name: array.at[places].set(found[name].astype(array.dtype), mode="drop") for name, array in acc.arrays.items()
    }
    return Rows(arrays, acc.n + jnp.sum(counts))


def rows_of(acc: Rows) -> dict[str, np.ndarray]:
    """All rows, on the host, in the order in which they came.

    Raises:
      InputError: there were none, or more than there was room for.
    """
    n, capacity = int(acc.n), len(next(iter(acc.arrays.values())))
    if not 0 < n <= capacity:
        raise InputError(
            f"{n} examples were accumulated in room for capacity={capacity}; expected from 1 to {capacity}: check that "
            "the evaluation split is not empty, and give its length as the capacity."
        )
    return {name: np.asarray(array)[:n] for name, array in acc.arrays.items()}
