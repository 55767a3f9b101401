"""Before and after the first event: against a loop in NumPy over clips and frames, and a clip by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.events import around_event

T = 5


def figures(curve, event, weight=None, cuts=()):
    """Of a curve called x, in batches cut at these clips."""
    metric = around_event(("x",), frames=T)
    acc, weight = metric.init(), np.ones(len(curve)) if weight is None else weight
    for rows in np.split(np.arange(len(curve)), cuts):
        batch = {"event": jnp.asarray(event[rows], jnp.uint8), "weight": jnp.asarray(weight[rows], jnp.float32)}
        acc = jax.jit(metric.accumulate)(acc, {"x": jnp.asarray(curve[rows], jnp.float32)}, batch)
    return metric.finish(acc)


def test_two_clips_by_hand():
    """The first has its first event in frame 1 and another in 3, which changes nothing; the second has none."""
    curve = np.array([[1, 2, 4, 8, 16], [10, 10, 10, 10, 60]])
    found = figures(curve, np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]))
    assert found["x_before"] == pytest.approx((1 + 10 * 4 + 60) / 6)
    assert found["x_after"] == pytest.approx((2 + 4 + 8 + 16) / 4)
    nan = np.nan
    np.testing.assert_allclose(found["x_since"], [nan, nan, nan, 1, 2, 4, 8, 16, nan], rtol=1e-6)


def test_against_a_loop_over_clips_and_frames():
    """However they are cut into batches; a padded row, whatever it holds, leaves no trace."""
    rng = np.random.default_rng(0)
    curve, event = rng.normal(3, 2, (40, T)), rng.random((40, T)) < 0.2
    weight = np.ones(40)
    curve[33:], weight[33:] = np.nan, 0
    parts = {"before": [], "after": []} | {k: [] for k in range(1 - T, T)}
    for x, marks in zip(curve[:33], event, strict=False):
        first = min((t for t in range(T) if marks[t]), default=None)
        for t in range(T):
            parts["before" if first is None or t < first else "after"].append(x[t])
            if first is not None:
                parts[t - first].append(x[t])
    assert all(parts.values())
    for cuts in ((), (7, 31)):
        found = figures(curve, event, weight, cuts)
        assert found.keys() == {"x_before", "x_after", "x_since"}
        assert found["x_before"] == pytest.approx(np.mean(parts["before"]), rel=1e-5)
        assert found["x_after"] == pytest.approx(np.mean(parts["after"]), rel=1e-5)
        expected = [np.mean(parts[k]) for k in range(1 - T, T)]
        np.testing.assert_allclose(found["x_since"], expected, rtol=1e-5)


def test_what_is_not_a_number_is_seen_where_it_is():
    curve = np.ones((2, T))
    curve[0, 3] = np.nan
    found = figures(curve, np.array([[0, 0, 1, 0, 0]] * 2))
    assert found["x_before"] == 1
    assert np.isnan(found["x_after"])
    assert np.isnan(found["x_since"]).nonzero()[0].tolist() == [0, 1, 5, 7, 8]  # k = 1; no frames at -4, -3, 3, 4


def test_nothing_seen_is_refused():
    metric = around_event(("x",), frames=T)
    with pytest.raises(InputError, match="around_event: no example"):
        metric.finish(metric.init())
