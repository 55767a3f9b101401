"""Joints against loops in NumPy, and baselines computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.errors import InputError
from seqjax.metrics.poses import box_side, constant_velocity, copy_last, mean_pose, pose_metrics

STILL = {"frames": 3, "thresholds": (0.1, 0.2)}


def example(seed=0, batch=5, frames=3, joints=4):
    rng = np.random.default_rng(seed)
    outputs, target = rng.uniform(0, 10, (2, batch, frames, joints, 2)).astype(np.float32)
    near = rng.random((batch, frames, joints, 1)) < 0.5
    outputs = np.where(near, target + 0.2 * (outputs - target), outputs).astype(np.float32)
    return outputs, {
        "target": target,
        "visible": rng.random((batch, frames, joints)) < 0.7,
        "scale": rng.uniform(5, 15, (batch, frames)).astype(np.float32),
        "weight": np.ones(batch, np.float32),
    }


def measure(outputs, batch, metric=None, cut=2):
    """In two batches."""
    metric = metric or pose_metrics(**STILL)
    acc = metric.init()
    for part in (slice(cut), slice(cut, None)):
        batched = {key: jnp.asarray(value[part]) for key, value in batch.items()}
        acc = jax.jit(metric.accumulate)(acc, jnp.asarray(outputs[part]), batched)
    return metric.finish(acc)


def looped(outputs, batch, frames=range(3)):
    """All visible joints of these frames, one by one."""
    distances, scales = [], []
    for b, t, j in np.ndindex(batch["visible"].shape):
        if batch["visible"][b, t, j] and t in frames and batch["weight"][b]:
            distances.append(np.hypot(*(outputs[b, t, j] - batch["target"][b, t, j]).astype(float)))
            scales.append(batch["scale"][b, t])
    ratio = np.array(distances) / scales
    return {"joint_error": np.mean(distances), "pck_0.1": np.mean(ratio <= 0.1), "pck_0.2": np.mean(ratio <= 0.2)}


def test_figures_against_a_loop_over_the_joints():
    outputs, batch = example()
    found = measure(outputs, batch)
    assert set(found) == {f"{name}{end}" for name in ("joint_error", "pck_0.1", "pck_0.2") for end in ("", "_by_frame")}
    for name, value in looped(outputs, batch).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
        by_frame = [looped(outputs, batch, frames=[t])[name] for t in range(3)]
        np.testing.assert_allclose(found[f"{name}_by_frame"], by_frame, rtol=1e-5)
    assert 0 < found["pck_0.1"] < found["pck_0.2"] < 1


def test_hidden_joints_and_padding_leave_no_trace():
    outputs, batch = example()
    batch["weight"][3:] = 0
    expected = measure(outputs, batch)
    for name, value in looped(outputs, batch).items():
        np.testing.assert_allclose(expected[name], value, rtol=1e-5)
    outputs[~batch["visible"]] = np.nan
    outputs[3:] = np.nan
    assert measure(outputs, batch) == expected


def test_nan_that_counts_reaches_every_figure():
    outputs, batch = example()
    batch["visible"][0, 1] = True
    outputs[0, 1, 2, 0] = np.nan
    found = measure(outputs, batch)
    assert all(np.isnan(found[name]) for name in ("joint_error", "pck_0.1", "pck_0.2"))
    assert np.isnan(found["pck_0.2_by_frame"]).tolist() == [False, True, False]


def test_a_frame_without_a_visible_joint_has_no_figure_and_spoils_none():
    outputs, batch = example()
    batch["visible"][:, 2] = False
    found = measure(outputs, batch)
    assert np.isnan(found["joint_error_by_frame"]).tolist() == [False, False, True]
    np.testing.assert_allclose(found["joint_error"], looped(outputs, batch)["joint_error"], rtol=1e-5)


def test_the_threshold_itself_is_within():
    batch = {
        "target": np.zeros((1, 1, 2, 2), np.float32),
        "visible": np.ones((1, 1, 2), bool),
        "scale": np.full((1, 1), 8, np.float32),
    }
    outputs = np.array([[[[0, 2.0], [2.01, 0]]]], np.float32)
    metric = pose_metrics(frames=1, thresholds=(0.25,))
    acc = metric.accumulate(metric.init(), jnp.asarray(outputs), {k: jnp.asarray(v) for k, v in batch.items()})
    assert metric.finish(acc)["pck_0.25"] == 0.5


def test_shapes_that_do_not_belong_together_and_an_empty_set():
    outputs, batch = example()
    metric = pose_metrics(frames=2)
    with pytest.raises(InputError, match=r"pose_metrics\(frames=2\).*\(5, 3, 4, 2\)"):
        metric.accumulate(metric.init(), jnp.asarray(outputs), {k: jnp.asarray(v) for k, v in batch.items()})
    with pytest.raises(InputError, match="no example was accumulated"):
        metric.finish(metric.init())


def test_side_of_the_box_around_what_is_visible():
    joints = jnp.array([[[0.0, 0], [4, 9], [7, 3]], [[0, 0], [0, 0], [0, 0]]])
    visible = jnp.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(box_side(joints, visible), [9, 0])
    np.testing.assert_array_equal(box_side(joints, jnp.ones_like(visible)), [9, 0])


@pytest.fixture
def seen():
    """Four frames of one clip: a joint that goes right by 2 a frame, one hidden in the last two frames that goes down
    by 1, one seen once, one never."""
    joints = np.zeros((1, 4, 4, 2), np.float32)
    joints[0, :, 0, 1] = [0, 2, 4, 6]
    joints[0, :, 1, 0] = [5, 6, 99, 99]
    joints[0, :, 2] = 3
    joints[0, :, 3] = 50
    visible = np.zeros((1, 4, 4), bool)
    visible[0, :, 0] = True
    visible[0, :2, 1] = True
    visible[0, 2, 2] = True
    return jnp.asarray(joints), jnp.asarray(visible)


# Of all that is visible: columns 0, 2, 4, 6, 0, 0, 3 and rows 0, 0, 0, 0, 5, 6, 3.
MIDDLE = [2, 15 / 7]


def test_copies_stay_where_joints_were_last_seen(seen):
    found = copy_last(*seen, steps=3)
    for step in range(3):
        np.testing.assert_allclose(found[0, step], [[0, 6], [6, 0], [3, 3], MIDDLE], rtol=1e-6)


def test_velocity_goes_on_from_when_joints_were_last_seen(seen):
    found = constant_velocity(*seen, steps=2)
    np.testing.assert_allclose(found[0, 0], [[0, 8], [9, 0], [3, 3], MIDDLE], rtol=1e-6)
    np.testing.assert_allclose(found[0, 1], [[0, 10], [10, 0], [3, 3], MIDDLE], rtol=1e-6)


def test_mean_pose_is_of_visible_joints(seen):
    np.testing.assert_allclose(mean_pose(*seen, steps=1)[0, 0], [[0, 3], [5.5, 0], [3, 3], MIDDLE], rtol=1e-6)
