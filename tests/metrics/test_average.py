"""Oracle: NumPy's weighted average in float64 over all examples at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.average import average
from seqjax.metrics.metric import alike, together

METRIC = average(("error", "hits"), lambda outputs, batch: {"error": jnp.abs(outputs), "hits": batch["hits"]})


def test_mean_over_batches_of_any_size_with_padding_left_out():
    rng = np.random.default_rng(0)
    outputs, hits = np.float32(rng.normal(size=10)), np.float32(rng.integers(2, size=10))
    accumulated, add = METRIC.init(), jax.jit(METRIC.accumulate)
    for start in (0, 4, 8):
        rows = [np.pad(x[start : start + 4], (0, max(0, start - 6)), constant_values=np.nan) for x in (outputs, hits)]
        weight = jnp.asarray(~np.isnan(rows[0]), jnp.float32)
        accumulated = add(accumulated, jnp.asarray(rows[0]), {"hits": jnp.asarray(rows[1]), "weight": weight})
    expected = {"error": np.abs(np.float64(outputs)).mean(), "hits": hits.mean()}
    assert METRIC.finish(accumulated) == pytest.approx(expected, rel=1e-6)


def test_every_row_counts_without_weights():
    accumulated = METRIC.accumulate(METRIC.init(), jnp.asarray([1.0, -3.0]), {"hits": jnp.asarray([0.0, 1.0])})
    assert METRIC.finish(accumulated) == {"error": 2.0, "hits": 0.5}


def test_nothing_seen_is_refused():
    with pytest.raises(InputError, match="average: no example"):
        METRIC.finish(METRIC.init())


def test_metrics_together_are_each_on_its_own_output():
    metric = together(
        one=average(("a",), lambda outputs, batch: {"a": outputs}),
        other=average(("b", "c"), lambda outputs, batch: {"b": 2 * outputs, "c": batch["x"]}),
    )
    batch = {"x": jnp.array([5.0, 9.0]), "weight": jnp.array([1.0, 0.0])}
    acc = metric.accumulate(metric.init(), {"one": jnp.array([1.0, 7.0]), "other": jnp.array([3.0, 7.0])}, batch)
    assert metric.finish(acc) == {"a": 1.0, "b": 6.0, "c": 5.0}


def test_metrics_alike_see_the_same_outputs():
    same = average(("a",), lambda outputs, batch: {"a": outputs})
    metric = alike(same, METRIC.on(lambda batch: {"hits": batch["x"]}))
    acc = metric.accumulate(metric.init(), jnp.array([1.0, -3.0]), {"x": jnp.array([0.0, 1.0])})
    assert metric.finish(acc) == {"a": -1.0, "error": 2.0, "hits": 0.5}
