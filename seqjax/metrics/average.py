"""Averages over the examples of a data set, by name, summed without an error that grows with their number."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax.errors import InputError
from seqjax.metrics.metric import Figures, Metric


class Totals(NamedTuple):
    """Sums over the examples so far, by name, and "weight", [].

    excess is what rounding has put into total too much, taken off with the next batch (Kahan summation).
    """

    total: dict[str, Array]
    excess: dict[str, Array]


def average(
    names: Collection[str], values: Callable[[Any, Mapping[str, Array]], Mapping[str, Float[Array, " B"]]]
) -> Metric:
    """The mean over all examples of what `values(outputs, batch)` gives for each: one number by name."""

    def accumulate(acc: Totals, outputs: Any, batch: Mapping[str, Array]) -> Totals:
        found = values(outputs, batch)
        return add(acc, found, batch.get("weight", jnp.ones(len(next(iter(found.values()))))))

    def finish(acc: Totals) -> Figures:
        return {name: float(mean) for name, mean in means(acc, "average").items()}

    return Metric(lambda: zeros(dict.fromkeys(names, ())), accumulate, finish)


def zeros(shapes: Mapping[str, tuple[int, ...]]) -> Totals:
    """Nothing seen yet, of values with these shapes per example."""
    sums = {name: jnp.zeros(shape) for name, shape in shapes.items()} | {"weight": jnp.zeros(())}
    return Totals(sums, jax.tree.map(jnp.zeros_like, sums))


def add(acc: Totals, values: Mapping[str, Float[Array, "B ..."]], weight: Float[Array, " B"]) -> Totals:
    """A batch of values more, each example counted by its weight; what has weight 0 may be NaN."""
    # A padded row may hold NaN, and 0 · NaN is NaN: it is left out, not multiplied away.
    rows = {name: weight.reshape(-1, *[1] * (value.ndim - 1)) for name, value in values.items()}
    sums = {name: jnp.sum(jnp.where(rows[name] > 0, rows[name] * v, 0.0), axis=0) for name, v in values.items()}
    sums["weight"] = jnp.sum(weight)
    owed = jax.tree.map(jnp.subtract, sums, acc.excess)
    total = jax.tree.map(jnp.add, acc.total, owed)
    excess = jax.tree.map(lambda new, old, value: (new - old) - value, total, acc.total, owed)
    return Totals(total, excess)


def means(acc: Totals, metric: str) -> dict[str, np.ndarray]:
    """The averages on the host. `metric` is what an InputError names if nothing was seen."""
    sums = {name: np.float64(total) for name, total in acc.total.items()}
    weight = sums.pop("weight")
    if not weight:
        raise InputError(
            f"{metric}: no example was accumulated, so there is nothing to average; expected at least "
            "one of weight above 0: check that the evaluation split is not empty."
        )
    return {name: np.asarray(total / weight) for name, total in sums.items()}
