"""Oracle: the definitions, pair by pair in plain Python, on discs whose colour and place are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.average_content_distance import amplitude, centroid, content_metric, mean_colour, mean_distance

RNG = np.random.default_rng(0)
CLIPS, T = 12, 5
CONTENT = RNG.normal(size=(CLIPS, 1, 3)).astype(np.float32)
SEEN = {
    "content": (CONTENT + 0.1 * RNG.normal(size=(CLIPS, T, 3))).astype(np.float32),
    "place": RNG.normal(size=(CLIPS, T, 2)).astype(np.float32),
}


def measure(seen, size=5, **options):
    """In batches of which the last is padded with what is not a number."""
    metric = content_metric(frames=T, content=3, capacity=len(seen["content"]), **options)
    acc = metric.init()
    for k in range(0, len(seen["content"]), size):
        missing = size - len(seen["content"][k : k + size])
        pads = [(0, missing), (0, 0), (0, 0)]
        rows = {name: jnp.asarray(np.pad(x[k : k + size], pads, constant_values=np.nan)) for name, x in seen.items()}
        weight = jnp.asarray(np.arange(size) < size - missing, jnp.float32)
        acc = jax.jit(metric.accumulate)(acc, rows, {"weight": weight})
    return metric.finish(acc)


def pairs(vectors):
    found = [np.sqrt(((a - b) ** 2).sum()) for a, b in itertools.combinations(np.float64(vectors), 2)]
    return sum(found) / len(found)


def test_figures_are_those_of_all_pairs():
    found = measure(SEEN, motions=4)
    assert found["acd"] == pytest.approx(np.mean([pairs(clip) for clip in SEEN["content"]]), rel=1e-6)
    assert found["content_spread"] == pytest.approx(np.float64(SEEN["content"]).mean(1).std(0).mean(), rel=1e-6)
    groups = SEEN["content"].mean(axis=1).reshape(3, 4, 3)
    assert found["acd_motions"] == pytest.approx(np.mean([pairs(group) for group in groups]), rel=1e-6)
    apart = []
    for paths in np.float64(SEEN["place"]).reshape(3, 4, T, 2):
        apart += [np.sqrt(((a - b) ** 2).sum(-1).mean()) for a, b in itertools.combinations(paths, 2)]
    assert found["path_distance"] == pytest.approx(np.mean(apart), rel=1e-6)


def test_a_shuffled_distance_is_that_of_frames_of_any_clip():
    """Expected over all pairs of frames; of many clips the one order drawn comes close."""
    content = RNG.normal(size=(400, T, 3)).astype(np.float32)
    found = measure({"content": content, "place": np.zeros((400, T, 2), np.float32)}, size=100)
    assert found["acd_ratio"] == pytest.approx(1, abs=0.03)
    assert found["acd_shuffled"] == pytest.approx(pairs(content.reshape(-1, 3)[:300]), rel=0.05)
    assert "acd_motions" not in found


def test_a_clip_that_stands_still_has_neither_distance_nor_amplitude():
    still = {name: np.repeat(values[:, :1], T, axis=1) for name, values in SEEN.items()}
    found = measure(still)
    assert found["acd"] == found["amplitude"] == found["acd_ratio"] == 0
    assert found["acd_shuffled"] > 1
    one = {name: np.ones_like(values) for name, values in SEEN.items()}
    assert measure(one)["acd_ratio"] == 0  # nothing at all differs


def test_amplitude_of_a_line_is_its_deviation_whatever_its_direction():
    along = np.sin(2 * np.pi * np.arange(8) / 8)
    for angle in (0.0, 0.4, np.pi / 2, 2.0):
        line = along[:, None] * np.array([np.cos(angle), np.sin(angle)]) + 7
        assert amplitude(3 * line) == pytest.approx(3 / np.sqrt(2))


def test_one_vector_has_no_pairs():
    np.testing.assert_array_equal(mean_distance(np.ones((4, 1, 3))), 0)


def test_colour_and_place_of_a_patch():
    """Of a bright rectangle its colour and middle, however large the frame; a faint ground moves the place little."""
    frames = np.zeros((2, 9, 11, 3), np.float32)
    frames[0, 2:5, 6:8] = (1.0, 0.5, 0.2)
    frames[1, 7, 1] = (0.3, 0.3, 0.9)
    np.testing.assert_allclose(mean_colour(jnp.asarray(frames)), [[1, 0.5, 0.2], [0.3, 0.3, 0.9]], rtol=1e-4)
    np.testing.assert_allclose(centroid(jnp.asarray(frames)), [[3, 6.5], [7, 1]], rtol=1e-4)
    assert np.abs(centroid(jnp.asarray(frames + 0.02)) - centroid(jnp.asarray(frames))).max() < 0.2
    np.testing.assert_array_equal(mean_colour(jnp.zeros((4, 4, 3))), 0)


def test_a_figure_that_is_not_a_number_is_seen():
    for name, figure in (("content", "acd"), ("place", "amplitude")):
        broken = {name: values.copy() for name, values in SEEN.items()}
        broken[name][3, 1, 0] = np.nan
        assert np.isnan(measure(broken)[figure])


def test_nothing_to_measure():
    metric = content_metric(frames=T, content=3, capacity=4)
    with pytest.raises(InputError, match="0 examples"):
        metric.finish(metric.init())
